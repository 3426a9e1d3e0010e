"""Runs NVFP4 weights of three tiers in stock mlx-lm: load(folder, trust_remote_code=True).

Written by NVFP4 Studio. The architecture is mlx-lm's own; its linear layers, embeddings and experts are replaced where
the checkpoint holds a `global_scale`, which is max|W|: a weight is code x block scale x global_scale / 2688.
"""

import importlib
import json
from pathlib import Path

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_unflatten
from mlx_lm.models.switch_layers import SwitchLinear
from mlx_lm.utils import MODEL_REMAPPING

_CONFIG = json.loads((Path(__file__).parent / "config.json").read_text(encoding="utf-8"))
_TYPE = _CONFIG["model_type"]
_DTYPE = getattr(mx, str(_CONFIG.get("dtype") or _CONFIG.get("torch_dtype")), mx.bfloat16)
_architecture = importlib.import_module(f"mlx_lm.models.{MODEL_REMAPPING.get(_TYPE, _TYPE)}")
_NVFP4 = {"group_size": 16, "bits": 4, "mode": "nvfp4"}

ModelArgs = _architecture.ModelArgs


class _ThreeTiers(nn.Module):
    """Codes, block scales and max|W| of a weight [..., outputs, inputs]."""

    def __init__(self, shape: tuple[int, ...], has_bias: bool) -> None:
        super().__init__()
        *stack, outputs, inputs = shape
        self.weight = mx.zeros((*stack, outputs, inputs // 8), mx.uint32)
        self.scales = mx.zeros((*stack, outputs, inputs // 16), mx.uint8)
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
        return self.global_scale / 2688.0


class Linear(_ThreeTiers):
    """The tensor scale is applied to the activations in float32, where it neither overflows nor vanishes."""

    def __call__(self, x: mx.array) -> mx.array:
        """Multiply `x` [..., inputs]."""
        scaled = x.astype(mx.float32) * self.multiplier
        y = mx.quantized_matmul(scaled, self.weight, scales=self.scales, transpose=True, **_NVFP4)
        return (y + self.bias if "bias" in self else y).astype(x.dtype)


class Embedding(_ThreeTiers):
    """Rows are decoded when they are looked up."""

    def __call__(self, indices: mx.array) -> mx.array:
        """Rows of the embedding, in the dtype of the checkpoint."""
        rows = mx.dequantize(self.weight[indices], self.scales[indices], dtype=mx.float32, **_NVFP4)
        return (rows * self.multiplier).astype(_DTYPE)

    as_linear = Linear.__call__


class SwitchedLinear(_ThreeTiers):
    """Experts on a CPU, where `gather_qmm` takes no tensor scale; one multiplier per expert."""

    def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:
        """Multiply with the chosen experts; arguments as in mlx-lm's SwitchLinear."""
        y = mx.gather_qmm(
            x.astype(mx.float32),
            self.weight,
            self.scales,
            rhs_indices=indices,
            transpose=True,
            sorted_indices=sorted_indices,
            **_NVFP4,
        )
        y = y * self.multiplier[indices][..., None, None]
        return (y + self.bias[indices][..., None, :] if "bias" in self else y).astype(x.dtype)


def _replacement(module: nn.Module) -> nn.Module | None:
    if isinstance(module, SwitchLinear):
        runs_there = mx.default_device().type == mx.DeviceType.gpu
        return None if runs_there else SwitchedLinear(module.weight.shape, "bias" in module)
    kind = {nn.Linear: Linear, nn.Embedding: Embedding}.get(type(module))
    return kind(module.weight.shape, "bias" in module) if kind else None


class Model(_architecture.Model):
    """The architecture of mlx-lm with layers that know a tensor scale."""

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """Put the layers in place before mlx-lm loads the weights."""
        if hasattr(super(), "sanitize"):
            weights = super().sanitize(weights)
        found = [(path, _replacement(m)) for path, m in self.named_modules() if f"{path}.global_scale" in weights]
        self.update_modules(tree_unflatten([(path, module) for path, module in found if module is not None]))
        return weights
