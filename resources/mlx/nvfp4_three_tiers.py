"""Runs NVFP4 weights of three tiers in stock mlx-lm: load(folder, trust_remote_code=True); mlx-vlm needs no consent.

Written by NVFP4 Studio. The architecture is the runtime's own. In mlx-lm its linear layers, embeddings and experts are
replaced where the checkpoint holds a `global_scale`, which is max|W|: a weight is code x block scale x global_scale /
2688. mlx-vlm has such layers itself, under other names.
"""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_unflatten

_CONFIG = json.loads((Path(__file__).parent / "config.json").read_text(encoding="utf-8"))
_DTYPE = getattr(mx, str(_CONFIG.get("dtype") or _CONFIG.get("torch_dtype")), mx.bfloat16)
_NVFP4 = {"group_size": 16, "bits": 4, "mode": "nvfp4"}
_DIVISOR = 2688.0


def _runtime() -> str:
    """The runtime that imports this file; both may be loaded."""
    frame = sys._getframe()
    while frame := frame.f_back:
        if (name := str(frame.f_globals.get("__name__")).partition(".")[0]) in ("mlx_lm", "mlx_vlm"):
            return name
    return "mlx_lm"


class _ThreeTiers(nn.Module):
    """Codes, block scales and max|W| of a weight [..., outputs, inputs].

    The block scales are called otherwise than mlx-lm calls its own, which then leaves these layers alone.
    """

    def __init__(self, shape: tuple[int, ...], has_bias: bool) -> None:
        super().__init__()
        *stack, outputs, inputs = shape
        self.weight = mx.zeros((*stack, outputs, inputs // 8), mx.uint32)
        self.block_scales = mx.zeros((*stack, outputs, inputs // 16), mx.uint8)
        self.global_scale = mx.zeros(stack, mx.float32)
        if has_bias:
            self.bias = mx.zeros((*stack, outputs))
        self.freeze()

    def to_quantized(self, **_: object) -> "_ThreeTiers":
        """It is quantized already; mlx-lm asks all the same."""
        return self

    @property
    def multiplier(self) -> mx.array:
        """The number that every weight is multiplied by; one per expert in a stack."""
        return self.global_scale / _DIVISOR


class Linear(_ThreeTiers):
    """The tensor scale is applied to the activations in float32, where it neither overflows nor vanishes."""

    def __call__(self, x: mx.array) -> mx.array:
        """Multiply `x` [..., inputs]."""
        scaled = x.astype(mx.float32) * self.multiplier
        y = mx.quantized_matmul(scaled, self.weight, scales=self.block_scales, transpose=True, **_NVFP4)
        return (y + self.bias if "bias" in self else y).astype(x.dtype)


class Embedding(_ThreeTiers):
    """Rows are decoded when they are looked up."""

    def __call__(self, indices: mx.array) -> mx.array:
        """Rows of the embedding, in the dtype of the checkpoint."""
        rows = mx.dequantize(self.weight[indices], self.block_scales[indices], dtype=mx.float32, **_NVFP4)
        return (rows * self.multiplier).astype(_DTYPE)

    as_linear = Linear.__call__


class SwitchedLinear(_ThreeTiers):
    """Experts on a CPU, where `gather_qmm` takes no tensor scale; one multiplier per expert."""

    def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:
        """Multiply with the chosen experts; arguments as in mlx-lm's SwitchLinear."""
        y = mx.gather_qmm(
            x.astype(mx.float32),
            self.weight,
            self.block_scales,
            rhs_indices=indices,
            transpose=True,
            sorted_indices=sorted_indices,
            **_NVFP4,
        )
        y = y * self.multiplier[indices][..., None, None]
        return (y + self.bias[indices][..., None, :] if "bias" in self else y).astype(x.dtype)


def _place_layers(model: nn.Module, weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """Replace the layers of `model` that have a tensor scale among `weights`; returns the weights under their names."""
    from mlx_lm.models.switch_layers import SwitchLinear

    on_gpu = mx.default_device().type == mx.DeviceType.gpu
    placed = []
    for path, module in model.named_modules():
        if f"{path}.global_scale" not in weights:
            continue
        if isinstance(module, SwitchLinear) and on_gpu:
            placed.append((path, _with_own_scale(module, path)))
        elif kind := _kind(module, SwitchLinear):
            placed.append((path, kind(module.weight.shape, "bias" in module)))
            weights[f"{path}.block_scales"] = weights.pop(f"{path}.scales")
    model.update_modules(tree_unflatten(placed))
    return weights


def _kind(module: nn.Module, switched: type) -> Callable[..., nn.Module] | None:
    return {nn.Linear: Linear, nn.Embedding: Embedding, switched: SwitchedLinear}.get(type(module))


def _with_own_scale(module: nn.Module, path: str) -> nn.Module:
    """mlx-lm's own layer for experts with a tensor scale each, which runs on a GPU only."""
    made = module.to_quantized(**_NVFP4, global_scale=True)
    if path in _CONFIG["quantization"]:
        made.to_quantized = lambda **_: made
    return made


def _mlx_lm() -> tuple[type, type]:
    from mlx_lm.utils import MODEL_REMAPPING

    kind = _CONFIG["model_type"]
    architecture = importlib.import_module(f"mlx_lm.models.{MODEL_REMAPPING.get(kind, kind)}")

    class Model(architecture.Model):
        """The architecture of mlx-lm with layers that know a tensor scale."""

        def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
            """Put the layers in place before mlx-lm loads the weights."""
            if hasattr(super(), "sanitize"):
                weights = super().sanitize(weights)
            return _place_layers(self, weights)

    return Model, architecture.ModelArgs


def _mlx_vlm() -> dict[str, object]:
    from mlx_vlm.utils import get_model_type

    architecture = importlib.import_module(f"mlx_vlm.models.{get_model_type(_CONFIG)}")

    class Model(architecture.Model):
        """The architecture of mlx-vlm, which stores the multiplier max|W| / 2688."""

        def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
            """Give the tensor scales the names and the meaning that mlx-vlm expects."""
            if hasattr(super(), "sanitize"):
                weights = super().sanitize(weights)
            scales = [name for name in weights if name.endswith(".global_scale")]
            for name in scales:
                multiplier = weights.pop(name) / _DIVISOR
                weights[name.removesuffix("global_scale") + "weight_scale_2"] = multiplier
            return weights

    names = {name: value for name, value in vars(architecture).items() if not name.startswith("__")}
    return {**names, "Model": Model}


if _runtime() == "mlx_vlm":
    globals().update(_mlx_vlm())
else:
    Model, ModelArgs = _mlx_lm()
