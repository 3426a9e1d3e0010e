"""The definition of right, in plain numpy: choose scales, encode, decode, pack. Slow and obvious on purpose.

All arithmetic is float32. Sources: NVFP4 as in NVIDIA's format description (E2M1 elements, an E4M3 scale per 16, an
optional float32 scale per tensor); OCP Microscaling Formats 1.0 for MXFP4 and MXFP8; MLX for the affine formats.
"""

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from kernels import feedback, search
from kernels.backend import Encoded, Weight
from kernels.context import BLOCK, Context, Factor
from kernels.fidelity import INFINITY_BIN, MAGNITUDE_BINS, Census, Fidelity, squared_error
from kernels.formats import E4M3_MAX, TENSOR_SCALE_DIVISOR, Format, Recipe
from kernels.quantized import Quantized
from kernels.streams import unpack_stream

Float32 = NDArray[np.float32]
Bytes = NDArray[np.uint8]

E2M1_VALUES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
E4M3_VALUES = np.array(
    [2.0**-9 * m if e == 0 else (1 + m / 8) * 2.0 ** (e - 7) for e in range(16) for m in range(8)][:127], np.float32
)
_SMALLEST_AFFINE_SCALE = np.float32(1e-7)
_LARGEST: dict[Any, float] = {
    np.dtype(np.float32): float(np.finfo(np.float32).max),
    np.dtype(np.float16): 65504.0,
    np.dtype(ml_dtypes.bfloat16): 2.0**128 - 2.0**120,
}


def _nearest_even(magnitude: Float32, values: Float32) -> Bytes:
    """Index of the nearest of `values` (ascending, index parity = parity of the last mantissa bit), ties to even."""
    exact = magnitude.astype(np.float64)
    high = np.minimum(np.searchsorted(values, exact), len(values) - 1)
    low = np.maximum(high - 1, 0)
    below, above = exact - values[low], values[high] - exact
    take_high = (above < below) | ((above == below) & (high % 2 == 0))
    index: Bytes = np.where(exact >= values[-1], len(values) - 1, np.where(take_high, high, low)).astype(np.uint8)
    return index


def e2m1_encode(x: Float32) -> Bytes:
    """E2M1 codes 0..15 of float32 values: nearest, ties to even, saturating at 6, sign kept also for zero."""
    return _nearest_even(np.abs(x), E2M1_VALUES) | (np.signbit(x).view(np.uint8) << np.uint8(3))


def e2m1_decode(codes: Bytes) -> Float32:
    """Float32 values of E2M1 codes 0..15; code 8 is -0."""
    magnitude = E2M1_VALUES[codes & 7]
    signed: Float32 = np.where(codes & 8, -magnitude, magnitude)
    return signed


def e4m3_encode(x: Float32) -> Bytes:
    """E4M3FN bytes of float32 values: nearest, ties to even, saturating at 448, sign kept also for zero."""
    return _nearest_even(np.abs(x), E4M3_VALUES) | (np.signbit(x).view(np.uint8) << np.uint8(7))


def e4m3_decode(codes: Bytes) -> Float32:
    """Float32 values of E4M3FN bytes; 0x7F and 0xFF are NaN."""
    magnitude = np.append(E4M3_VALUES, np.float32(np.nan))[codes & 0x7F]
    signed: Float32 = np.where(codes & 0x80, -magnitude, magnitude)
    return signed


def e8m0_decode(codes: Bytes) -> Float32:
    """Float32 values 2**(byte - 127) of E8M0 bytes; 255 is NaN."""
    values = np.ldexp(np.float32(1), codes.astype(np.int32) - 127)
    return np.where(codes == 255, np.float32(np.nan), values).astype(np.float32)


def pack(codes: Bytes) -> Bytes:
    """Pack codes 0..15 [..., K] two per byte [..., K / 2], the even element in the low nibble."""
    return codes[..., 0::2] | (codes[..., 1::2] << np.uint8(4))


def unpack(packed: Bytes) -> Bytes:
    """Codes 0..15 [..., K] of packed bytes [..., K / 2]."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)


def tensor_scale(max_abs: float, divisor: float = TENSOR_SCALE_DIVISOR) -> np.float32:
    """The multiplier g = max|W| / 2688 in float32, never zero or subnormal; 1.0 for a weight of zeros."""
    if max_abs == 0:
        return np.float32(1)
    scale = np.float32(max_abs) / np.float32(divisor)
    return np.float32(max(scale, np.finfo(np.float32).tiny))


def tile_scale(max_abs: float) -> np.float32:
    """The smallest bfloat16 number, in float32, that is max|w| / 448 or more: some readers keep scales in bfloat16."""
    scale = tensor_scale(max_abs, E4M3_MAX)
    near = scale.astype(ml_dtypes.bfloat16)
    up = near if near >= scale else np.nextafter(near, ml_dtypes.bfloat16(np.inf))
    return np.float32(up)


def multiplier(max_abs: float, recipe: Recipe) -> np.float32:
    """The tensor scale of a recipe for weights of which the largest is `max_abs`."""
    return tile_scale(max_abs) if recipe.format.scale == "float32" else tensor_scale(max_abs, recipe.divisor)


def _divide(weights: Float32, scale: Float32) -> Float32:
    """Weights / scale, a zero of the weight's sign where the scale is zero."""
    safe = np.where(scale == 0, np.float32(1), scale)
    return np.where(scale == 0, np.copysign(np.float32(0), weights), weights / safe).astype(np.float32)


def _encode_nvfp4(blocks: Float32, recipe: Recipe, g: np.float32, context: Context) -> tuple[Bytes, Bytes]:
    scales = nvfp4_scales(blocks, recipe, g, context)
    scale = e4m3_decode(scales) * g
    if recipe.method == "feedback" and context.factor is not None:
        return feed_forward(blocks, scale, context.factor), scales
    codes = e2m1_encode(_divide(blocks, scale[..., None]))
    return gone_over(blocks, codes, scale, recipe, context), scales


def gone_over(blocks: Float32, codes: Bytes, scale: Float32, recipe: Recipe, context: Context) -> Bytes:
    """E2M1 codes 0..15 of blocks [..., K / 16, 16], gone over once more where the recipe's method knows of moments."""
    moments = context.used(recipe.method, blocks.shape[-2] * BLOCK)[1]
    return codes if moments is None else search.go_over(blocks, codes, scale, moments)


def feed_forward(blocks: Float32, scale: Float32, factor: Factor) -> Bytes:
    """E2M1 codes 0..15 of blocks [..., K / 16, 16] with scales [..., K / 16], errors fed forward; see `feedback`."""
    scales = scale.reshape(-1, scale.shape[-1])

    def quantize(column: int, targets: Float32) -> tuple[Bytes, Float32]:
        own = scales[:, column // BLOCK]
        codes = e2m1_encode(_divide(targets, own))
        return codes, e2m1_decode(codes) * own

    rows = blocks.reshape(len(scales), -1)
    return feedback.feed_forward(rows, factor, quantize).reshape(blocks.shape)


def nvfp4_scales(blocks: Float32, recipe: Recipe, g: np.float32, context: Context) -> Bytes:
    """The E4M3 bytes [..., K / 16] of blocks [..., K / 16, 16], chosen by the recipe's method."""
    peak = np.abs(blocks).max(axis=-1)
    wanted = peak / np.float32(6) / g
    first = np.maximum(e4m3_encode(wanted), np.uint8(recipe.min_scale))
    if recipe.method != "max":
        quarter, guided = e4m3_encode(peak / np.float32(4) / g), bool(context.guides(recipe.method))
        tried = search.candidates(recipe, first, quarter, guided=guided)
        found = search.choose(blocks, tried, first, E4M3_VALUES, g, context, recipe.method)
        first = np.where(wanted > np.float32(search.SATURATED), first, found)
    return np.where(peak == 0, np.uint8(recipe.zero_scale), first)


def _encode_mx(blocks: Float32, recipe: Recipe) -> tuple[Bytes, Bytes]:
    small = recipe.format.element == "e2m1"
    peak = np.abs(blocks).max(axis=-1)
    if recipe.exponent == "ceil":
        ratio = peak / np.float32(6 if small else 448)
        mantissa, exponent = np.frexp(ratio)
        exponent = np.where(mantissa == 0.5, exponent - 1, exponent)
    else:
        ratio = peak
        exponent = np.frexp(peak)[1] - 1 - (2 if small else 8)
    scales = np.where(ratio == 0, 127, np.clip(exponent + 127, 0, 254)).astype(np.uint8)
    if recipe.method == "search":
        scales = search.choose_exponent(blocks, scales)
    scaled = (blocks / e8m0_decode(scales)[..., None]).astype(np.float32)
    return (e2m1_encode if small else e4m3_encode)(scaled), scales


def _encode_affine(blocks: Float32, recipe: Recipe, dtype: Any) -> tuple[Bytes, Float32, Float32]:
    """MLX's rule: the end of the range with the larger magnitude is represented exactly, and zero is a code.

    Symmetric: the largest weight lies half a step beyond the largest code, and zero is the code in the middle; the bias
    that goes with a scale is a number of `dtype`.
    """
    row = recipe.format
    bins = np.float32(2**row.bits - 1)
    low, high = blocks.min(axis=-1), blocks.max(axis=-1)
    low_is_edge = np.abs(low) > np.abs(high)
    scale = np.maximum((high - low) / bins, _SMALLEST_AFFINE_SCALE)
    scale = np.where(low_is_edge, scale, -scale)
    edge = np.where(low_is_edge, low, high)
    steps = np.rint(edge / scale)
    scale = np.where(steps == 0, scale, edge / np.where(steps == 0, np.float32(1), steps))
    bias = np.where(steps == 0, np.float32(0), edge)
    if row.symmetric:
        peak, middle = np.maximum(np.abs(low), np.abs(high)), np.float32(2 ** (row.bits - 1))
        scale = np.clip(peak / (bins / 2), _SMALLEST_AFFINE_SCALE, largest_scale(dtype, row))
        steps, bias = np.full_like(scale, -middle), -middle * scale
    if recipe.method == "search":
        shrink = search.choose_shrink(blocks, scale, steps, row.bits)
        scale, bias = scale * shrink, bias * shrink
    codes = np.clip(np.rint((blocks - bias[..., None]) / scale[..., None]), 0, bins)
    return codes.astype(np.uint8), scale.astype(np.float32), bias.astype(np.float32)


def _encode_tiles(wide: Float32, recipe: Recipe, g: np.float32) -> tuple[Bytes, Float32]:
    """E4M3 codes [rows, K / 16, 16] under the scale of each tile, and that scale beside every block."""
    row, (rows, width) = recipe.format, wide.shape
    high, across = (step or size for step, size in zip(row.tile, wide.shape, strict=True))
    scales = np.ones_like(wide)
    for top in range(0, rows, high):
        for left in range(0, width, across):
            tile = slice(top, top + high), slice(left, left + across)
            if row.tile != (0, 0):
                scales[tile] = tile_scale(float(np.abs(wide[tile]).max()))
    codes = e4m3_encode((wide / (scales * g)).astype(np.float32))
    return codes.reshape(rows, -1, row.block), scales[:, :: row.block].copy()


def scale_values(quantized: Quantized) -> Float32:
    """Float32 values of the block scales [..., K / block], tensor scale left out."""
    decoders = {"e4m3": e4m3_decode, "e8m0": e8m0_decode}
    if decoder := decoders.get(quantized.format.scale):
        return decoder(quantized.scales)
    return np.asarray(quantized.scales, np.float32)


def largest_scale(dtype: Any, row: Format) -> np.float32:
    """The largest scale of a symmetric format whose bias is finite in `dtype`."""
    return np.float32(_LARGEST[np.dtype(dtype)] / 2 ** (row.bits - 1))


def symmetric_biases(scales: Weight, row: Format) -> Weight:
    """The biases that go with stored scales of a symmetric format, in their dtype: the lowest code times the scale."""
    return (scales.astype(np.float32) * np.float32(-(2 ** (row.bits - 1)))).astype(scales.dtype)


def decode(quantized: Quantized) -> Float32:
    """Float32 weights [..., K]: code x (block scale x tensor scale), or code x scale + bias."""
    row = quantized.format
    codes = unpack_stream(quantized.codes, row.bits, quantized.shape[-1])
    blocks = codes.reshape(*codes.shape[:-1], -1, row.block)
    if row.affine:
        assert quantized.biases is not None
        scale, bias = (part.astype(np.float32)[..., None] for part in (quantized.scales, quantized.biases))
        return (blocks.astype(np.float32) * scale + bias).reshape(codes.shape)
    scale = scale_values(quantized)
    if quantized.tensor_scale is not None:
        g = quantized.tensor_scale
        scale = scale * g.reshape(g.shape + (1,) * (scale.ndim - g.ndim))
    values = (e2m1_decode if row.element == "e2m1" else e4m3_decode)(blocks)
    return (values * scale[..., None]).astype(np.float32).reshape(codes.shape)


def census(weight: Weight) -> Census:
    """Count the magnitudes of a weight, see `Census`."""
    wide = np.ascontiguousarray(weight).reshape(-1).astype(np.float32)
    bins = (wide.view(np.uint32) >> 16) & 0x7FFF
    nan = np.isnan(wide)
    bins[nan] = MAGNITUDE_BINS - 1
    counts = np.bincount(bins, minlength=MAGNITUDE_BINS).astype(np.uint64)
    if weight.dtype == ml_dtypes.bfloat16:
        return Census.from_bfloat16_counts(counts)
    finite = np.abs(wide[bins < INFINITY_BIN].astype(np.float64))
    return Census(counts, float(finite.max(initial=0)), float((finite**2).sum()), float((finite**4).sum()))


def encode(weight: Weight, recipe: Recipe, g: float = 1.0, context: Context | None = None) -> Quantized:
    """Quantize finite weights [..., K] with the multiplier `g` (1.0 for formats without a tensor scale).

    Where the context lacks what the recipe's method needs, the method does what `Method.otherwise` says.

    Raises ValueError when the shape does not fit the format, TypeError for a dtype that is not bf16, fp16 or fp32.
    """
    row = recipe.format
    check(weight, row)
    wide = weight.astype(np.float32)
    blocks = wide.reshape(*wide.shape[:-1], -1, row.block)
    biases = None
    if row.affine:
        codes, wide_scales, wide_biases = _encode_affine(blocks, recipe, weight.dtype)
        scales, biases = wide_scales.astype(weight.dtype), wide_biases.astype(weight.dtype)
        biases = symmetric_biases(scales, row) if row.symmetric else biases
    elif row.scale == "float32":
        codes, scales = _encode_tiles(wide, recipe, np.float32(g))
    elif row.scale == "e4m3":
        codes, scales = _encode_nvfp4(blocks, recipe, np.float32(g), context or Context())
    else:
        codes, scales = _encode_mx(blocks, recipe)
    flat = codes.reshape(wide.shape)
    scale = np.array(g, np.float32) if row.tensor_scale else None
    return Quantized(row, pack(flat) if row.bits == 4 else flat, scales, biases, scale)


def check(weight: Weight, row: Format) -> None:
    """Raise TypeError or ValueError when `weight` can not be encoded in the format `row`."""
    if weight.dtype not in (np.float32, np.float16, ml_dtypes.bfloat16):
        raise TypeError(f"[encode] weight must be float32, float16 or bfloat16, got {weight.dtype}")
    if reason := row.unfit(weight.shape):
        raise ValueError(f"[encode] {reason}")
    if row.scale == "float32" and weight.ndim != 2:
        raise ValueError(f"[encode] {row.name} needs a matrix, got shape {weight.shape}")


def fidelity(weight: Weight, quantized: Quantized, *, blocks: bool = False) -> Fidelity:
    """Measure a quantized weight [rows, K] against its source, in float64 from float32 values."""
    wide, decoded = weight.astype(np.float32).astype(np.float64), decode(quantized).astype(np.float64)
    squares = (wide - decoded) ** 2
    counts = np.zeros(256, np.uint64)
    if quantized.format.byte_scales:
        counts = np.bincount(quantized.scales.reshape(-1), minlength=256).astype(np.uint64)
    per_block = squares.reshape(len(wide), -1, quantized.format.block).sum(axis=-1)
    return Fidelity(
        width=wide.shape[1],
        row_squares=(wide**2).sum(axis=1),
        row_error=squares.sum(axis=1),
        max_error=float(np.abs(wide - decoded).max()),
        vanished=int(((decoded == 0) & (wide != 0)).sum()),
        scale_counts=counts,
        block_error=per_block.astype(np.float32) if blocks else None,
    )


class ReferenceBackend:
    """The definition itself as a backend: for tests and for `--backend reference`."""

    name = "reference"
    title = "numpy reference (slow)"

    def census(self, weight: Weight) -> Census:
        """See `Backend.census`."""
        return census(weight)

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
        quantized = encode(weight, recipe, tensor_scale, context)
        measured = fidelity(weight, quantized, blocks=blocks) if measure or blocks else None
        return Encoded(quantized, measured)

    def decode(self, quantized: Quantized, dtype: Any = np.float32) -> Weight:
        """See `Backend.decode`."""
        return decode(quantized).astype(dtype)

    def squared_error(self, weight: Weight, quantized: Quantized) -> float:
        """See `Backend.squared_error`."""
        return squared_error(weight, decode(quantized))
