"""What stock MLX lacks: operations on weights and activations that carry a tensor scale, on Metal, CUDA and the CPU.

The tensor scale is always the multiplier g of `Quantized`; it enters inside the dequantization, in float32. Scaling
the output or the input in float16 instead overflows, or falls below float16's smallest normal number.
"""

from dataclasses import replace
from functools import cache
from importlib import metadata
from typing import Any, cast

import mlx.core as mx
import numpy as np

from kernels import stock_mlx
from kernels.context import Context
from kernels.formats import FORMATS, TENSOR_SCALE_DIVISOR, Recipe, recipe
from kernels.gpu import coding, elementwise
from kernels.gpu.library import Library, library
from kernels.gpu.requirements import check_mlx
from kernels.gpu.transfer import to_numpy
from kernels.machines import choose
from kernels.packed import Packed, check_input, check_packed, check_tensor_scale
from kernels.quantized import Quantized

FEW_ROWS = 8
"""Rows of activations that the product kernel takes: decoding tokens, not reading a prompt."""

STOCK_ROWS = 64
"""Rows up to which a stock product of packed weights costs less than decoding them for a dense one."""

_LARGE_CODES = 1 << 24
"""Words of codes from which the product kernel is ahead of stock mlx for one row without a tensor scale."""

_LARGEST_BLOCK_OF_MANY_ROWS = 64


@cache
def _check_installed_mlx() -> None:
    """Once a process: reading the version of a package takes longer than a product on a GPU."""
    check_mlx(metadata.version("mlx"))


def device() -> str:
    """Where arrays are computed: "metal", "cuda" or "cpu". Raises ValueError for an mlx that has the lane bug."""
    _check_installed_mlx()
    if mx.default_device() != mx.Device(mx.gpu):
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


@cache
def _proved(where: str, method: str) -> Library:
    from kernels.gpu.selftest import self_test

    lib = library("metal" if where == "metal" else "cuda")
    if difference := self_test(lib, method):
        raise ValueError(f"[self-test] {where} does not agree with the reference, got {difference}")
    return lib


def _kernels(method: str = "max") -> Library | None:
    where = device()
    return None if where == "cpu" else _proved(where, method)


def tensor_scale(weight: mx.array, divisor: float = TENSOR_SCALE_DIVISOR) -> mx.array:
    """G = max|W| / `divisor` of a weight [O, K], float32 [1], or of a stack [E, O, K], [E]; normal, 1 for zeros."""
    wide = mx.abs(weight.astype(mx.float32))
    peak = mx.max(wide, axis=(-2, -1)).reshape(-1)
    g = mx.maximum(peak / divisor, mx.array(float(np.finfo(np.float32).tiny)))
    return mx.where(peak == 0, mx.array(1.0), g)


def quantize(
    weight: mx.array,
    format: str = "nvfp4-3t",
    g: mx.array | None = None,
    *,
    method: str = "max",
    context: Context | None = None,
) -> Packed:
    """Quantize a weight [O, K] or a stack [E, O, K]; one multiplier per matrix, `Recipe.divisor`'s unless `g` is given.

    `context` is what is known of the inputs [K]; a method that needs more does what `Method.otherwise` says.
    Raises ValueError for an unknown format or method or a shape that does not fit, TypeError for another dtype.
    """
    chosen = recipe(format, method=method)
    row = chosen.format
    if weight.ndim not in (2, 3):
        raise ValueError(f"[quantize] weight must have 2 or 3 dimensions, got shape {weight.shape}")
    coding.check_weight("quantize", weight.reshape(-1, weight.shape[-1]), row)
    if row.tensor_scale and g is None:
        g = tensor_scale(weight, chosen.divisor)
    check_tensor_scale("quantize", g, row, weight.shape[0] if weight.ndim == 3 else 1)
    matrices = [weight] if weight.ndim == 2 else [weight[e] for e in range(weight.shape[0])]
    parts = [
        _quantize_matrix(m, chosen, None if g is None else g.reshape(-1)[e : e + 1], context)
        for e, m in enumerate(matrices)
    ]
    if weight.ndim == 2:
        return replace(parts[0], tensor_scale=g)
    biases = mx.stack([cast("mx.array", p.biases) for p in parts]) if row.affine else None
    return Packed(row, mx.stack([p.codes for p in parts]), mx.stack([p.scales for p in parts]), biases, g)


def _quantize_matrix(weight: mx.array, chosen: Recipe, g: mx.array | None, context: Context | None) -> Packed:
    forward = chosen.method == "feedback" and context is not None and context.factor is not None  # the processor's part
    if not forward and (lib := _kernels(coding.used_method(chosen, context, weight.shape[1]))):
        coded = coding.encode(lib, weight, chosen, g, context=context)
        return Packed(chosen.format, coded.codes, coded.scales, coded.biases, g)
    scale = 1.0 if g is None else float(to_numpy(g)[0])
    return Packed.of(choose("cpu").encode(to_numpy(weight), chosen, scale, context=context, measure=False).quantized)


def dequantize(weight: Packed, dtype: Any = mx.bfloat16) -> mx.array:
    """The weight [..., K] that `weight` stands for, rounded once from float32; errors as for `quantized_matmul`."""
    experts = weight.codes.shape[0] if weight.codes.ndim == 3 else None
    check_packed("dequantize", weight, experts)
    if (lib := _kernels()) and (experts is None or weight.tensor_scale is None):
        flat = [None if p is None else p.reshape(-1, p.shape[-1]) for p in (weight.codes, weight.scales, weight.biases)]
        coded = coding.Coded(cast("mx.array", flat[0]), cast("mx.array", flat[1]), flat[2])
        g = None if weight.tensor_scale is None else weight.tensor_scale.reshape(1)
        return coding.decode(lib, coded, weight.format, dtype, g).reshape(weight.shape)
    if lib:
        return mx.stack([dequantize(weight.expert(e), dtype) for e in range(weight.codes.shape[0])])
    g = weight.tensor_scale
    g = None if g is None else g.reshape(-1, 1, 1) if experts else g.reshape(1)
    return elementwise.decode(weight.codes, weight.scales, weight.biases, g, weight.format).astype(dtype)


def quantize_dequantize(x: mx.array, g: mx.array | None = None, extra: mx.array | None = None) -> mx.array:
    """What is left of activations [..., K] after NVFP4: code * (scale * g * extra), in the dtype of `x`.

    Three tiers with the multiplier `g` (float32 of size 1), two without. `extra` (likewise) is absorbed too: with a
    weight stored as W / extra, a plain product then needs no scale.
    """
    chosen = recipe("nvfp4-2t" if g is None else "nvfp4-3t")
    check_input("quantize_dequantize", x, x.shape[-1])
    coding.check_weight("quantize_dequantize", x.reshape(-1, x.shape[-1]), chosen.format)
    for scale in (g, extra):
        if scale is not None:
            check_tensor_scale("quantize_dequantize", scale, FORMATS["nvfp4-3t"])
    one = mx.ones((1,)) if g is None else g.reshape(1)
    more = None if extra is None else extra.reshape(1)
    if lib := _kernels():
        return coding.round_trip(lib, x.reshape(-1, x.shape[-1]), chosen, one, more).reshape(x.shape)
    return elementwise.round_trip(x, chosen, one, more).astype(x.dtype)


def quantized_matmul(x: mx.array, weight: Packed | Quantized, transpose: bool = True) -> mx.array:
    """X [..., K] times the transpose of a weight [O, K] (or x [..., O] times the weight), in the dtype of `x`.

    The tensor scale enters inside the dequantization; sums are float32. Raises TypeError and ValueError as described
    by the message.
    """
    packed = Packed.of(weight) if isinstance(weight, Quantized) else weight
    check_packed("quantized_matmul", packed)
    if packed.codes.ndim != 2:
        raise ValueError(f"[quantized_matmul] the weight must have 2 dimensions, got shape {packed.shape}")
    check_input("quantized_matmul", x, packed.shape[1 if transpose else 0])
    lib = _kernels()
    if lib is None:
        return _dense_product(x, packed, transpose, mx.float32)
    if packed.format.scale != "e4m3" or not _own_is_faster(lib):
        return _stock_product(lib, x, packed, transpose)
    return _cheapest_product(lib, x, packed, transpose)


def _cheapest_product(lib: Library, x: mx.array, weight: Packed, transpose: bool) -> mx.array:
    """By what a call costs from Python on CUDA with mlx 0.32.4; see the README of kernels."""
    rows = x.size // x.shape[-1]
    if transpose and _own_is_cheapest(rows, weight, x.dtype):
        return _own_product(lib, x, weight)
    if x.dtype == mx.bfloat16 and rows > STOCK_ROWS:
        return _dense_product(x, weight, transpose, mx.bfloat16)
    return _stock_product(lib, x, weight, transpose)


def _own_is_cheapest(rows: int, weight: Packed, dtype: Any) -> bool:
    three = weight.tensor_scale is not None
    if rows == 1 and not three:
        return weight.codes.size >= _LARGE_CODES
    if rows == FEW_ROWS:  # from 8 rows on stock mlx has another kernel
        return three and dtype != mx.bfloat16
    return rows < FEW_ROWS


@cache
def _first_matrix() -> mx.array:
    """The index 0, kept and evaluated: making it takes a launch of its own at each call."""
    index = mx.zeros((1,), mx.uint32)
    mx.eval(index)
    return index


def _stock_product(lib: Library, x: mx.array, weight: Packed, transpose: bool) -> mx.array:
    if weight.tensor_scale is None:
        if lib.device == "cuda" and x.dtype == mx.float32 and weight.format.block > _LARGEST_BLOCK_OF_MANY_ROWS:
            return _in_slices(x, weight, transpose)
        return stock_mlx.quantized_matmul(x, weight, transpose)
    flat = _wide_enough(x).reshape(1, -1, x.shape[-1])
    y = stock_mlx.gather_qmm(flat, weight.stacked(), _first_matrix(), None, transpose, sorted_indices=False)
    return y.reshape(*x.shape[:-1], -1).astype(x.dtype)


def _in_slices(x: mx.array, weight: Packed, transpose: bool) -> mx.array:
    """On CUDA, mlx 0.32.4 can not launch its product of 64 float32 rows with groups of 128; it can with 7."""
    flat = x.reshape(-1, x.shape[-1])
    slices = [flat[at : at + 7] for at in range(0, flat.shape[0], 7)]
    y = mx.concatenate([stock_mlx.quantized_matmul(part, weight, transpose) for part in slices])
    return y.reshape(*x.shape[:-1], -1)


def _dense_product(x: mx.array, weight: Packed, transpose: bool, dtype: Any) -> mx.array:
    matrix = dequantize(weight, dtype)
    return (x.astype(dtype) @ (matrix.T if transpose else matrix)).astype(x.dtype)


def _own_is_faster(lib: Library) -> bool:
    """On CUDA our kernel and the decoded product can be ahead of mlx 0.32.4; see the README of kernels."""
    return lib.device == "cuda"


def _own_product(lib: Library, x: mx.array, weight: Packed) -> mx.array:
    g = None if weight.tensor_scale is None else weight.tensor_scale.reshape(1)
    coded = coding.Coded(weight.codes, weight.scales)
    y = coding.product(lib, x.reshape(-1, x.shape[-1]), coded, weight.format, g)
    return y.reshape(*x.shape[:-1], -1)


def _wide_enough(x: mx.array) -> mx.array:
    """float16 goes up to float32: weights near 1e-5 would be subnormal in it, and sums before scaling too large."""
    return x.astype(mx.float32) if x.dtype == mx.float16 else x


def gather_qmm(
    x: mx.array,
    weight: Packed,
    rhs_indices: mx.array,
    lhs_indices: mx.array | None = None,
    transpose: bool = True,
    sorted_indices: bool = False,
) -> mx.array:
    """As `mx.gather_qmm` over a stack [E, O, K], with one tensor scale per expert, in the dtype of `x`."""
    if weight.codes.ndim != 3:
        raise ValueError(f"[gather_qmm] the weight must be a stack of matrices, got shape {weight.shape}")
    check_packed("gather_qmm", weight, weight.codes.shape[0])
    check_input("gather_qmm", x, weight.shape[2 if transpose else 1])
    if not mx.issubdtype(rhs_indices.dtype, mx.integer):
        raise TypeError(f"[gather_qmm] indices must be whole numbers, got {rhs_indices.dtype}")
    if _kernels() is None:
        matrices = dequantize(weight, mx.float32)
        matrices = matrices.swapaxes(-1, -2) if transpose else matrices
        wide = x.astype(mx.float32)
        return mx.gather_mm(wide, matrices, lhs_indices=lhs_indices, rhs_indices=rhs_indices).astype(x.dtype)
    wide = x if weight.tensor_scale is None else _wide_enough(x)
    return stock_mlx.gather_qmm(
        wide, weight, rhs_indices, lhs_indices, transpose, sorted_indices=sorted_indices
    ).astype(x.dtype)


def qqmm(x: mx.array, weight: Packed | Quantized, g: mx.array | None = None) -> mx.array:
    """W4A4: x [..., K], quantized to NVFP4 with the multiplier `g`, times the transpose of an NVFP4 weight [O, K].

    Both tensor scales are absorbed by the reconstructed activations, in float32 unless `x` is bfloat16, so that the
    product runs on the stored codes for any number of rows.
    """
    packed = Packed.of(weight) if isinstance(weight, Quantized) else weight
    check_packed("qqmm", packed)
    if packed.format.scale != "e4m3" or packed.codes.ndim != 2:
        raise ValueError(
            f"[qqmm] the weight must be one NVFP4 matrix, got {packed.format.name} of shape {packed.shape}"
        )
    check_input("qqmm", x, packed.shape[1])
    wide = x.astype(mx.float32) if _kernels() is None else _wide_enough(x)
    back = quantize_dequantize(wide, g, packed.tensor_scale)
    plain = replace(packed, format=FORMATS["nvfp4-2t"], tensor_scale=None)
    return quantized_matmul(back, plain).astype(x.dtype)
