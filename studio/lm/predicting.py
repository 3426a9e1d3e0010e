"""Predictors: a checkpoint loaded by a runtime, in float32, asked for its predictions."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from studio.core.architectures.config import model_types
from studio.core.containers.strict_json import read_object
from studio.core.errors import CheckpointError
from studio.core.names import printable, some_of
from studio.core.opening.checkpoint import open_model
from studio.lm.configs import complete_config
from studio.lm.input_scales import InputScales, read_input_scales
from studio.lm.runtimes import RuntimeName, choose_runtime, installed, knows, transformers_class

Logits = NDArray[np.float32]

Continue = Callable[[Sequence[int]], Logits]
"""Takes the tokens that follow those that it took before; gives the logits [words] of what comes after them."""


class Predictor(Protocol):
    """A loaded model. It computes in float32, on the processor or the GPU that the runtime takes by itself."""

    def logits(self, tokens: NDArray[np.int32]) -> Logits:
        """Logits [positions, words] of what follows each token [positions]; a new array."""
        ...

    def conversation(self) -> Continue:
        """A text to be continued, from its first token on."""
        ...


def load_predictor(folder: Path, runtime: RuntimeName) -> Predictor:
    """The checkpoint in `folder`, loaded. Raises CheckpointError for one that the runtime does not take as it is."""
    config = read_object(folder / "config.json", constants=True)
    return _LOADERS[runtime](folder, config, read_input_scales(folder))


def fitting_runtime(folder: Path, wanted: RuntimeName | None = None) -> RuntimeName:
    """The runtime that is `wanted`, or that loads the checkpoint in `folder`: some forms only one of them takes.

    Raises BackendError when none knows the architecture.
    """
    config = read_object(folder / "config.json", constants=True)
    nbytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    first = wanted or choose_runtime(config, folder, nbytes)
    both = not wanted and first == "mlx-lm" and "transformers" in installed() and knows("transformers", config)
    return "transformers" if both and not _mlx_loads(folder, config) else first


def _mlx_loads(folder: Path, config: dict[str, Any]) -> bool:
    """True when mlx-lm finds all tensors; none is read."""
    try:
        _load_mlx(folder, config, {})
    except CheckpointError:
        return False
    return True


def runtime_version(runtime: RuntimeName) -> str:
    """The version of a runtime, and of what computes for it."""
    base = {"mlx-lm": "mlx", "transformers": "torch"}[runtime]
    return f"{version(runtime)} ({base} {version(base)})"


class _Mlx:
    def __init__(self, model: Any) -> None:
        self._model = model

    def logits(self, tokens: NDArray[np.int32]) -> Logits:
        """See `Predictor.logits`."""
        import mlx.core as mx

        return np.array(self._model(mx.array(tokens)[None])[0].astype(mx.float32))

    def conversation(self) -> Continue:
        """See `Predictor.conversation`."""
        import mlx.core as mx
        from mlx_lm.models.cache import make_prompt_cache

        cache = make_prompt_cache(self._model)

        def following(tokens: Sequence[int]) -> Logits:
            return np.array(self._model(mx.array([list(tokens)]), cache=cache)[0, -1].astype(mx.float32))

        return following


def _load_mlx(folder: Path, _config: dict[str, Any], scales: InputScales) -> Predictor:
    import mlx.core as mx
    from mlx_lm.utils import load_model

    with open_model(folder) as opened:
        complete = complete_config(opened)  # mlx-lm silently takes defaults for what is nested elsewhere
    try:
        model, _ = load_model(folder, lazy=True, model_config=complete)
    except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError) as error:
        raise _refused("mlx-lm", folder, error) from None
    model.set_dtype(mx.float32)
    if scales:
        from studio.lm.mlx_inputs import quantize_inputs

        with open_model(folder) as opened:
            quantize_inputs(model, opened, scales)
    return _Mlx(model)


class _Transformers:
    def __init__(self, model: Any, inputs: AbstractContextManager[object]) -> None:
        self._model, self._inputs = model, inputs

    def logits(self, tokens: NDArray[np.int32]) -> Logits:
        """See `Predictor.logits`."""
        return _array(self._run(tokens, use_cache=False).logits[0])

    def conversation(self) -> Continue:
        """See `Predictor.conversation`."""
        kept: dict[str, Any] = {}

        def following(tokens: Sequence[int]) -> Logits:
            found = self._run(np.array(tokens, np.int32), use_cache=True, past_key_values=kept.get("past"))
            kept["past"] = found.past_key_values
            return _array(found.logits[0, -1])

        return following

    def _run(self, tokens: NDArray[np.int32], **how: Any) -> Any:
        import torch

        with torch.inference_mode(), self._inputs:
            ids = torch.from_numpy(tokens.astype(np.int64))[None].to(self._model.device)
            return self._model(input_ids=ids, **how)


def _array(logits: Any) -> Logits:
    found: Logits = logits.float().cpu().numpy()
    return found


def _load_transformers(folder: Path, config: dict[str, Any], scales: InputScales) -> Predictor:
    import torch
    import transformers

    kind = next(iter(model_types(config)), "")
    model_class = getattr(transformers, transformers_class(kind) or "AutoModelForCausalLM")
    try:
        model, report = model_class.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, OSError, ImportError) as error:
        raise _refused("transformers", folder, error) from None
    if lacking := sorted(map(str, (*report["missing_keys"], *report["mismatched_keys"]))):
        what = f"transformers finds no weights for {some_of(lacking)}"
        raise CheckpointError(what, file=folder, hint="it would make them up; the model can not be run by it")
    return _Transformers(model.eval(), _quantized_inputs(model, folder, scales) if scales else nullcontext())


def _quantized_inputs(model: Any, folder: Path, scales: InputScales) -> AbstractContextManager[object]:
    from studio.lm.torch_inputs import QuantizedInputs

    with open_model(folder) as opened:
        return QuantizedInputs(model, opened, scales)


def _refused(runtime: RuntimeName, folder: Path, error: Exception) -> CheckpointError:
    first = (str(error) or type(error).__name__).splitlines()[0]
    return CheckpointError(f"{runtime} does not load it: {printable(first, 300)}", file=folder)


_LOADERS: dict[RuntimeName, Callable[[Path, dict[str, Any], InputScales], Predictor]] = {
    "mlx-lm": _load_mlx,
    "transformers": _load_transformers,
}
