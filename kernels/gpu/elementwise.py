"""The codings in plain mlx operations: lazy, on any device; the way where no kernel of ours can run."""

import functools

import mlx.core as mx
import numpy as np

from kernels import reference
from kernels.formats import Format, Recipe


@functools.cache
def _tables() -> dict[str, mx.array]:
    codes = np.arange(256, dtype=np.uint8)
    return {
        "e2m1": mx.array(reference.e2m1_decode(codes[:16])),
        "e4m3": mx.array(reference.e4m3_decode(codes)),
        "e8m0": mx.array(np.append(reference.e8m0_decode(codes[:255]), np.float32(np.nan))),
    }


def unpacked(codes: mx.array, row: Format) -> mx.array:
    """Codes one per byte, uint8 [..., K], of packed words uint32 [..., K * bits / 32]."""
    packed = codes.view(mx.uint8)
    if row.bits == 8:
        return packed
    return mx.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)


def decode(codes: mx.array, scales: mx.array, biases: mx.array | None, g: mx.array | None, row: Format) -> mx.array:
    """Float32 weights [..., K]; `g` broadcasts against the scales."""
    elements = unpacked(codes, row)
    blocks = elements.reshape(*elements.shape[:-1], -1, row.block)
    if biases is not None:
        scale, bias = scales.astype(mx.float32)[..., None], biases.astype(mx.float32)[..., None]
        return (blocks.astype(mx.float32) * scale + bias).reshape(elements.shape)
    scale = _tables()["e4m3" if row.scale == "e4m3" else "e8m0"][scales]
    if g is not None:
        scale = scale * g
    return (_tables()[row.element][blocks] * scale[..., None]).reshape(elements.shape)


def _round_e4m3(x: mx.array) -> mx.array:
    """Non-negative float32 rounded to E4M3: nearest, ties to even, saturating at 448."""
    bits = mx.minimum(x, mx.array(448.0)).view(mx.uint32)
    whole = ((bits + 0x7FFFF + ((bits >> 20) & 1)) & 0xFFF00000).view(mx.float32)
    return mx.where(x < 2.0**-6, mx.round(x * 512.0) * 2.0**-9, whole)


def _round_e2m1(x: mx.array) -> mx.array:
    """Non-negative float32 rounded to E2M1: nearest, ties to even, saturating at 6."""
    step = mx.where(x < 2, mx.array(0.5), mx.where(x < 4, mx.array(1.0), mx.array(2.0)))
    return mx.minimum(mx.round(x / step) * step, mx.array(6.0))


def round_trip(x: mx.array, recipe: Recipe, g: mx.array, extra: mx.array | None = None) -> mx.array:
    """Activations [..., K] after NVFP4, in float32: code * (scale * g * extra); `g` and `extra` of size 1."""
    wide = x.astype(mx.float32)
    blocks = wide.reshape(*x.shape[:-1], -1, recipe.format.block)
    peak = mx.max(mx.abs(blocks), axis=-1, keepdims=True)
    least = float(reference.E4M3_VALUES[recipe.min_scale])
    scale = mx.maximum(_round_e4m3(peak / 6.0 / g), mx.array(least)) * g
    sizes = mx.where(scale == 0, mx.array(0.0), mx.abs(blocks) / mx.where(scale == 0, mx.array(1.0), scale))
    factor = scale if extra is None else scale * extra
    values = _round_e2m1(sizes) * mx.where(blocks < 0, mx.array(-1.0), mx.array(1.0))
    return (values * factor).reshape(x.shape)
