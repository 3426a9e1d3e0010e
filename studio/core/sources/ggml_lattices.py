"""ggml's types of less than four bits whose codes are points of a grid, with signs of their own or a shift for all.

Decoded as `ggml` does. Source: ggml-quants.c of llama.cpp, gguf-py 0.19 (quants.py).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.core.sources.ggml_fields import Blocks, Values, bits_of, f16, fields, scaled
from studio.core.sources.ggml_grids import grid

Whole = NDArray[np.integer[Any]]

_SEVENS = np.array([0, 7, 14, 21], np.uint32)
"""Where the four groups of signs lie in a word of 32 bits, behind which its last four bits are a scale."""

_THREES = np.array([0, 3, 6, 9], np.uint16)
"""Where four fields of three bits lie in a word of 16."""

_SHIFT = np.float32(0.125)


def _words(raw: Blocks, dtype: str) -> Whole:
    found: Whole = np.ascontiguousarray(raw).view(dtype)
    return found


def _even(sevens: Whole) -> Blocks:
    """Signs of eight values of which seven are stored: their number is even."""
    low = (sevens & 127).astype(np.uint8)
    found: Blocks = low | (np.bitwise_count(low) & np.uint8(1)) << np.uint8(7)
    return found


def _signed(scales: Values, points: Values, signs: Blocks) -> Values:
    """[n, groups] x [n, ...] values, those negative whose bits of [n, bytes] are set: [n, values]."""
    values = scaled(scales, points).reshape(len(scales), -1)
    np.negative(values, out=values, where=bits_of(signs).view(bool))
    return values


def _halves(d: Values, steps: Whole, unit: float) -> Values:
    """Scales that are stored as steps between one half and fifteen and a half."""
    found: Values = d * (np.float32(0.5) + steps.astype(np.float32)) * np.float32(unit)
    return found


def _iq2_xxs(blocks: Blocks) -> Values:
    pairs = np.ascontiguousarray(blocks[:, 2:]).reshape(len(blocks), 8, 8)
    words = _words(pairs[:, :, 4:], "<u4")
    signs = _even(words >> _SEVENS).reshape(len(blocks), -1)
    return _signed(_halves(f16(blocks[:, :2]), words[..., 0] >> 28, 0.25), grid("IQ2_XXS")[pairs[:, :, :4]], signs)


def _iq2_xs(blocks: Blocks) -> Values:
    words = _words(blocks[:, 2:66], "<u2")
    scales = _halves(f16(blocks[:, :2]), fields(blocks[:, 66:], 4, 1), 0.25)
    return _signed(scales, grid("IQ2_XS")[words & 511], _even(words >> 9))


def _iq2_s(blocks: Blocks) -> Values:
    places = blocks[:, 2:34] | fields(blocks[:, 66:74], 2, 1).astype(np.uint16) << 8
    scales = _halves(f16(blocks[:, :2]), fields(blocks[:, 74:], 4, 1), 0.25)
    return _signed(scales, grid("IQ2_S")[places], blocks[:, 34:66])


def _iq3_xxs(blocks: Blocks) -> Values:
    words = _words(blocks[:, 66:], "<u4")
    signs = _even(words[..., None] >> _SEVENS).reshape(len(blocks), -1)
    return _signed(_halves(f16(blocks[:, :2]), words >> 28, 0.5), grid("IQ3_XXS")[blocks[:, 2:66]], signs)


def _iq3_s(blocks: Blocks) -> Values:
    places = blocks[:, 2:66] | bits_of(blocks[:, 66:74]).astype(np.uint16) << 8
    scales = f16(blocks[:, :2]) * (2 * fields(blocks[:, 106:], 4, 1) + np.uint8(1)).astype(np.float32)
    return _signed(scales, grid("IQ3_S")[places], blocks[:, 74:106])


def _iq1_s(blocks: Blocks) -> Values:
    words = _words(blocks[:, 34:], "<u2")
    places = blocks[:, 2:34] | ((words[..., None] >> _THREES & 7) << 8).reshape(len(blocks), -1)
    scales = f16(blocks[:, :2]) * (2 * (words >> 12 & 7) + 1).astype(np.float32)
    return _moved(scales, places, words >> 15, 4)


def _iq1_m(blocks: Blocks) -> Values:
    words = _words(blocks[:, 48:], "<u2")
    nibbles = fields(blocks[:, 32:48], 4, 1)
    places = blocks[:, :32] | (nibbles & np.uint8(7)).astype(np.uint16) << 8
    d = np.bitwise_or.reduce((words & 0xF000) >> np.array([12, 8, 4, 0], np.uint16), axis=1, keepdims=True)
    steps = (words[..., None] >> _THREES & 7).reshape(len(blocks), -1)
    scales = f16(d.astype("<u2").view(np.uint8)) * (2 * steps + 1).astype(np.float32)
    return _moved(scales, places, nibbles >> np.uint8(3), 1)


def _moved(scales: Values, places: Whole, down: Whole, each: int) -> Values:
    """Points, all eight values of each moved up or down; `down` tells it of every `each` of them."""
    shifts = np.repeat(np.where(down, -_SHIFT, _SHIFT), each, axis=1)
    return scaled(scales, grid("IQ1")[places] + shifts[..., None]).reshape(len(scales), -1)


LATTICES: Mapping[str, Callable[[Blocks], Values]] = {
    "IQ1_S": _iq1_s,
    "IQ1_M": _iq1_m,
    "IQ2_XXS": _iq2_xxs,
    "IQ2_XS": _iq2_xs,
    "IQ2_S": _iq2_s,
    "IQ3_XXS": _iq3_xxs,
    "IQ3_S": _iq3_s,
}
"""By name of the type."""
