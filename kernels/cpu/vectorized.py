"""NumpyBackend: the formats in vectorised numpy, for machines where the C++ library does not load."""

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from kernels import reference, search
from kernels.backend import Encoded, Weight
from kernels.context import Context
from kernels.fidelity import Census, Fidelity, concatenate, squared_error, widen
from kernels.formats import E2M1_MAX, E4M3_MAX, Format, Recipe
from kernels.quantized import Quantized
from kernels.tiles import spread, tile_scales

Float32 = NDArray[np.float32]
Bytes = NDArray[np.uint8]

_CHUNK = 1 << 16
"""Weights handled at a time: what a few float32 arrays of them need stays in the second-level cache."""

_E2M1_MIDPOINTS = (
    (np.greater_equal, 0.75),
    (np.greater, 1.25),
    (np.greater_equal, 1.75),
    (np.greater, 2.5),
    (np.greater_equal, 3.5),
    (np.greater, 5.0),
)
_E4M3_DECODED = reference.e4m3_decode(np.arange(256, dtype=np.uint8))


class NumpyBackend:
    """Gives the bytes of the reference, an order of magnitude faster. `title` says why it is in use."""

    name = "numpy"

    def __init__(self, title: str = "numpy") -> None:
        self.title = title

    def census(self, weight: Weight) -> Census:
        """See `Backend.census`."""
        flat = np.ascontiguousarray(weight).reshape(-1)
        if flat.dtype == ml_dtypes.bfloat16:
            return Census.from_bfloat16_counts(_count_bfloat16(flat.view(np.uint16)))
        total = Census.empty()
        for start in range(0, flat.size, 16 * _CHUNK):
            total = total + reference.census(flat[start : start + 16 * _CHUNK])
        return total

    def encode(
        self,
        weight: Weight,
        recipe: Recipe,
        tensor_scale: float = 1.0,
        *,
        context: Context | None = None,
        measure: bool = True,
        blocks: bool = False,
    ) -> Encoded:
        """See `Backend.encode`."""
        row = recipe.format
        reference.check(weight, row)
        if weight.ndim != 2:
            raise ValueError(f"[encode] weight must be a matrix, got shape {weight.shape}")
        rows, width = weight.shape
        out = _empty(row, rows, width, weight.dtype, tensor_scale)
        if row.scale == "float32":
            out.scales[:] = spread(tile_scales(weight, row), row, rows, width)
        measured = []
        with np.errstate(all="ignore"):
            for part in _row_ranges(rows, width):
                wide = widen(weight[part])
                slab = _rows_of(out, part)
                _encode_into(wide, recipe, np.float32(tensor_scale), context or Context(), slab)
                if measure or blocks:
                    measured.append(_measure(wide, slab, blocks))
        return Encoded(out, concatenate(measured) if measured else None)

    def decode(self, quantized: Quantized, dtype: Any = np.float32) -> Weight:
        """See `Backend.decode`."""
        if len(quantized.shape) != 2:
            with np.errstate(all="ignore"):
                return reference.decode(quantized).astype(dtype)
        rows, width = quantized.shape
        weight = np.empty((rows, width), dtype)
        with np.errstate(all="ignore"):
            for part in _row_ranges(rows, width):
                weight[part] = _decode(_rows_of(quantized, part)).astype(dtype)
        return weight

    def squared_error(self, weight: Weight, quantized: Quantized) -> float:
        """See `Backend.squared_error`."""
        return squared_error(weight, self.decode(quantized))


def _row_ranges(rows: int, width: int) -> Iterator[slice]:
    step = max(1, _CHUNK // width)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _empty(row: Format, rows: int, width: int, dtype: Any, tensor_scale: float) -> Quantized:
    kind = dtype if row.affine else np.float32 if row.scale == "float32" else np.uint8
    scales = np.empty((rows, width // row.block), kind)
    return Quantized(
        row,
        np.empty((rows, width * row.bits // 8), np.uint8),
        scales,
        np.empty_like(scales) if row.affine else None,
        np.array(tensor_scale, np.float32) if row.tensor_scale else None,
    )


def _rows_of(whole: Quantized, part: slice) -> Quantized:
    """A range of rows, sharing memory with the whole."""
    biases = None if whole.biases is None else whole.biases[part]
    return Quantized(whole.format, whole.codes[part], whole.scales[part], biases, whole.tensor_scale)


def _count_bfloat16(bits: NDArray[np.uint16]) -> NDArray[np.uint64]:
    signed = np.zeros(65536, np.uint64)
    for start in range(0, bits.size, 16 * _CHUNK):
        signed += np.bincount(bits[start : start + 16 * _CHUNK], minlength=65536).astype(np.uint64)
    counts = signed[:32768] + signed[32768:]
    counts[-1] = counts[0x7F81:].sum()
    counts[0x7F81:-1] = 0
    return counts


def _e2m1(magnitude: Float32) -> Bytes:
    """E2M1 codes 0..7 of magnitudes: how many midpoints lie below, where a tie counts when the upper code is even."""
    codes = np.greater(magnitude, np.float32(0.25)).view(np.uint8)
    for compare, midpoint in _E2M1_MIDPOINTS:
        codes += compare(magnitude, np.float32(midpoint)).view(np.uint8)
    return codes


def _e4m3(magnitude: Float32) -> Bytes:
    """E4M3 codes 0..126 of magnitudes, to nearest even, saturating; overwrites its argument.

    The low bits of magic count the codes below a magnitude's binade and its last place is the step of that binade.
    """
    np.minimum(magnitude, np.float32(E4M3_MAX), out=magnitude)
    magic = magnitude.view(np.uint32) & np.uint32(0x7F800000)
    np.maximum(magic, np.uint32(121 << 23), out=magic)
    magic += magic >> np.uint32(20)
    magic += np.uint32((20 << 23) - (121 << 3))
    magnitude += magic.view(np.float32)
    return (magnitude.view(np.uint32) & np.uint32(127)).astype(np.uint8)


def _store(codes: Bytes, row: Format, out: Bytes) -> None:
    """Codes [block, blocks] into bytes [rows, K * bits / 8], two to a byte for 4 bits."""
    if row.bits == 4:
        high = codes[1::2] << np.uint8(4)
        high |= codes[0::2]
        codes = high
    out.reshape(-1, codes.shape[0])[:] = codes.T


def _encode_into(wide: Float32, recipe: Recipe, g: np.float32, context: Context, out: Quantized) -> None:
    """Encode rows of float32 weights into the arrays of `out`.

    Works on the transpose [block, blocks]: what is per block then runs along memory.
    """
    row = recipe.format
    lanes = wide.reshape(-1, row.block).T.copy()
    if row.affine:
        _encode_affine(lanes, recipe, out)
        return
    negative = lanes.view(np.int32) < 0
    magnitude = np.abs(lanes, out=lanes)
    peak = magnitude.max(axis=0)
    blocks = wide.reshape(len(wide), -1, row.block)
    if row.scale == "float32":
        scales = out.scales.reshape(-1)
        factor = scales * g
    elif row.scale == "e4m3" and recipe.method == "max":
        scales, factor = _nvfp4_scales(peak, recipe, g)
    elif row.scale == "e4m3":
        scales = reference.nvfp4_scales(blocks, recipe, g, context).reshape(-1)
        factor = (_E4M3_DECODED * g)[scales]
    else:
        scales = _mx_scales(peak, recipe)
        if recipe.method == "search":
            scales = search.choose_exponent(blocks, scales.reshape(blocks.shape[:-1])).reshape(-1)
        factor = reference.e8m0_decode(scales)
    out.scales.reshape(-1)[:] = scales
    if recipe.method == "feedback" and context.factor is not None:
        codes = reference.feed_forward(blocks, factor.reshape(blocks.shape[:-1]), context.factor)
        _store(codes.reshape(-1, row.block).T, row, out.codes)
        return
    magnitude /= np.where(factor == 0, np.float32(np.inf), factor)
    codes = _e2m1(magnitude) if row.element == "e2m1" else _e4m3(magnitude)
    codes |= negative.view(np.uint8) << np.uint8(row.bits - 1)
    if row.scale == "e4m3" and context.guides(recipe.method) == "moments":
        nearest = codes.T.reshape(blocks.shape)
        codes = reference.gone_over(blocks, nearest, factor.reshape(blocks.shape[:-1]), recipe, context)
        codes = codes.reshape(-1, row.block).T
    _store(codes, row, out.codes)


def _nvfp4_scales(peak: Float32, recipe: Recipe, g: np.float32) -> tuple[Bytes, Float32]:
    scales = np.maximum(_e4m3(peak / np.float32(E2M1_MAX) / g), np.uint8(recipe.min_scale))
    scales[peak == 0] = recipe.zero_scale
    return scales, (_E4M3_DECODED * g)[scales]


def _mx_scales(peak: Float32, recipe: Recipe) -> Bytes:
    small = recipe.format.element == "e2m1"
    if recipe.exponent == "floor":
        exponent = (peak.view(np.uint32) >> np.uint32(23)).astype(np.int32) - (2 if small else 8)
        return np.where(peak == 0, 127, np.maximum(exponent, 0)).astype(np.uint8)
    ratio = peak / np.float32(E2M1_MAX if small else E4M3_MAX)
    bits = ratio.view(np.uint32)
    rounded_up = (bits + np.uint32(0x7FFFFF)) >> np.uint32(23)
    scales = np.where(bits < 0x00800000, bits > 0x00400000, rounded_up)
    return np.where(ratio == 0, 127, scales).astype(np.uint8)


def _encode_affine(lanes: Float32, recipe: Recipe, out: Quantized) -> None:
    row = recipe.format
    bins = np.float32(2**row.bits - 1)
    low, high = lanes.min(axis=0), lanes.max(axis=0)
    low_is_edge = np.abs(low) > np.abs(high)
    scale = np.maximum((high - low) / bins, np.float32(1e-7))
    scale = np.where(low_is_edge, scale, -scale)
    edge = np.where(low_is_edge, low, high)
    steps = np.rint(edge / scale)
    scale = np.where(steps == 0, scale, edge / np.where(steps == 0, np.float32(1), steps))
    bias = np.where(steps == 0, np.float32(0), edge)
    if row.symmetric:
        middle = np.float32(2 ** (row.bits - 1))
        scale = np.clip(np.abs(edge) / (bins / 2), np.float32(1e-7), reference.largest_scale(out.scales.dtype, row))
        steps, bias = np.full_like(scale, -middle), -middle * scale
    if recipe.method == "search":
        shrink = search.choose_shrink(lanes.T, scale, steps, row.bits)
        scale, bias = scale * shrink, bias * shrink
    lanes -= bias
    lanes /= scale
    np.rint(lanes, out=lanes)
    np.clip(lanes, np.float32(0), bins, out=lanes)
    _store(lanes.astype(np.uint8), row, out.codes)
    for stored, chosen in ((out.scales, scale), (out.biases, bias)):
        if stored is not None:
            stored.reshape(-1)[:] = chosen.astype(stored.dtype)
    if row.symmetric and out.biases is not None:
        out.biases[:] = reference.symmetric_biases(out.scales, row)


def _values(row: Format) -> Float32:
    """What each byte of codes stands for before scaling: float32 [256, codes per byte]."""
    byte = np.arange(256, dtype=np.uint8)
    codes = reference.unpack(byte[:, None]) if row.bits == 4 else byte[:, None]
    if row.affine:
        return codes.astype(np.float32)
    return reference.e2m1_decode(codes) if row.element == "e2m1" else reference.e4m3_decode(codes)


def _decode(quantized: Quantized) -> Float32:
    """Float32 weights [rows, K]."""
    row = quantized.format
    if row.bits not in (4, 8):
        return reference.decode(quantized)
    blocks = np.take(_values(row), quantized.codes, axis=0).reshape(-1, row.block)
    if quantized.biases is not None:
        blocks *= widen(quantized.scales).reshape(-1, 1)
        blocks += widen(quantized.biases).reshape(-1, 1)
        return blocks.reshape(quantized.shape)
    scale = reference.scale_values(quantized)
    if quantized.tensor_scale is not None:
        scale = scale * quantized.tensor_scale
    blocks *= scale.reshape(-1, 1)
    return blocks.reshape(quantized.shape)


def _measure(wide: Float32, quantized: Quantized, blocks: bool) -> Fidelity:
    """Fidelity of some rows, in float64 from float32 values; see `reference.fidelity`."""
    row = quantized.format
    decoded = _decode(quantized)
    vanished = int(np.count_nonzero((decoded == 0) & (wide != 0)))
    error = wide.astype(np.float64)
    row_squares = np.einsum("ij,ij->i", error, error)
    error -= decoded
    squares = error * error
    counts = np.zeros(256, np.uint64)
    if row.byte_scales:
        counts += np.bincount(quantized.scales.reshape(-1), minlength=256).astype(np.uint64)
    per_block = squares.reshape(len(wide), -1, row.block).sum(axis=-1).astype(np.float32) if blocks else None
    largest = float(np.sqrt(squares.max()))
    return Fidelity(wide.shape[1], row_squares, squares.sum(axis=1), largest, vanished, counts, per_block)
