"""Running a model with mlx-lm, block by block: weights are read lazily, used by all batches, and dropped."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib.metadata import version
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedLinear
from mlx.utils import tree_flatten
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear
from mlx_lm.utils import load_model
from numpy.typing import NDArray

from studio.core.errors import CheckpointError
from studio.core.model import Model
from studio.lm.configs import complete_config
from studio.lm.inputs import Seen, Sink, deliver
from studio.lm.lockstep import Lockstep
from studio.lm.names import mlx_places
from studio.lm.protocol import first_line

_REFUSALS = (AttributeError, ImportError, LookupError, OSError, RuntimeError, SystemExit, TypeError, ValueError)
"""What mlx-lm raises for a checkpoint that it does not take."""

_CACHE_NBYTES = 128 << 20
LINEAR = (Linear, QuantizedLinear)
STACK = (SwitchLinear, QuantizedSwitchLinear)
_EMPTY = mx.zeros((0,))


class EndOfInterest(BaseException):
    """Raised where only the output would follow."""


class MlxRunning:
    """A model in mlx-lm, in float32; `steps` runs it."""

    def __init__(self, model: Model) -> None:
        """Raises CheckpointError for a model that mlx-lm does not load."""
        self._model = model
        self._streams = [mx.new_thread_unsafe_stream(device) for device in _devices()]
        self._places = mlx_places(model)
        self._heads = {place[0] for place, names in self._places.items() if _is_head(model, names)}
        self.runtime = f"mlx-lm {version('mlx-lm')}, mlx {version('mlx')}"
        self.block_count = len(_blocks(_load(model)))
        mx.set_cache_limit(_CACHE_NBYTES)

    def steps(self, batches: Sequence[NDArray[np.int32]], sink: Sink, tick: Callable[[], None]) -> Iterator[int]:
        """Run all batches [windows, length]; yields the number of each block when all have passed it.

        The last step is what comes after the blocks. `tick` is called when a batch has passed a block.
        """
        with self._shared_streams():
            yield from self._steps(batches, sink, tick)

    def _steps(self, batches: Sequence[NDArray[np.int32]], sink: Sink, tick: Callable[[], None]) -> Iterator[int]:
        module = _load(self._model)
        blocks = _blocks(module)
        lockstep = Lockstep()
        watch = _Watch(partial(deliver, places=self._places, sink=sink))
        watch.linears(module, self._heads)

        def passed() -> None:
            tick()
            lockstep.pause()

        watch.blocks(blocks, passed)
        last_use = _last_use(blocks)
        for step in lockstep.run([partial(self._forward, watch, module, batch) for batch in batches]):
            _drop(blocks[step : step + 1], last_use, step)
            if step == 0:
                _drop([part for _, part in parts_of(module) if isinstance(part, Embedding)], {}, step)
            mx.clear_cache()
            yield step

    def _forward(self, watch: "_Watch", module: Module, batch: NDArray[np.int32]) -> None:
        try:
            with self._shared_streams():
                watch.forward(module, batch)
        finally:
            mx.clear_streams()  # of this thread, which mlx ends no thread well with

    @contextmanager
    def _shared_streams(self) -> Iterator[None]:
        """Let this thread compute on the streams that all threads share, one after the other."""
        with ExitStack() as stack:
            for stream in self._streams:
                stack.enter_context(mx.stream(stream))
            yield


def _devices() -> list[Any]:
    return [mx.cpu] if mx.default_device() == mx.Device(mx.cpu) else [mx.cpu, mx.gpu]


def _is_head(model: Model, names: Sequence[str]) -> bool:
    return any(name in model.by_name and model.by_name[name].role == "head" for name in names)


def _load(model: Model) -> Module:
    """The model with lazy weights in float32; embeddings stay as they are stored, and what they give is widened."""
    try:
        module, _ = load_model(model.folder, lazy=True, model_config=complete_config(model))
    except _REFUSALS as error:
        raise CheckpointError(f"mlx-lm does not load it: {first_line(error)}", file=model.folder) from None
    for _, part in parts_of(module):
        if isinstance(part, Embedding):
            rebind(part, __call__=_embed(type(part)), as_linear=_end)
        else:
            _widen(part)
    loaded: Module = module
    return loaded


def _widen(part: Module) -> None:
    for key, value in part.items():
        if isinstance(value, mx.array) and mx.issubdtype(value.dtype, mx.floating):
            part[key] = value.astype(mx.float32)


def _embed(kind: type) -> Callable[..., Any]:
    return lambda part, *args: kind.__call__(part, *args).astype(mx.float32)


def _end(*_: Any) -> Any:
    raise EndOfInterest


def rebind(part: Module, **methods: Callable[..., Any]) -> None:
    """Give one module other methods; it stays what it is for whoever asks for its class."""
    kind = type(part)
    object.__setattr__(part, "__class__", type(kind.__name__, (kind,), methods))


def _blocks(module: Module) -> list[Module]:
    """The blocks of the model; none where mlx-lm gives them no name, and then all is one step."""
    found = getattr(module, "layers", None)
    return [part for part in found if isinstance(part, Module)] if isinstance(found, list) else []


def parts_of(module: Module) -> list[tuple[str, Any]]:
    """Paths and modules of all that a module holds, itself included."""
    return list(module.named_modules())  # type: ignore[no-untyped-call]


def _arrays_of(tree: Any) -> list[mx.array]:
    """The arrays of a nested structure; others than arrays are left out."""
    found: Any = tree_flatten(tree)
    return [array for _, array in found if isinstance(array, mx.array)]


def _last_use(blocks: Sequence[Module]) -> dict[int, int]:
    """The last block that uses each array, for models whose blocks share some."""
    return {
        id(array): index
        for index, block in enumerate(blocks)
        for _, part in parts_of(block)
        for array in _arrays_of(part)
    }


def _drop(parts: Sequence[Module], last_use: Mapping[int, int], step: int) -> None:
    """Let go of arrays that are not used after this step."""
    for part in parts:
        for _, inner in parts_of(part):
            for key, value in inner.items():
                if isinstance(value, mx.array) and last_use.get(id(value), step) <= step:
                    inner[key] = _EMPTY


class _Watch:
    """Notes the inputs of linear layers, and delivers them when a block is done."""

    def __init__(self, deliver_calls: Callable[[Sequence[Seen]], None]) -> None:
        self._deliver = deliver_calls
        self._calls: list[tuple[str, Any, Any, int]] = []

    def linears(self, module: Module, heads: set[str]) -> None:
        """Watch all linear layers; heads end the run."""
        for path, part in parts_of(module):
            if isinstance(part, LINEAR):
                rebind(part, __call__=self._linear(type(part), path, path in heads))
            elif isinstance(part, STACK):
                rebind(part, __call__=self._stack(type(part), path))

    def _linear(self, kind: type, path: str, is_head: bool) -> Callable[..., Any]:
        def call(part: Module, x: Any) -> Any:
            self._calls.append((path, x, None, 0))
            return _end() if is_head else kind.__call__(part, x)

        return call

    def _stack(self, kind: type, path: str) -> Callable[..., Any]:
        def call(part: Any, x: Any, indices: Any, *args: Any, **named: Any) -> Any:
            self._calls.append((path, x, indices, part.num_experts))
            return kind.__call__(part, x, indices, *args, **named)

        return call

    def blocks(self, blocks: Sequence[Module], passed: Callable[[], None]) -> None:
        """Evaluate each block when it was called, deliver what went into its layers, then call `passed`."""
        for block in {id(block): block for block in blocks}.values():
            rebind(block, __call__=self._block(type(block), passed))

    def _block(self, kind: type, passed: Callable[[], None]) -> Callable[..., Any]:
        def call(part: Module, *args: Any, **named: Any) -> Any:
            found = kind.__call__(part, *args, **named)
            self._flush(found)
            passed()
            return found

        return call

    def forward(self, module: Module, batch: NDArray[np.int32]) -> None:
        """Run a batch up to its output."""
        with suppress(EndOfInterest):
            module(mx.array(batch))
        self._flush(())

    def _flush(self, found: Any) -> None:
        calls, self._calls = self._calls, []
        outputs = _arrays_of(found)
        mx.eval(outputs, [(x, indices) for _, x, indices, _ in calls if indices is not None], [x for _, x, *_ in calls])
        self._deliver([_seen(*call) for call in calls])


def _seen(path: str, x: Any, indices: Any, count: int) -> Seen:
    if indices is None:
        return Seen(path, id(x), _rows(x))
    experts = np.array(indices).astype(np.int64)
    rows = np.broadcast_to(_array(x.squeeze(-2)), (*experts.shape, x.shape[-1]))
    return Seen(path, id(x), rows.reshape(-1, x.shape[-1]), experts.reshape(-1), count)


def _rows(x: Any) -> NDArray[np.float32]:
    return _array(x).reshape(-1, x.shape[-1])


def _array(x: Any) -> NDArray[np.float32]:
    return np.array(x.astype(mx.float32), copy=False)
