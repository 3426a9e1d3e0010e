"""The products of stock MLX that run packed weights on a GPU, called with ours."""

from typing import Any

import mlx.core as mx

from kernels.formats import TENSOR_SCALE_DIVISOR, Format
from kernels.packed import Packed


def mode_of(row: Format) -> dict[str, Any]:
    """The arguments by which stock MLX knows a format."""
    mode = "affine" if row.affine else "nvfp4" if row.scale == "e4m3" else row.name
    return {"group_size": row.block, "bits": row.bits, "mode": mode}


def quantized_matmul(x: mx.array, weight: Packed, transpose: bool) -> mx.array:
    """X times the transpose of a matrix without a tensor scale, or x times the matrix."""
    parts = (weight.codes, weight.scales, weight.biases)
    return mx.quantized_matmul(x, *parts, transpose=transpose, **mode_of(weight.format))


def gather_qmm(
    x: mx.array, weight: Packed, rhs: mx.array, lhs: mx.array | None, transpose: bool, *, sorted_indices: bool
) -> mx.array:
    """X times chosen matrices of a stack [E, O, K]; the tensor scale of each enters inside the dequantization."""
    scaled: dict[str, Any] = {}
    if weight.tensor_scale is not None:
        scaled["global_scale"] = weight.tensor_scale * TENSOR_SCALE_DIVISOR  # MLX stores max|W|
    return mx.gather_qmm(
        x,
        weight.codes,
        weight.scales,
        weight.biases,
        lhs_indices=lhs,
        rhs_indices=rhs,
        transpose=transpose,
        sorted_indices=sorted_indices,
        **mode_of(weight.format),
        **scaled,
    )
