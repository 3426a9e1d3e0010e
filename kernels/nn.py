"""mlx.nn layers whose weights carry a tensor scale, and `load`, which runs an export with mlx-lm.

State is named as in an MLX checkpoint: `weight`, `scales`, `biases`, and `global_scale`, which is A = max|W| (float32
of size 1, or [E] for experts): MLX's convention, 2688 times the multiplier of `Quantized`. Two tiers have none.
"""

from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.utils import tree_map_with_path

from kernels import ops, stock_mlx
from kernels.formats import MLX_FORMATS, TENSOR_SCALE_DIVISOR, Format
from kernels.packed import Packed


def format_of(group_size: int, bits: int, mode: str, global_scale: bool = False) -> Format:
    """The format that MLX describes with these; raises ValueError when there is none."""
    for row in MLX_FORMATS.values():
        if (
            stock_mlx.mode_of(row) == {"group_size": group_size, "bits": bits, "mode": mode}
            and row.tensor_scale == global_scale
        ):
            return row
    scaled = " with a tensor scale" if global_scale else ""
    raise ValueError(f"[format_of] no format of the studio, got {mode} {bits} bits in groups of {group_size}{scaled}")


class _Quantized(Module):
    """State and packing that the layers share."""

    def __init__(self, shape: tuple[int, ...], row: Format, dtype: Any = mx.bfloat16) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self._format = row
        blocks = (*shape[:-1], shape[-1] // row.block)
        self.weight = mx.zeros((*shape[:-1], shape[-1] * row.bits // 32), mx.uint32)
        self.scales = mx.zeros(blocks, dtype if row.affine else mx.uint8)
        if row.affine:
            self.biases = mx.zeros(blocks, dtype)
        if row.tensor_scale:
            self.global_scale = mx.ones((shape[0] if len(shape) == 3 else 1,))
        self.freeze()

    def packed(self) -> Packed:
        """The weight as `ops` takes it. Raises ValueError or TypeError when a loaded part does not fit."""
        g = self["global_scale"].reshape(-1) / TENSOR_SCALE_DIVISOR if "global_scale" in self else None
        return Packed(self._format, self["weight"], self["scales"], self.get("biases"), g)

    def take(self, packed: Packed) -> None:
        """Make the parts of `packed` the state of this layer."""
        self.weight, self.scales = packed.codes, packed.scales
        if packed.biases is not None:
            self.biases = packed.biases
        if packed.tensor_scale is not None:
            self.global_scale = packed.tensor_scale.reshape(-1) * TENSOR_SCALE_DIVISOR

    def _extra_repr(self) -> str:
        return f"{', '.join(map(str, self.packed().shape))}, format={self._format.name}, bias={'bias' in self}"

    def _with_bias(self, layer: Any) -> None:
        if "bias" in layer:
            self.bias = layer.bias


class QuantizedLinear(_Quantized):
    """y = x W^T + b with W [O, K] in any format of the studio."""

    @classmethod
    def from_linear(cls, layer: Any, format: str = "nvfp4-3t", method: str = "max") -> "QuantizedLinear":
        """Quantize an `nn.Linear`."""
        made = cls(layer.weight.shape, MLX_FORMATS[format], layer.weight.dtype)
        made.take(ops.quantize(layer.weight, format, method=method))
        made._with_bias(layer)
        return made

    def to_dequantized(self, dtype: Any = mx.bfloat16) -> Any:
        """The `nn.Linear` that this layer stands for."""
        rows, width = self.packed().shape
        layer = Linear(width, rows, bias="bias" in self)
        layer.weight = ops.dequantize(self.packed(), dtype)
        if "bias" in self:
            layer.bias = self["bias"]
        return layer

    def __call__(self, x: mx.array) -> mx.array:
        """Y for x [..., K]."""
        y = ops.quantized_matmul(x, self.packed())
        return y + self["bias"] if "bias" in self else y


class QQLinear(QuantizedLinear):
    """W4A4: activations are quantized to NVFP4 on the fly with a tensor scale of their own, max|x| / 2688."""

    def __call__(self, x: mx.array) -> mx.array:
        """Y for x [..., K], any number of rows."""
        g = ops.tensor_scale(x.reshape(-1, x.shape[-1])) if self._format.tensor_scale else None
        y = ops.qqmm(x, self.packed(), g)
        return y + self["bias"] if "bias" in self else y


class QuantizedEmbedding(_Quantized):
    """Rows of a quantized table [N, K]; `as_linear` is the product with its transpose, for tied output weights."""

    def __init__(self, shape: tuple[int, ...], row: Format, dtype: Any = mx.bfloat16) -> None:
        super().__init__(shape, row, dtype)
        self._dtype = dtype

    @classmethod
    def from_embedding(cls, layer: Any, format: str = "nvfp4-3t", method: str = "max") -> "QuantizedEmbedding":
        """Quantize an `nn.Embedding`."""
        made = cls(layer.weight.shape, MLX_FORMATS[format], layer.weight.dtype)
        made.take(ops.quantize(layer.weight, format, method=method))
        return made

    def to_dequantized(self, dtype: Any = mx.bfloat16) -> Any:
        """The `nn.Embedding` that this layer stands for."""
        layer = Embedding(*self.packed().shape)
        layer.weight = ops.dequantize(self.packed(), dtype)
        return layer

    def __call__(self, indices: mx.array) -> mx.array:
        """Rows of the table, [..., K]."""
        whole, flat = self.packed(), indices.reshape(-1)
        biases = None if whole.biases is None else whole.biases[flat]
        rows = Packed(whole.format, whole.codes[flat], whole.scales[flat], biases, whole.tensor_scale)
        return ops.dequantize(rows, self._dtype).reshape(*indices.shape, whole.shape[-1])

    def as_linear(self, x: mx.array) -> mx.array:
        """X [..., K] times the transpose of the table."""
        return ops.quantized_matmul(x, self.packed())


class QuantizedSwitchLinear(_Quantized):
    """One of E matrices [E, O, K] for each row, with a tensor scale per expert; called as mlx-lm's SwitchLinear."""

    @classmethod
    def from_switch_linear(cls, layer: Any, format: str = "nvfp4-3t", method: str = "max") -> "QuantizedSwitchLinear":
        """Quantize mlx-lm's `SwitchLinear`."""
        made = cls(layer.weight.shape, MLX_FORMATS[format], layer.weight.dtype)
        made.take(ops.quantize(layer.weight, format, method=method))
        made._with_bias(layer)
        return made

    def to_dequantized(self, dtype: Any = mx.bfloat16) -> Any:
        """The `SwitchLinear` that this layer stands for; needs mlx-lm."""
        from mlx_lm.models.switch_layers import SwitchLinear

        experts, rows, width = self.packed().shape
        layer = SwitchLinear(width, rows, experts, bias="bias" in self)
        layer.weight = ops.dequantize(self.packed(), dtype)
        if "bias" in self:
            layer.bias = self["bias"]
        return layer

    @property
    def num_experts(self) -> int:
        """E."""
        return int(self["weight"].shape[0])

    @property
    def output_dims(self) -> int:
        """O."""
        return int(self["weight"].shape[1])

    @property
    def input_dims(self) -> int:
        """K."""
        return self.packed().shape[2]

    def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:
        """Y for x, with the matrix that each index names."""
        y = ops.gather_qmm(x, self.packed(), indices, sorted_indices=sorted_indices)
        return y + mx.expand_dims(self["bias"][indices], -2) if "bias" in self else y


def _is_switch(module: Any) -> bool:
    return type(module).__name__ == "SwitchLinear" and hasattr(module, "num_experts")


def quantized_layer(layer: Any, format: str = "nvfp4-3t", quantize_input: bool = False, method: str = "max") -> Any:
    """The quantized layer for an `nn.Linear`, `nn.Embedding` or mlx-lm `SwitchLinear`; TypeError for another."""
    if isinstance(layer, Linear):
        return (QQLinear if quantize_input else QuantizedLinear).from_linear(layer, format, method)
    if isinstance(layer, Embedding):
        return QuantizedEmbedding.from_embedding(layer, format, method)
    if _is_switch(layer):
        return QuantizedSwitchLinear.from_switch_linear(layer, format, method)
    raise TypeError(f"[quantized_layer] can quantize Linear, Embedding and SwitchLinear, got {type(layer).__name__}")


def quantize(
    model: Any,
    format: str = "nvfp4-3t",
    *,
    quantize_input: bool = False,
    class_predicate: Any = None,
    method: str = "max",
) -> None:
    """Replace layers of `model` in place, as `nn.quantize` does; scales are chosen by `method`.

    `class_predicate(path, module)` gives False to keep a layer, True to take it, or the name of another format. Layers
    whose width does not fit the format raise ValueError.
    """
    wanted = class_predicate or (lambda _, module: isinstance(module, Linear | Embedding) or _is_switch(module))

    def replaced(path: str, module: Any) -> Any:
        choice = wanted(path, module)
        if not choice:
            return module
        return quantized_layer(module, choice if isinstance(choice, str) else format, quantize_input, method)

    _replace_leaves(model, replaced)


def _replace_leaves(model: Any, replaced: Any) -> None:
    leaves = tree_map_with_path(replaced, model.leaf_modules(), is_leaf=Module.is_module)
    model.update_modules(leaves)


class _Prepared(Module):
    """Stands for a dense layer while mlx-lm loads a model; becomes one of ours when the config says so."""

    def to_quantized(
        self, group_size: int = 16, bits: int = 4, mode: str = "affine", global_scale: bool = False, **_: Any
    ) -> Any:
        """The empty quantized layer that the stored parts are loaded into; called by mlx-lm."""
        row = format_of(group_size, bits, mode, global_scale)
        kinds = {"linear": QuantizedLinear, "embedding": QuantizedEmbedding, "switch": QuantizedSwitchLinear}
        made = kinds[self._kind](self["weight"].shape, row)
        made._with_bias(self)
        return made


def _prepared(_: str, module: Any) -> Any:
    kind = "switch" if _is_switch(module) else None
    kind = kind or next((n for t, n in ((Linear, "linear"), (Embedding, "embedding")) if type(module) is t), None)
    if kind is None:
        return module
    prepared: Any = type(f"Prepared{type(module).__name__}", (_Prepared, type(module)), {})
    made = prepared.__new__(prepared)
    Module.__init__(made)  # type: ignore[no-untyped-call, unused-ignore]
    made.__dict__.update(module.__dict__)
    for name, value in module.items():
        made[name] = value
    made._kind = kind
    return made


def _one_dimensional_scales(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """The tensor scales of single matrices, stored with shape () or (1,), as the layers hold them."""
    return {n: w.reshape(-1) if n.endswith(".global_scale") else w for n, w in weights.items()}


def load(path: str | Path) -> tuple[Any, Any]:
    """Model and tokenizer of an export in MLX's layout, two or three tiers, dense or experts, to run with mlx-lm.

    Raises ValueError when mlx-lm is missing or too old, and what mlx-lm raises for files that it can not read.
    """
    try:
        from mlx_lm import utils as lm

        lm_utils: Any = lm
    except ImportError as error:
        raise ValueError(f"[load] needs mlx-lm 0.32.2 or later: pip install 'nvfp4-studio[lm]' ({error})") from error

    def classes(config: dict[str, Any]) -> tuple[Any, Any]:
        model_class, arguments = lm_utils._get_classes(config)

        def build(args: Any) -> Any:
            model = model_class(args)
            _replace_leaves(model, _prepared)
            sanitize = getattr(model, "sanitize", lambda weights: weights)
            model.sanitize = lambda weights: _one_dimensional_scales(sanitize(weights))
            return model

        return build, arguments

    own_layers = {"model_file": None}  # a stored model file is for mlx-lm alone, and its code is not run here
    model, config = lm_utils.load_model(Path(path), model_config=own_layers, get_model_classes=classes)
    return model, lm_utils.load_tokenizer(Path(path), eos_token_ids=config.get("eos_token_id"))
