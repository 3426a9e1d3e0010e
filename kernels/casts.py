"""Casts between formats that change no code: only scales, and only where that is exact.

A block scale times the tensor scale is one number per block, MX blocks being two of NVFP4. A cast writes that number
as a block scale of the target times its tensor scale, and is exact when every block that holds a code other than zero
can be written so; what scale a block of zeros has makes no difference.

Integers around zero are those whose bias is the scale times the lowest code; groups may be cut into smaller ones.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.formats import Format
from kernels.quantized import Quantized
from kernels.reference import e4m3_decode, e4m3_encode, e8m0_decode, symmetric_biases

_HALF = 16
_ONE = {"e4m3": 0x38, "e8m0": 127}
"""The byte of a block scale of 1, which blocks of zeros get."""

_LARGEST = 8
"""Exponent of the largest power of two among E4M3 scales."""

_NORMAL, _SMALLEST = -6, -9
"""Exponents of the smallest normal and the smallest power of two among E4M3 scales."""

_G = (-126, 116)
"""Exponents of a multiplier g such that g, 1 / g and 2688 g are normal numbers in float32."""


@dataclass(frozen=True, slots=True)
class Span:
    """The smallest and the largest exponent of the blocks of power-of-two scales that hold a code other than zero."""

    low: int
    high: int

    def joined(self, other: "Span | None") -> "Span":
        """The span of both."""
        return Span(min(self.low, other.low), max(self.high, other.high)) if other else self


def span(quantized: Quantized) -> Span | None:
    """The span of codes [rows, K / 2] with E8M0 scales [rows, K / 32]; None where all codes are zero."""
    live = _live(quantized.codes).reshape(len(quantized.codes), -1, 2).any(axis=2)
    found = quantized.scales[live].astype(int) - 127
    return Span(int(found.min()), int(found.max())) if found.size else None


def multiplier(found: Span | None) -> float | None:
    """The tensor scale with which E4M3 scales are exactly the powers of two of a span; None where none is.

    The largest scale becomes 256 where that leaves the smallest one normal, or a power of two at all.
    """
    if found is None:
        return 1.0
    for smallest in (_NORMAL, _SMALLEST):
        low, high = max(found.high - _LARGEST, _G[0]), min(found.low - smallest, _G[1])
        if low <= high:
            return math.ldexp(1.0, low)
    return None


def exact_blocks(quantized: Quantized, row: Format, g: float = 1.0, dtype: Any = None) -> NDArray[np.bool_]:
    """Which blocks `cast` would write exactly: of 16 [rows, K / 16], of integers those of `row`."""
    found: NDArray[np.bool_] = _integers(quantized, row, dtype)[2] if row.affine else _scales(quantized, row, g)[1]
    return found


def cast(quantized: Quantized, row: Format, g: float = 1.0, dtype: Any = None) -> Quantized:
    """The same weights [rows, K] in another format of the same codes.

    g: the tensor scale of E2M1 codes, in formats with one. dtype: that of the scales of integers, by default as they
    are. Raises ValueError when a block can not be written exactly, or a format has other codes.
    """
    if row.affine:
        scales, biases, exact = _integers(quantized, row, dtype)
        found = Quantized(row, quantized.codes, scales, biases)
    else:
        scales, exact = _scales(quantized, row, g)
        third = np.array(g, np.float32) if row.tensor_scale else None
        found = Quantized(row, quantized.codes, scales, None, third)
    if not exact.all():
        bad = int((~exact).sum())
        raise ValueError(f"[cast] {bad:,} blocks of {quantized.format.name} are not exact in {row.name}")
    return found


def _integers(quantized: Quantized, row: Format, dtype: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """The target's scales and biases [rows, K / block], and which blocks they are exact for."""
    own = quantized.format
    if quantized.biases is None or own.bits != row.bits or own.block % row.block:
        raise ValueError(f"[cast] from {own.name} to {row.name}, which do not both hold integers in such groups")
    times, dtype = own.block // row.block, dtype or quantized.scales.dtype
    wanted = [np.repeat(part, times, axis=-1) for part in (quantized.scales, quantized.biases)]
    with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is not exact
        scales, biases = (part.astype(dtype) for part in wanted)
        biases = symmetric_biases(scales, row) if row.symmetric else biases
        same = [a.astype(np.float32) == b.astype(np.float32) for a, b in zip(wanted, (scales, biases), strict=True)]
    return scales, biases, same[0] & same[1] & np.isfinite(biases.astype(np.float32))


def _live(codes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which blocks of 16 [rows, K / 16] hold a code other than zero."""
    blocks = codes.reshape(len(codes), -1, _HALF // 2) & np.uint8(0x77)
    found: NDArray[np.bool_] = (blocks != 0).any(axis=2)
    return found


def _scales(quantized: Quantized, row: Format, g: float) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The target's block scales, and which blocks of 16 they are exact for."""
    if quantized.format.element != "e2m1" or row.element != "e2m1":
        raise ValueError(f"[cast] from {quantized.format.name} to {row.name}, which do not both hold E2M1 codes")
    live = _live(quantized.codes)
    wanted = np.where(live, _factors(quantized) / (g if row.tensor_scale else 1.0), 1.0)
    if row.scale == "e4m3":
        with np.errstate(over="ignore", under="ignore"):
            scales = e4m3_encode(wanted.astype(np.float32))
        return np.where(live, scales, _ONE["e4m3"]).astype(np.uint8), e4m3_decode(scales) == wanted
    return _exponents(wanted.reshape(len(live), -1, 2), live.reshape(len(live), -1, 2))


def _factors(quantized: Quantized) -> NDArray[np.float64]:
    """Block scale times tensor scale of each 16 weights, exact in float64."""
    decode = e4m3_decode if quantized.format.scale == "e4m3" else e8m0_decode
    factors = np.repeat(decode(quantized.scales).astype(np.float64), quantized.format.block // _HALF, axis=1)
    g = 1.0 if quantized.tensor_scale is None else float(quantized.tensor_scale)
    found: NDArray[np.float64] = factors * g
    return found


def _exponents(wanted: NDArray[np.float64], live: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """E8M0 scales of pairs of blocks [rows, K / 32, 2], and which blocks [rows, K / 16] they are exact for."""
    both = np.where(live, wanted, 0.0).max(axis=2)
    powers = np.round(np.log2(np.where(both > 0, both, 1.0))).astype(int)
    scales = np.clip(powers + _ONE["e8m0"], 0, 254).astype(np.uint8)
    exact = ~live | (e8m0_decode(scales).astype(np.float64)[..., None] == wanted)
    return scales, exact.reshape(len(exact), -1)
