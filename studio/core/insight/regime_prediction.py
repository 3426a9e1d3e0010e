"""Predicted regimes: both tiers from block maxima without encoding, or from results without reading weights.

With t = max|block| / 6 / scale, the expected squared error of a weight is max|block|**2 x F(t), F being the error of
rounding r x 6t to E2M1, averaged over the layer's distribution of r = |w| / max|block|, counted apart for blocks of
each size.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kernels import recipe
from kernels.reference import E4M3_VALUES, e2m1_decode, e2m1_encode, e4m3_encode
from studio.core.insight.regimes import BLOCK, SCALES, THREE, TWO, Regime, Tiers, no_tiers
from studio.core.results import LayerResult

RATIO_BINS, SIZES = 256, 48
"""Blocks are kept apart by their maximum, in quarter octaves: in larger ones the other weights are relatively small."""

_STEPS_PER_OCTAVE, _OCTAVES = 32, 16
_SAMPLES = 4
_FITS = 2 * _OCTAVES * _STEPS_PER_OCTAVE


class Fit:
    """Sums over blocks by size and by how well their scale fits; the error follows once the ratios are known."""

    def __init__(self) -> None:
        self.counts = np.zeros(SCALES, np.int64)
        self.energy = np.zeros((SIZES, _FITS + 1))
        self.number = np.zeros((SIZES, _FITS + 1))

    def add_fit(self, other: "Fit") -> None:
        """Take in the sums over other blocks."""
        self.counts += other.counts
        self.energy += other.energy
        self.number += other.number

    def add(self, peaks: NDArray[np.float32], sizes: NDArray[np.int64], tiers: str, g: float) -> None:
        """Count blocks with these maxima and sizes under the multiplier `g` (1.0 for two tiers)."""
        chosen = recipe(tiers)
        wanted = peaks / np.float32(6) / np.float32(g)
        scales = np.maximum(e4m3_encode(wanted), np.uint8(chosen.min_scale))
        scales[peaks == 0] = chosen.zero_scale
        self.counts += np.bincount(scales, minlength=SCALES)
        fits = fit_bins(wanted.astype(np.float64), E4M3_VALUES[scales].astype(np.float64))
        self.energy += _tally(sizes, fits, _FITS + 1, peaks.astype(np.float64) ** 2)
        self.number += _tally(sizes, fits, _FITS + 1)

    def regime(self, ratios: "Ratios", squares: float) -> Regime:
        """The regime, given the distribution of |w| / max|block|."""
        cost, lost = rounding_tables(ratios)
        error, vanished = BLOCK * float((self.energy * cost).sum()), BLOCK * float((self.number * lost).sum())
        weights = BLOCK * int(self.counts.sum())
        return Regime(self.counts, True, error, squares, vanished, weights)


def fit_bins(wanted: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of t = wanted / scale; the last bin is for a scale of zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        octave = np.log2(wanted / scale)
    octave = np.nan_to_num(octave, nan=0.0, posinf=_OCTAVES, neginf=-_OCTAVES)
    places = np.clip((octave + _OCTAVES) * _STEPS_PER_OCTAVE, 0, _FITS - 1).astype(np.int64)
    return np.where((scale == 0) & (wanted > 0), _FITS, places)


def block_sizes(peaks: NDArray[np.float32], largest: float) -> NDArray[np.int64]:
    """The size of each block, by its maximum: the last is within a quarter of an octave of `largest`."""
    with np.errstate(divide="ignore"):
        octave = np.log2(peaks.astype(np.float64) / (largest or 1.0))
    places = np.floor(4 * np.maximum(octave, -SIZES)).astype(np.int64) + SIZES
    sizes: NDArray[np.int64] = np.clip(places, 0, SIZES - 1)
    return sizes


def _tally(
    rows: NDArray[np.int64], columns: NDArray[np.int64], width: int, weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """[SIZES, width] sums of `weights`, or numbers of entries."""
    found = np.bincount((rows * width + columns).reshape(-1), weights=weights, minlength=SIZES * width)
    return found.astype(np.float64).reshape(SIZES, width)


class Ratios:
    """The distribution of r = |w| / max|block| in blocks of each size.

    counts: float64 [SIZES, 258], weights by r: [0] zeros, [1 .. 256] bins of equal width, [257] the maxima themselves.
    """

    def __init__(self) -> None:
        self.counts = np.zeros((SIZES, RATIO_BINS + 2))

    def add(self, magnitudes: NDArray[np.float32], peaks: NDArray[np.float32], sizes: NDArray[np.int64]) -> None:
        """Count the weights of blocks [n, block] with these maxima and sizes."""
        factors = np.float32(RATIO_BINS) / np.where(peaks == 0, np.float32(1), peaks)
        places = np.minimum((magnitudes * factors[:, None]).astype(np.int64), RATIO_BINS - 1)
        places += 1
        places[magnitudes == 0] = 0
        places[(magnitudes == peaks[:, None]) & (magnitudes > 0)] = RATIO_BINS + 1
        self.counts += _tally(sizes[:, None], places, RATIO_BINS + 2)

    def add_ratios(self, other: "Ratios") -> None:
        """Take in the counts of other blocks."""
        self.counts += other.counts

    @property
    def total(self) -> tuple[int, ...]:
        """Weights by r in blocks of every size."""
        return tuple(int(n) for n in self.counts.sum(axis=0))


def rounding_tables(ratios: Ratios) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(F, share of weights that vanish), each [SIZES, bins of t]."""
    squares, lost = _rounding()
    share = ratios.counts / np.maximum(ratios.counts.sum(axis=1, keepdims=True), 1)
    return share @ squares, share @ lost


@lru_cache(maxsize=1)
def _rounding() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[ratio bins, bins of t]: squared error in units of the maximum squared, and 1 where a weight becomes zero."""
    middles = np.concatenate([[0.0], (np.arange(RATIO_BINS) + 0.5) / RATIO_BINS, [1.0]])[:, None]
    t = 6 * np.exp2((np.arange(_FITS) + 0.5) / _STEPS_PER_OCTAVE - _OCTAVES)
    levels = e2m1_decode(e2m1_encode((middles * t).astype(np.float32))).astype(np.float64)
    nonzero = middles > 0
    squares = np.hstack([(middles - levels / t) ** 2, middles**2])
    return squares, np.hstack([(levels == 0) & nonzero, nonzero]).astype(np.float64)


@lru_cache(maxsize=1)
def _gaussian_tables() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """F and the share that vanishes, for blocks of 16 Gaussian weights of any size."""
    blocks = np.abs(np.random.default_rng(0).standard_normal((16384, BLOCK), np.float32))
    peaks = blocks.max(axis=1)
    sizes = block_sizes(peaks, float(peaks.max()))
    ratios = Ratios()
    ratios.add(blocks, peaks, sizes)
    cost, lost = rounding_tables(ratios)
    energy = np.bincount(sizes, weights=peaks.astype(np.float64) ** 2, minlength=SIZES)
    number = np.bincount(sizes, minlength=SIZES)
    return energy @ cost / energy.sum(), number @ lost / number.sum()


def prepare_estimates() -> None:
    """Work out the tables that `estimate` uses: 40 ms, once, on the thread where that keeps nobody waiting."""
    _gaussian_tables()


def estimate(results: Sequence[LayerResult]) -> Tiers:
    """Both regimes from results alone, without reading weights; layers in other formats are left out.

    The counts of what was run are exact; the scales of the other format follow from those counted, so they are rounded
    twice, and errors are predicted as if the weights inside a block were Gaussian.
    """
    chosen = [layer for layer in results if layer.format in (TWO, THREE) and layer.scale_counts]
    if not chosen:
        return no_tiers()
    counted = np.array([layer.scale_counts[:SCALES] for layer in chosen], np.int64)
    filled = np.flatnonzero(counted.any(axis=0))
    g = np.array([_multiplier(layer) for layer in chosen])
    three = np.array([layer.format == THREE for layer in chosen])
    spread = np.repeat(counted[:, filled], _SAMPLES, axis=1) / _SAMPLES
    peaks = 6 * _inside(filled) * np.where(three, g, 1.0)[:, None]
    tops = np.array([layer.statistics.max_abs if layer.statistics else np.inf for layer in chosen])
    peaks = np.minimum(peaks, tops[:, None])
    largest = float(max(tops[np.isfinite(tops)], default=0.0))
    of_two, of_three = (
        _estimated(chosen, spread, peaks, g, three == (tiers == THREE), tiers) for tiers in (TWO, THREE)
    )
    for regime, name in ((of_two, TWO), (of_three, THREE)):
        ran = np.array([layer.format == name for layer in chosen])
        regime.counts[:] += counted[ran].sum(axis=0)
    return Tiers(of_two, of_three, largest, len(chosen))


def _inside(scales: NDArray[np.int64]) -> NDArray[np.float64]:
    """Values evenly spread over what rounds to each scale byte."""
    middles = (E4M3_VALUES[1:].astype(np.float64) + E4M3_VALUES[:-1]) / 2
    low, high = np.append(0.0, middles)[scales], np.append(middles, E4M3_VALUES[-1])[scales]
    steps = (np.arange(_SAMPLES) + 0.5) / _SAMPLES
    spread: NDArray[np.float64] = low[:, None] + (high - low)[:, None] * steps
    return spread.reshape(-1)


def _estimated(
    layers: list[LayerResult],
    counted: NDArray[np.float64],
    peaks: NDArray[np.float64],
    g: NDArray[np.float64],
    ran: NDArray[np.bool_],
    tiers: str,
) -> Regime:
    """One regime of layers with blocks of these maxima; where it `ran`, its scales are left for the caller to count."""
    wanted = peaks / 6 / (g[:, None] if tiers == THREE else 1.0)
    scales = np.maximum(e4m3_encode(wanted.astype(np.float32)), np.uint8(recipe(tiers).min_scale))
    fits = fit_bins(wanted, E4M3_VALUES[scales].astype(np.float64))
    cost, lost = _gaussian_tables()
    squares = np.array([layer.sum_squares for layer in layers])
    energy = BLOCK * cost[-1] * (counted * peaks**2).sum(axis=1)
    scaled = np.where(energy > 0, squares / np.where(energy > 0, energy, 1), 1.0)
    errors = BLOCK * (counted * peaks**2 * cost[fits]).sum(axis=1) * scaled
    known = ran & [layer.measured for layer in layers]
    guessed = np.bincount(scales[~ran].reshape(-1), weights=counted[~ran].reshape(-1), minlength=SCALES)
    return Regime(
        np.diff(np.rint(np.cumsum(guessed)), prepend=0.0).astype(np.int64),  # no block is lost to rounding
        bool(ran.all()),
        float(errors.sum()),
        float(squares.sum()),
        BLOCK * float((counted * lost[fits]).sum()),
        BLOCK * round(float(counted.sum())),
        math.fsum(layer.sum_error for layer, done in zip(layers, known, strict=True) if done),
        float(squares[known].sum()),
    )


def _multiplier(layer: LayerResult) -> float:
    """The g of a layer, of several the geometric mean; without three tiers, the one it would get."""
    scales = [scale for scale in layer.tensor_scales if scale > 0]
    if scales:
        return math.exp(math.fsum(map(math.log, scales)) / len(scales))
    return layer.statistics.max_abs / 2688 if layer.statistics and layer.statistics.max_abs else 1.0
