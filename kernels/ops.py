"""What stock MLX lacks: operations on weights and activations that carry a tensor scale, on Metal, CUDA and the CPU.

The tensor scale is always the multiplier g of `Quantized`; it enters inside the dequantization, in float32. Scaling
the output or the input in float16 instead overflows, or falls below float16's smallest normal number.
"""

from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from typing import Any, cast

import mlx.core as mx
import numpy as np

from kernels.backend import choose
from kernels.formats import FORMATS, TENSOR_SCALE_DIVISOR, Format, Recipe, recipe
from kernels.gpu import coding, elementwise
from kernels.gpu.library import KINDS, Library, library
from kernels.gpu.requirements import check_mlx, check_three_tiers
from kernels.gpu.transfer import to_mlx, to_numpy
from kernels.quantized import Quantized


@dataclass(frozen=True, slots=True)
class Packed:
    """A weight [..., K] in a `Format`, as mlx arrays: `Quantized` for a GPU.

    codes: uint32 [..., K * bits / 32]. scales: uint8 [..., K / block], affine: the weight's dtype. biases: affine only.
    tensor_scale: the multiplier g, float32 of size 1, or [E] for a stack [E, ..., K]; None in formats without.
    """

    format: Format
    codes: mx.array
    scales: mx.array
    biases: mx.array | None = None
    tensor_scale: mx.array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape [..., K] of the weight that this stands for."""
        return (*self.codes.shape[:-1], self.codes.shape[-1] * 32 // self.format.bits)

    @classmethod
    def of(cls, quantized: Quantized) -> "Packed":
        """The same bytes as mlx arrays."""
        parts = [
            None if p is None else to_mlx(np.ascontiguousarray(p)) for p in (quantized.biases, quantized.tensor_scale)
        ]
        codes = to_mlx(np.ascontiguousarray(quantized.codes).view(np.uint32))
        return cls(quantized.format, codes, to_mlx(np.ascontiguousarray(quantized.scales)), *parts)

    def quantized(self) -> Quantized:
        """The same bytes as numpy arrays."""
        biases, g = (None if p is None else to_numpy(p) for p in (self.biases, self.tensor_scale))
        if g is not None and g.size == 1 and self.codes.ndim == 2:
            g = g.reshape(())
        return Quantized(self.format, to_numpy(self.codes).view(np.uint8), to_numpy(self.scales), biases, g)


def device() -> str:
    """Where arrays are computed: "metal", "cuda" or "cpu". Raises ValueError for an mlx that has the lane bug."""
    check_mlx(metadata.version("mlx"))
    if mx.default_device() != mx.Device(mx.gpu):
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


@cache
def _proved(where: str) -> Library:
    from kernels.gpu.selftest import self_test

    lib = library("metal" if where == "metal" else "cuda")
    if difference := self_test(lib):
        raise ValueError(f"[self-test] {where} does not agree with the reference, got {difference}")
    return lib


def _kernels() -> Library | None:
    where = device()
    return None if where == "cpu" else _proved(where)


def check_tensor_scale(op: str, g: mx.array | None, row: Format, size: int = 1) -> None:
    """Raise TypeError or ValueError unless `g` is what `row` needs: float32 of `size` elements, or nothing."""
    if not row.tensor_scale:
        if g is not None:
            raise ValueError(f"[{op}] {row.name} has no tensor scale, got one of shape {g.shape}")
        return
    check_three_tiers(op)
    if g is None:
        raise ValueError(f"[{op}] {row.name} needs a tensor scale, got None")
    if g.dtype != mx.float32:
        raise TypeError(f"[{op}] the tensor scale must be float32, got {g.dtype}")
    if g.size != size:
        raise ValueError(f"[{op}] the tensor scale must have {size} elements, got shape {g.shape}")


def _check_packed(op: str, weight: Packed, experts: int | None = None) -> None:
    row, codes = weight.format, weight.codes
    if codes.dtype != mx.uint32:
        raise TypeError(f"[{op}] codes must be uint32, got {codes.dtype}")
    if row.affine != (weight.biases is not None):
        raise ValueError(f"[{op}] {row.name} needs {'biases' if row.affine else 'no biases'}, got the contrary")
    if not row.affine and weight.scales.dtype != mx.uint8:
        raise TypeError(f"[{op}] scales must be uint8, got {weight.scales.dtype}")
    want = (*codes.shape[:-1], weight.shape[-1] // row.block)
    if tuple(weight.scales.shape) != want:
        raise ValueError(f"[{op}] scales must have shape {want} for codes of {codes.shape}, got {weight.scales.shape}")
    check_tensor_scale(op, weight.tensor_scale, row, experts or 1)


def _check_input(op: str, x: mx.array, width: int) -> None:
    if x.dtype not in KINDS:
        raise TypeError(f"[{op}] x must be float32, float16 or bfloat16, got {x.dtype}")
    if x.ndim < 1 or x.shape[-1] != width:
        raise ValueError(f"[{op}] x must end in {width}, got shape {x.shape}")


def tensor_scale(weight: mx.array) -> mx.array:
    """G = max|W| / 2688 of a weight [O, K], float32 [1], or of a stack [E, O, K], [E]; normal, 1 for zeros."""
    wide = mx.abs(weight.astype(mx.float32))
    peak = mx.max(wide, axis=(-2, -1)).reshape(-1)
    g = mx.maximum(peak / TENSOR_SCALE_DIVISOR, mx.array(float(np.finfo(np.float32).tiny)))
    return mx.where(peak == 0, mx.array(1.0), g)


def quantize(weight: mx.array, format: str = "nvfp4-3t", g: mx.array | None = None) -> Packed:
    """Quantize a weight [O, K] or a stack [E, O, K]; one multiplier per matrix, max|W| / 2688 unless `g` is given.

    Raises ValueError for an unknown format or a shape that does not fit, TypeError for another dtype.
    """
    chosen = recipe(format)
    row = chosen.format
    if weight.ndim not in (2, 3):
        raise ValueError(f"[quantize] weight must have 2 or 3 dimensions, got shape {weight.shape}")
    coding.check_weight("quantize", weight.reshape(-1, weight.shape[-1]), row)
    if row.tensor_scale and g is None:
        g = tensor_scale(weight)
    check_tensor_scale("quantize", g, row, weight.shape[0] if weight.ndim == 3 else 1)
    matrices = [weight] if weight.ndim == 2 else [weight[e] for e in range(weight.shape[0])]
    parts = [
        _quantize_matrix(m, chosen, None if g is None else g.reshape(-1)[e : e + 1]) for e, m in enumerate(matrices)
    ]
    if weight.ndim == 2:
        return replace(parts[0], tensor_scale=g)
    biases = mx.stack([cast("mx.array", p.biases) for p in parts]) if row.affine else None
    return Packed(row, mx.stack([p.codes for p in parts]), mx.stack([p.scales for p in parts]), biases, g)


def _quantize_matrix(weight: mx.array, chosen: Recipe, g: mx.array | None) -> Packed:
    if lib := _kernels():
        coded = coding.encode(lib, weight, chosen, g)
        return Packed(chosen.format, coded.codes, coded.scales, coded.biases, g)
    scale = 1.0 if g is None else float(to_numpy(g)[0])
    return Packed.of(choose("cpu").encode(to_numpy(weight), chosen, scale, measure=False).quantized)


def dequantize(weight: Packed, dtype: Any = mx.bfloat16) -> mx.array:
    """The weight [..., K] that `weight` stands for, rounded once from float32; errors as for `quantized_matmul`."""
    experts = weight.codes.shape[0] if weight.codes.ndim == 3 else None
    _check_packed("dequantize", weight, experts)
    if (lib := _kernels()) and (experts is None or weight.tensor_scale is None):
        flat = [None if p is None else p.reshape(-1, p.shape[-1]) for p in (weight.codes, weight.scales, weight.biases)]
        coded = coding.Coded(cast("mx.array", flat[0]), cast("mx.array", flat[1]), flat[2])
        g = None if weight.tensor_scale is None else weight.tensor_scale.reshape(1)
        return coding.decode(lib, coded, weight.format, dtype, g).reshape(weight.shape)
    if lib:
        return mx.stack([dequantize(expert(weight, e), dtype) for e in range(weight.codes.shape[0])])
    g = weight.tensor_scale
    g = None if g is None else g.reshape(-1, 1, 1) if experts else g.reshape(1)
    return elementwise.decode(weight.codes, weight.scales, weight.biases, g, weight.format).astype(dtype)


def expert(weight: Packed, index: int) -> Packed:
    """Matrix `index` of a stack [E, O, K]."""
    biases = None if weight.biases is None else weight.biases[index]
    g = None if weight.tensor_scale is None else weight.tensor_scale[index : index + 1]
    return Packed(weight.format, weight.codes[index], weight.scales[index], biases, g)


def quantize_dequantize(x: mx.array, g: mx.array | None = None, extra: mx.array | None = None) -> mx.array:
    """What is left of activations [..., K] after NVFP4: code * (scale * g * extra), in the dtype of `x`.

    Three tiers with the multiplier `g` (float32 of size 1), two without. `extra` (likewise) is absorbed too: with a
    weight stored as W / extra, a plain product then needs no scale.
    """
    chosen = recipe("nvfp4-2t" if g is None else "nvfp4-3t")
    _check_input("quantize_dequantize", x, x.shape[-1])
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
    _check_packed("quantized_matmul", packed)
    if packed.codes.ndim != 2:
        raise ValueError(f"[quantized_matmul] the weight must have 2 dimensions, got shape {packed.shape}")
    _check_input("quantized_matmul", x, packed.shape[1 if transpose else 0])
    if _kernels() is None:
        matrix = dequantize(packed, mx.float32)
        return (x.astype(mx.float32) @ (matrix.T if transpose else matrix)).astype(x.dtype)
    if packed.tensor_scale is None:
        return _stock_matmul(x, packed, transpose)
    flat = _wide_enough(x).reshape(1, -1, x.shape[-1])
    y = _stock_gather(flat, _stacked(packed), mx.zeros((1,), mx.uint32), None, transpose, sorted_indices=False)
    return y.reshape(*x.shape[:-1], -1).astype(x.dtype)


def _stacked(weight: Packed) -> Packed:
    g = None if weight.tensor_scale is None else weight.tensor_scale.reshape(1)
    biases = None if weight.biases is None else weight.biases[None]
    return Packed(weight.format, weight.codes[None], weight.scales[None], biases, g)


def _wide_enough(x: mx.array) -> mx.array:
    """float16 goes up to float32: weights near 1e-5 would be subnormal in it, and sums before scaling too large."""
    return x.astype(mx.float32) if x.dtype == mx.float16 else x


def mode_of(row: Format) -> dict[str, Any]:
    """The arguments by which stock MLX knows a format."""
    mode = "affine" if row.affine else "nvfp4" if row.scale == "e4m3" else row.name
    return {"group_size": row.block, "bits": row.bits, "mode": mode}


def _stock_matmul(x: mx.array, weight: Packed, transpose: bool) -> mx.array:
    parts = (weight.codes, weight.scales, weight.biases)
    return mx.quantized_matmul(x, *parts, transpose=transpose, **mode_of(weight.format))


def _stock_gather(
    x: mx.array, weight: Packed, rhs: mx.array, lhs: mx.array | None, transpose: bool, *, sorted_indices: bool
) -> mx.array:
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
    _check_packed("gather_qmm", weight, weight.codes.shape[0])
    _check_input("gather_qmm", x, weight.shape[2 if transpose else 1])
    if not mx.issubdtype(rhs_indices.dtype, mx.integer):
        raise TypeError(f"[gather_qmm] indices must be whole numbers, got {rhs_indices.dtype}")
    if _kernels() is None:
        matrices = dequantize(weight, mx.float32)
        matrices = matrices.swapaxes(-1, -2) if transpose else matrices
        wide = x.astype(mx.float32)
        return mx.gather_mm(wide, matrices, lhs_indices=lhs_indices, rhs_indices=rhs_indices).astype(x.dtype)
    wide = x if weight.tensor_scale is None else _wide_enough(x)
    return _stock_gather(wide, weight, rhs_indices, lhs_indices, transpose, sorted_indices=sorted_indices).astype(
        x.dtype
    )


def qqmm(x: mx.array, weight: Packed | Quantized, g: mx.array | None = None) -> mx.array:
    """W4A4: x [..., K], quantized to NVFP4 with the multiplier `g`, times the transpose of an NVFP4 weight [O, K].

    Both tensor scales are absorbed by the reconstructed activations, in float32 unless `x` is bfloat16, so that the
    product runs on the stored codes for any number of rows.
    """
    packed = Packed.of(weight) if isinstance(weight, Quantized) else weight
    _check_packed("qqmm", packed)
    if packed.format.scale != "e4m3" or packed.codes.ndim != 2:
        raise ValueError(
            f"[qqmm] the weight must be one NVFP4 matrix, got {packed.format.name} of shape {packed.shape}"
        )
    _check_input("qqmm", x, packed.shape[1])
    wide = x.astype(mx.float32) if _kernels() is None else _wide_enough(x)
    back = quantize_dequantize(wide, g, packed.tensor_scale)
    plain = replace(packed, format=FORMATS["nvfp4-2t"], tensor_scale=None)
    return quantized_matmul(back, plain).astype(x.dtype)
