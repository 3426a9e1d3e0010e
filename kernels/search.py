"""How the scale of a block is chosen, in whole numbers: the definition that every backend follows to the bit.

A weight is u = |w| in 2**-11 of the power of two above the block's largest, at most 2047. A candidate scale s gives
m = 2**7 times that power over s, rounded, at most 4095 and odd; then t = u * m / 4096 is |w| / s in 1/64, never halfway
between two whole numbers. What t misses of the nearest code is an error e in 1/64 of s. A candidate costs s**2 times
the sum of e**2, of e**2 times the importance of its column, or e^T H e. The smallest cost wins, if equal that of the
larger scale. A candidate under which the largest weight's t is beyond 511 is not tried: it would be cut off. Where
columns differ in importance, cutting off may pay: there the bound is 1023, and smaller scales are tried, too.

Where H is known, the codes under the chosen scale are gone over once, from the first column to the last (coordinate
descent, as QuantEase, arXiv 2309.01885, inside a block): each becomes the one nearest to t_c plus the sum over all
other i of e_i H_ic / H_cc, the best one while the others stand.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kernels.context import BLOCK, Context
from kernels.formats import Recipe

Float32 = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Whole = NDArray[np.int32]

WINDOW = (-2, -1, 0, 1, 3, 4, 5, 6)
"""Candidates of `search`, in scale codes from that of `max`: these have 99.9 % of what all 126 would gain.

Below code 8, where E4M3 is subnormal and its steps are wide, 2 takes the place of -2.
"""

GUIDED_WINDOW = (-10, -6, -3, *WINDOW[:-1])
"""Candidates where inputs are known: a large weight whose column matters little may be cut off."""

GUIDED_EDITION = "edition 2"
"""Counted up with every change of the bytes that are chosen by what is known of inputs: work begun with another one is
not gone on with."""

SATURATED = 464.0
"""A wanted scale from which E4M3 saturates at 448: every other candidate is worse."""

RANGE = (2.0**-60, 2.0**60)
"""Blocks whose largest weight lies outside keep the scale of `max`."""

WEIGHT_MAX = 2047
MULTIPLIER_MAX = 4095
SQUARES_MAX, GUIDED_MAX = 511, 1023
SHRINK = tuple(1 - step / 32 for step in range(8))
"""Candidates of `search` for affine groups: what scale and bias are multiplied by."""

FAR = 256
"""Steps from zero to the far end of a group from which it is not shrunk: its numbers would not fit into 16 bits."""

_LEVELS = np.array([0, 32, 64, 96, 128, 192, 256, 384], np.int32)
_FROM = np.array([16, 48, 80, 112, 160, 224, 320], np.int32)
_TURNS = np.where(np.arange(7) % 2, _FROM, np.nextafter(_FROM.astype(np.float32), np.float32(np.inf))).astype(
    np.float32
)
"""From where on a code is nearest to a number in 1/64 that may lie on a tie, the even one of two."""

_TRIANGLE = np.triu_indices(BLOCK)


def candidates(recipe: Recipe, first: Bytes, quarter: Bytes, *, guided: bool) -> list[Bytes]:
    """Scale bytes to try for each block: `first` is that of `max`, `quarter` makes the largest weight code 4.

    `guided`: something is known of the inputs.
    """
    least = max(recipe.min_scale, 1)
    if recipe.method == "four-six":
        found = [first, quarter]
    else:
        window = GUIDED_WINDOW if guided else WINDOW
        steps = (np.where(first < 8, 2, step) if step == -2 else step for step in window)
        found = [np.clip(first.astype(np.int16) + step, 0, 126) for step in steps]
    return [np.clip(byte, least, 126).astype(np.uint8) for byte in found]


def choose(
    blocks: Float32, tried: list[Bytes], first: Bytes, values: Float32, g: np.float32, context: Context, method: str
) -> Bytes:
    """The scale byte [...] of each block [..., 16]: the best of those `tried`, `first` where none can be.

    `values` are the E4M3 magnitudes, `g` the tensor scale. Blocks of the last axis but one meet the context in order.
    """
    cost, guided = cost_of(context, method, blocks), bool(context.guides(method))
    weights, power, usable = whole_weights(blocks)
    best, found = np.full(first.shape, np.inf, np.float32), first
    for byte in tried:
        value = values[byte]
        error, allowed = errors(weights, multipliers(power, value * g), GUIDED_MAX if guided else SQUARES_MAX)
        total = (value * value) * cost(error)
        better = usable & allowed & ((total < best) | ((total == best) & (byte > found)))
        found, best = np.where(better, byte, found), np.where(better, total, best)
    return found


def go_over(blocks: Float32, codes: Bytes, scale: Float32, moments: NDArray[np.int16]) -> Bytes:
    """E2M1 codes 0..15 [..., count, 16] of blocks with scales [..., count]: `codes`, gone over once.

    Kept where the largest weight lies outside `RANGE`, or beyond `GUIDED_MAX` under its scale. The target of a column
    is float32, t plus a whole sum times the inverse of twice its own moment, and rounds to nearest even.
    """
    weights, power, usable = whole_weights(blocks)
    size = _scaled(weights, multipliers(power, scale))
    allowed = usable & (size.max(axis=-1) <= GUIDED_MAX)
    wanted = np.where(np.signbit(blocks), -size, size)
    error = wanted - np.sign(wanted) * _nearest(size)
    others = _matrices(moments)
    own = np.einsum("bii->bi", others)
    with np.errstate(divide="ignore"):
        shares = np.where(own > 0, np.float32(1) / (2 * own).astype(np.float32), np.float32(0))
    own[:] = 0
    others += others.swapaxes(-1, -2)
    found = codes.copy()
    for column in range(BLOCK):
        sums = np.einsum("...bi,bi->...b", error, others[:, column]).astype(np.float32)
        target = wanted[..., column].astype(np.float32) + sums * shares[:, column]
        code = np.searchsorted(_TURNS, np.abs(target), side="right")
        found[..., column] = code | np.signbit(target) << 3
        error[..., column] = wanted[..., column] - np.where(np.signbit(target), -_LEVELS[code], _LEVELS[code])
    return np.where(allowed[..., None], found, codes)


def whole_weights(blocks: Float32) -> tuple[Whole, Float32, NDArray[np.bool_]]:
    """Magnitudes in whole numbers, half the power of two above each block's largest, and whether that is in `RANGE`."""
    magnitude = np.abs(blocks)
    peak = magnitude.max(axis=-1)
    usable = (peak >= RANGE[0]) & (peak < RANGE[1])
    power = (np.where(usable, peak, np.float32(1)).view(np.uint32) & np.uint32(0x7F800000)).view(np.float32)
    scaled = np.where(usable[..., None], magnitude, 0) * (np.float32(1024) / power)[..., None]
    return np.minimum(np.rint(scaled), WEIGHT_MAX).astype(np.int32), power, usable


def multipliers(power: Float32, scale: Float32) -> Whole:
    """The m of each block for the scale that its codes are multiplied by."""
    with np.errstate(all="ignore"):
        wanted = np.minimum(np.rint((np.float32(1) / scale) * power * np.float32(256)), np.float32(MULTIPLIER_MAX))
    whole: Whole = wanted.astype(np.int32) | 1
    return whole


def errors(weights: Whole, multiplier: Whole, most: int) -> tuple[Whole, NDArray[np.bool_]]:
    """The e of each weight [..., block], in 1/64 of the scale; whether the largest t is at most `most`."""
    size = _scaled(weights, multiplier)
    return size - _nearest(size), size.max(axis=-1) <= most


def _scaled(weights: Whole, multiplier: Whole) -> Whole:
    """The t of each weight [..., block]."""
    size: Whole = (weights * multiplier[..., None] + 2048) >> 12
    return size


def _nearest(size: Whole) -> Whole:
    """The number of E2M1 nearest to each t, in 1/64."""
    return _LEVELS[np.searchsorted(_FROM, size, side="right")]


def cost_of(context: Context, method: str, blocks: Float32) -> Callable[[Whole], Float32]:
    """What the errors [..., count, 16] of blocks cost [..., count]: whole numbers, rounded once to float32."""
    count = blocks.shape[-2]
    importance, moments = context.used(method, count * BLOCK)
    if moments is not None:
        upper, negative = _matrices(moments), np.signbit(blocks)
        return lambda e: _output_cost(upper, np.where(negative, -e, e))
    if importance is not None:
        weight = importance.astype(np.int32).reshape(count, BLOCK)
        return lambda e: _total(((weight * 32 * e + (1 << 14)) >> 15) * e)
    return lambda e: _total(e * e)


def _matrices(moments: NDArray[np.int16]) -> Whole:
    """Moments [count, 136] as upper triangles [count, 16, 16], zeros below."""
    upper = np.zeros((len(moments), BLOCK, BLOCK), np.int32)
    upper[:, _TRIANGLE[0], _TRIANGLE[1]] = moments
    return upper


def _output_cost(upper: Whole, error: Whole) -> Float32:
    """Errors times the moments of their columns, in two parts: each is a whole number below 2**31."""
    product = np.einsum("bij,...bj->...bi", upper, error)
    return _total((product >> 15) * error) * np.float32(1 << 15) + _total((product & 0x7FFF) * error)


def _total(numbers: Whole) -> Float32:
    whole: Float32 = numbers.sum(axis=-1, dtype=np.int32).astype(np.float32)
    return whole


def choose_exponent(blocks: Float32, first: Bytes) -> Bytes:
    """The E8M0 byte of each block [..., 32] of E2M1 codes: of `first` and its neighbours that with the least error."""
    weights, power, usable = whole_weights(blocks)
    best, found = np.full(first.shape, np.inf, np.float32), first
    for step in (1, 0, -1):
        byte = first.astype(np.int32) + step
        error, allowed = errors(weights, multipliers(power, np.ldexp(np.float32(1), byte - 127)), GUIDED_MAX)
        total = np.float32(4.0**step) * (error * error).sum(axis=-1, dtype=np.int32).astype(np.float32)
        better = usable & allowed & (total < best)
        found, best = np.where(better, byte, found), np.where(better, total, best)
    return found.astype(np.uint8)


def choose_shrink(blocks: Float32, scale: Float32, steps: Float32, bits: int) -> Float32:
    """What the scale and the bias of each affine group [..., block] are multiplied by.

    `scale` [...] is that of `max`, whose codes are w / scale - `steps`; a group that reaches further than `FAR` steps
    from zero keeps it. x is w / scale in 1/64; a candidate f turns it into x * m / 4096 with m = 4096 / f rounded, at
    most 2**15, whose codes are whole numbers of 64 and whose errors count f**2.
    """
    most = 2**bits - 1
    whole = np.rint(np.clip(blocks / scale[..., None], -320, 320) * np.float32(64)).astype(np.int32)
    near = (steps >= -FAR) & (steps <= FAR - most)
    offset = np.where(near, steps, 0).astype(np.int32)[..., None]
    best, found = np.full(scale.shape, np.inf, np.float32), np.ones(scale.shape, np.float32)
    for factor in SHRINK:
        scaled = (whole * int(np.rint(4096 / factor)) + 2048) >> 12
        code = np.clip(((scaled + 32) >> 6) - offset, 0, most)
        error = np.clip(scaled - ((code + offset) << 6), -WEIGHT_MAX, WEIGHT_MAX)
        total = np.float32(factor * factor) * (error * error).sum(axis=-1, dtype=np.int32).astype(np.float32)
        found, best = np.where(total < best, np.float32(factor), found), np.minimum(total, best)
    return np.where(near, found, np.float32(1))
