"""Running a model with transformers, block by block: weights are read when a block is entered, in float32."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import nn
from torch.overrides import TorchFunctionMode

from studio.core.architectures import block_index
from studio.core.architectures.config import model_types
from studio.core.errors import CheckpointError
from studio.core.model import Model, Stored
from studio.core.names import some_of
from studio.lm.inputs import Seen, Sink, deliver
from studio.lm.lockstep import Lockstep
from studio.lm.names import torch_places
from studio.lm.protocol import first_line
from studio.lm.runtimes import transformers_class

_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
_COMPARED = 64
_PRODUCTS = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.mm, torch.bmm)


class EndOfInterest(BaseException):
    """Raised where only the output would follow."""


class TorchRunning:
    """A model in transformers, in float32; `steps` runs it."""

    def __init__(self, model: Model) -> None:
        """Raises CheckpointError for a model that transformers does not load."""
        self._module = _load(model)
        self._reader = _Reader(model, self._module)
        shapes = {name: tuple(parameter.shape) for name, parameter in self._module.named_parameters()}
        self._places = torch_places(model, shapes)
        self._blocks = _blocks(self._module)
        self.block_count = len(self._blocks)
        self.runtime = f"transformers {version('transformers')}, torch {version('torch')}"

    def steps(self, batches: Sequence[NDArray[np.int32]], sink: Sink, tick: Callable[[], None]) -> Iterator[int]:
        """See `MlxRunning.steps`."""
        lockstep = Lockstep()
        watch = _Watch(self._module, self._reader, partial(deliver, places=self._places, sink=sink))
        hooks = [block.register_forward_pre_hook(watch.enter) for block in self._blocks]
        hooks += [block.register_forward_hook(_passed(watch, tick, lockstep)) for block in self._blocks]
        try:
            yield from lockstep.run([partial(watch.forward, batch) for batch in batches])
        finally:
            for hook in hooks:
                hook.remove()


def _passed(watch: "_Watch", tick: Callable[[], None], lockstep: Lockstep) -> Callable[..., None]:
    def passed(block: nn.Module, _args: Any, _found: Any) -> None:
        watch.leave(block)
        tick()
        lockstep.pause()

    return passed


def _load(model: Model) -> nn.Module:
    """The model in its own dtype, its weights in the mapped file; what is outside of blocks and small in float32."""
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    kind = transformers_class(model_types(model.config)[0])
    assert kind is not None
    try:
        module, report = getattr(transformers, kind).from_pretrained(
            model.folder, dtype="auto", local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    except (ValueError, KeyError, TypeError, OSError, RuntimeError, AttributeError, ImportError) as error:
        raise CheckpointError(f"transformers does not load it: {first_line(error)}", file=model.folder) from None
    if lacking := sorted(map(str, (*report["missing_keys"], *report["mismatched_keys"]))):
        raise CheckpointError(f"transformers finds no weights for {some_of(lacking)}", file=model.folder)
    with suppress(AttributeError, ValueError):
        module.set_experts_implementation("eager")
    _widen_outside(module)
    loaded: nn.Module = module.eval()
    return loaded


def _widen_outside(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if block_index(f"{name}.") is None and not isinstance(part, nn.Embedding):
            for key, parameter in part.named_parameters(recurse=False):
                if parameter.is_floating_point() and not _is_output(module, part):
                    getattr(part, key).data = parameter.data.float()
    for part in module.modules():
        for key, buffer in part.named_buffers(recurse=False):
            if buffer is not None and buffer.is_floating_point():
                setattr(part, key, buffer.float())


def _is_output(module: Any, part: nn.Module) -> bool:
    return part is module.get_output_embeddings()


def _blocks(module: nn.Module) -> list[nn.Module]:
    """The modules of the longest list of the language model's modules."""
    lists = [part for part in module.modules() if isinstance(part, nn.ModuleList) and len(part)]
    sizes = [sum(p.numel() for p in part.parameters()) for part in lists]
    return list(lists[int(np.argmax(sizes))]) if lists else []


class _Reader:
    """Weights of a checkpoint by the names of parameters, where those are stored as they are.

    transformers maps its files: what was used of a mapping counts as memory, and what is read does not.
    """

    def __init__(self, model: Model, module: nn.Module) -> None:
        stored = {layer.tensor.name: layer.stored for layer in model.layers}
        self._stored = {
            name: stored[name]
            for name, parameter in module.named_parameters()
            if name in stored and _is_stored_so(parameter, stored[name])
        }

    def wide(self, name: str, parameter: nn.Parameter) -> torch.Tensor:
        """A parameter in float32, with a memory of its own."""
        if (found := self._stored.get(name)) is None:
            return parameter.data.float()
        raw = found.file.read(found.tensor.start, found.tensor.nbytes)
        return torch.frombuffer(raw, dtype=parameter.dtype).reshape(parameter.shape).float()


def _is_stored_so(parameter: nn.Parameter, stored: Stored) -> bool:
    """True when a parameter holds the bytes of a tensor, and not what a loader made of them."""
    tensor = stored.tensor
    if tuple(parameter.shape) != tensor.shape or parameter.element_size() * parameter.numel() != tensor.nbytes:
        return False
    count = min(parameter.numel(), _COMPARED)
    first = parameter.data.reshape(-1)[:count].contiguous().view(torch.uint8).numpy().tobytes()
    return _DTYPES.get(tensor.dtype) == parameter.dtype and bytes(stored.file.read(tensor.start, len(first))) == first


class _Watch(TorchFunctionMode):
    """Notes what the weights of the model are multiplied with, and delivers it when a block is done."""

    def __init__(self, module: nn.Module, reader: _Reader, deliver_calls: Callable[[Sequence[Seen]], None]) -> None:
        super().__init__()
        self._module, self._reader, self._deliver = module, reader, deliver_calls
        self._calls: list[tuple[str, torch.Tensor, int | None, int]] = []
        self._names = {id(p): name for name, p in module.named_parameters()}
        self._weights = {storage_of(p): (name.removesuffix(".weight"), p) for name, p in module.named_parameters()}
        self._stored: dict[int, torch.Tensor] = {}
        head = module.get_output_embeddings()  # type: ignore[operator]
        self._head = None if head is None else storage_of(head.weight)

    def enter(self, block: nn.Module, _args: Any) -> None:
        """Read the weights of a block, in float32."""
        for parameter in block.parameters():
            if parameter.is_floating_point():
                name, self._stored[id(parameter)] = self._names[id(parameter)], parameter.data
                parameter.data = self._reader.wide(name, parameter)
                self._weights[storage_of(parameter)] = (name.removesuffix(".weight"), parameter)

    def leave(self, block: nn.Module) -> None:
        """Deliver what went into its layers, and let go of the weights."""
        self._flush()
        for parameter in block.parameters():
            if id(parameter) in self._stored:
                del self._weights[storage_of(parameter)]
                parameter.data = self._stored.pop(id(parameter))
                self._weights[storage_of(parameter)] = (self._names[id(parameter)].removesuffix(".weight"), parameter)

    def forward(self, batch: NDArray[np.int32]) -> None:
        """Run a batch up to its output."""
        with torch.no_grad(), self, suppress(EndOfInterest):
            self._module(input_ids=torch.from_numpy(batch.astype(np.int64)), use_cache=False)
        self._flush()

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.embedding:
            return func(*args, **(kwargs or {})).float()
        weight, x = operands(func, args, kwargs or {})
        if weight is not None and x is not None and storage_of(weight) in self._weights:
            self._note(weight, x)
        return func(*args, **(kwargs or {}))

    def _note(self, weight: torch.Tensor, x: torch.Tensor) -> None:
        name, parameter = self._weights[storage_of(weight)]
        if parameter.dim() == 2:
            self._calls.append((name, x, None, 0))
        elif parameter.dim() == 3 and weight.dim() == 2:
            expert = weight.storage_offset() // parameter[0].numel()
            self._calls.append((name, x, expert, len(parameter)))
        if storage_of(weight) == self._head:
            raise EndOfInterest

    def _flush(self) -> None:
        calls, self._calls = self._calls, []
        dense = [_seen(name, x) for name, x, expert, _ in calls if expert is None]
        self._deliver([*dense, *_joined([call for call in calls if call[2] is not None])])


def _joined(calls: Sequence[tuple[str, torch.Tensor, int | None, int]]) -> list[Seen]:
    """One call for all experts of a stack, from a call for each."""
    stacks: dict[str, list[tuple[torch.Tensor, int]]] = {}
    counts = {name: count for name, _, _, count in calls}
    for name, x, expert, _ in calls:
        assert expert is not None
        stacks.setdefault(name, []).append((x, expert))
    return [_stack(name, parts, counts[name]) for name, parts in stacks.items()]


def _stack(name: str, parts: Sequence[tuple[torch.Tensor, int]], count: int) -> Seen:
    rows = [_rows(x) for x, _ in parts]
    experts = np.repeat([expert for _, expert in parts], [len(part) for part in rows])
    return Seen(name, id(parts[0][0]), np.concatenate(rows), experts.astype(np.int64), count)


def storage_of(tensor: torch.Tensor) -> int:
    """What tells the memory of a tensor, and of views of it, from others."""
    return tensor.untyped_storage().data_ptr()


def operands(func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """(the matrix, what it is multiplied with) of a call that multiplies."""
    if func is torch.nn.functional.linear:
        found = (args[1] if len(args) > 1 else kwargs.get("weight"), args[0] if args else kwargs.get("input"))
    elif func is torch.addmm and len(args) > 2:
        found = (args[2], args[1])
    elif func in _PRODUCTS and len(args) > 1:
        found = (args[1], args[0])
    else:
        return None, None
    return found if all(isinstance(part, torch.Tensor) for part in found) else (None, None)


def _seen(name: str, x: torch.Tensor) -> Seen:
    return Seen(name, id(x), _rows(x))


def _rows(x: torch.Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = x.detach().reshape(-1, x.shape[-1]).float().numpy()
    return found
