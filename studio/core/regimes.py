"""Scale regimes: where the E4M3 block scales of a weight fall with two tiers and with three, and what that costs.

E4M3 has a zone of normal numbers from 2**-6 to 448, where it rounds to one part in 16, seven subnormal numbers below
that, and zero. With two tiers a block's scale is max|block| / 6 itself, so small weights end among the subnormal
numbers or at zero. The third tier divides by g = max|W| / 2688 first, which moves all blocks to the normal zone.

The error is predicted without encoding: with t = max|block| / 6 / scale, the expected squared error of a weight is
max|block|**2 x F(t), F being the error of rounding r x 6t to E2M1, averaged over the layer's distribution of
r = |w| / max|block|, in which a block counts by the square of its maximum.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kernels import recipe
from kernels.fidelity import relative_error
from kernels.reference import E4M3_VALUES, e2m1_decode, e2m1_encode, e4m3_encode
from studio.core.results import LayerResult

ZONES = ("zero", "subnormal", "normal", "saturated")
ZONE_STARTS = (0, 1, 8, 126, 127)
"""Zone i holds the scale bytes from ZONE_STARTS[i] up to, not including, ZONE_STARTS[i + 1]."""

SCALES = len(E4M3_VALUES)
BLOCK = 16
DEAD_ZONE = 1 / 24
"""A weight up to this share of its block's maximum rounds to zero even under an ideal scale: 0.25 / 6."""

RATIO_BINS = 256
TWO, THREE = "nvfp4-2t", "nvfp4-3t"
_STEPS_PER_OCTAVE, _OCTAVES = 32, 16
_FITS = 2 * _OCTAVES * _STEPS_PER_OCTAVE
_SHARE_WORTH_WORDS = 0.005


@dataclass(frozen=True, slots=True)
class Regime:
    """Block scales of one number of tiers, over one layer or many.

    counts: int64 [127], blocks per scale byte. exact: the counts come from block maxima or from the codes, not from the
    scales of the other format. error, squares: predicted sum of squared errors, and the sum of w**2 it belongs to.
    vanished, weights: weights predicted to become zero, of how many. measured_error, measured_squares: the same sums
    as measured, zero where this format was not run.
    """

    counts: NDArray[np.int64]
    exact: bool = True
    error: float = 0.0
    squares: float = 0.0
    vanished: float = 0.0
    weights: int = 0
    measured_error: float = 0.0
    measured_squares: float = 0.0

    def __add__(self, other: "Regime") -> "Regime":
        return Regime(
            self.counts + other.counts,
            self.exact and other.exact,
            *(
                getattr(self, name) + getattr(other, name)
                for name in ("error", "squares", "vanished", "weights", "measured_error", "measured_squares")
            ),
        )

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return int(self.counts.sum())

    @property
    def predicted(self) -> float:
        """Predicted relative error."""
        return relative_error(self.error, self.squares)

    @property
    def measured(self) -> float | None:
        """Measured relative error, None where this format was not run."""
        return relative_error(self.measured_error, self.measured_squares) if self.measured_squares else None

    def measured_by(self, error: float, squares: float) -> "Regime":
        """The same with what was measured: sums of squared errors and of w**2."""
        return replace(self, measured_error=error, measured_squares=squares)

    @property
    def best_known(self) -> float:
        """The measured error, otherwise the predicted one."""
        return self.predicted if self.measured is None else self.measured

    @property
    def vanished_share(self) -> float:
        """Share of the weights predicted to become zero."""
        return self.vanished / self.weights if self.weights else 0.0

    def share(self, zone: str) -> float:
        """Share of the blocks whose scale is in a zone."""
        place = ZONES.index(zone)
        inside = int(self.counts[ZONE_STARTS[place] : ZONE_STARTS[place + 1]].sum())
        return inside / self.blocks if self.blocks else 0.0


def no_regime() -> Regime:
    """The regime of no blocks."""
    return Regime(np.zeros(SCALES, np.int64))


@dataclass(frozen=True, slots=True)
class Tiers:
    """The two regimes of the same weights. `max_abs` is the largest weight, `layers` how many layers are in it."""

    two: Regime
    three: Regime
    max_abs: float = 0.0
    layers: int = 0

    def __add__(self, other: "Tiers") -> "Tiers":
        largest = max(self.max_abs, other.max_abs)
        return Tiers(self.two + other.two, self.three + other.three, largest, self.layers + other.layers)

    @property
    def gain(self) -> float:
        """Share of the error of two tiers that the third takes away; negative when it adds some."""
        before = self.two.best_known
        return 1 - self.three.best_known / before if before else 0.0

    def sentence(self) -> str:
        """Why these weights need the third tier, or why they do not, in words."""
        if not self.two.blocks:
            return "There are no blocks of 16 to look at."
        low, zero = self.two.share("subnormal"), self.two.share("zero")
        change = f"relative error {self.two.best_known:.4f} → {self.three.best_known:.4f}"
        if low + zero < _SHARE_WORTH_WORDS and abs(self.gain) < 0.01:
            return f"Two tiers do as well here: {self.two.share('normal'):.0%} of the block scales are normal numbers."
        reasons = []
        if low >= _SHARE_WORTH_WORDS:
            reasons.append(f"{low:.0%} of the block scales fall below 2⁻⁶, where E4M3 has only 7 values left")
        if zero >= _SHARE_WORTH_WORDS:
            reasons.append(f"{zero:.0%} round to zero and lose their whole block")
        if self.two.share("saturated") >= _SHARE_WORTH_WORDS:
            reasons.append(f"{self.two.share('saturated'):.0%} are cut off at 448")
        why = " and ".join(reasons) or "few block scales leave the normal zone"
        if self.gain < 0.01:
            return f"With two tiers {why}, but that costs little: {change} with the third."
        return f"Small weights: with two tiers {why}. The third tier lifts them into the normal zone: {change}."


def no_tiers() -> Tiers:
    """The tiers of no layer."""
    return Tiers(no_regime(), no_regime())


class Fit:
    """Sums over blocks by how well their scale fits, from which the error follows once the distribution is known."""

    def __init__(self) -> None:
        self.counts = np.zeros(SCALES, np.int64)
        self.energy = np.zeros(_FITS + 1)
        self.number = np.zeros(_FITS + 1)

    def add_fit(self, other: "Fit") -> None:
        """Take in the sums over other blocks."""
        self.counts += other.counts
        self.energy += other.energy
        self.number += other.number

    def add(self, peaks: NDArray[np.float32], tiers: str, g: float) -> None:
        """Count blocks with these maxima under the multiplier `g` (1.0 for two tiers)."""
        chosen = recipe(tiers)
        wanted = peaks / np.float32(6) / np.float32(g)
        scales = np.maximum(e4m3_encode(wanted), np.uint8(chosen.min_scale))
        scales[peaks == 0] = chosen.zero_scale
        self.counts += np.bincount(scales, minlength=SCALES)
        self._add_fits(wanted.astype(np.float64), scales, peaks.astype(np.float64) ** 2)

    def _add_fits(self, wanted: NDArray[np.float64], scales: NDArray[np.uint8], energy: NDArray[np.float64]) -> None:
        places = fit_bins(wanted, E4M3_VALUES[scales].astype(np.float64))
        self.energy += np.bincount(places, weights=energy, minlength=_FITS + 1)
        self.number += np.bincount(places, minlength=_FITS + 1)

    def regime(self, ratios: "Ratios", squares: float) -> Regime:
        """The regime, given the distribution of |w| / max|block|."""
        cost, lost = rounding_table(ratios)
        error, vanished = BLOCK * float(self.energy @ cost), BLOCK * float(self.number @ lost)
        weights = BLOCK * int(self.counts.sum())
        return Regime(self.counts, True, error, squares, vanished, weights)


def fit_bins(wanted: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of t = wanted / scale; the last bin is for a scale of zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        octave = np.log2(wanted / scale)
    octave = np.nan_to_num(octave, nan=0.0, posinf=_OCTAVES, neginf=-_OCTAVES)
    places = np.clip((octave + _OCTAVES) * _STEPS_PER_OCTAVE, 0, _FITS - 1).astype(np.int64)
    return np.where((scale == 0) & (wanted > 0), _FITS, places)


class Ratios:
    """The distribution of r = |w| / max|block|: [0] zeros, [1 .. 256] bins of equal width, [257] the maxima themselves.

    counts: weights per bin. energy: the same, each weighing as much as the square of its block's maximum.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(RATIO_BINS + 2, np.int64)
        self.energy = np.zeros(RATIO_BINS + 2)

    def add(self, magnitudes: NDArray[np.float32], peaks: NDArray[np.float32]) -> None:
        """Count the weights of blocks [n, block] with these maxima."""
        ratios = magnitudes / np.where(peaks == 0, np.float32(1), peaks)[:, None]
        places = np.minimum((ratios * RATIO_BINS).astype(np.uint16) + 1, RATIO_BINS)
        places[ratios == 0] = 0
        places[ratios >= 1] = RATIO_BINS + 1
        weights = np.broadcast_to((peaks.astype(np.float64) ** 2)[:, None], places.shape)
        self.counts += np.bincount(places.reshape(-1), minlength=RATIO_BINS + 2)
        self.energy += np.bincount(places.reshape(-1), weights=weights.reshape(-1), minlength=RATIO_BINS + 2)

    def add_ratios(self, other: "Ratios") -> None:
        """Take in the counts of other blocks."""
        self.counts += other.counts
        self.energy += other.energy


def rounding_table(ratios: Ratios) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(F, share of weights that vanish) per bin of t."""
    middles = np.concatenate([[0.0], (np.arange(RATIO_BINS) + 0.5) / RATIO_BINS, [1.0]])
    share = ratios.counts / max(ratios.counts.sum(), 1)
    weight = ratios.energy / (ratios.energy.sum() or 1.0)
    octave = (np.arange(_FITS) + 0.5) / _STEPS_PER_OCTAVE - _OCTAVES
    t = 6 * np.exp2(octave)[:, None]
    levels = e2m1_decode(e2m1_encode((t * middles).astype(np.float32))).astype(np.float64)
    cost = ((middles - levels / t) ** 2) @ weight
    lost = ((levels == 0) & (middles > 0)) @ share
    return np.append(cost, middles**2 @ weight), np.append(lost, share[1:].sum())


@lru_cache(maxsize=1)
def _gaussian_table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The table for blocks of 16 Gaussian weights."""
    blocks = np.abs(np.random.default_rng(0).standard_normal((16384, BLOCK), np.float32))
    ratios = Ratios()
    ratios.add(blocks, blocks.max(axis=1))
    return rounding_table(ratios)


def estimate(results: Sequence[LayerResult]) -> Tiers:
    """Both regimes from results alone, without reading weights; layers in other formats are left out.

    What was run is exact; the scales of the other format follow from those counted, so they are rounded twice, and
    weights inside a block count as Gaussian.
    """
    chosen = [layer for layer in results if layer.format in (TWO, THREE) and layer.scale_counts]
    if not chosen:
        return no_tiers()
    counted = np.array([layer.scale_counts[:SCALES] for layer in chosen], np.int64)
    g = np.array([_multiplier(layer) for layer in chosen])
    three = np.array([layer.format == THREE for layer in chosen])
    middles = np.append(E4M3_VALUES[0] + 2.0**-11, E4M3_VALUES[1:]).astype(np.float64)
    peaks = 6 * middles * np.where(three, g, 1.0)[:, None]
    largest = max(layer.statistics.max_abs if layer.statistics else 0.0 for layer in chosen)
    of_two, of_three = (_estimated(chosen, counted, peaks, g, three, tiers) for tiers in (TWO, THREE))
    return Tiers(of_two, of_three, largest, len(chosen))


def _estimated(
    layers: list[LayerResult],
    counted: NDArray[np.int64],
    peaks: NDArray[np.float64],
    g: NDArray[np.float64],
    three: NDArray[np.bool_],
    tiers: str,
) -> Regime:
    ran = three == (tiers == THREE)
    wanted = peaks / 6 / (g[:, None] if tiers == THREE else 1.0)
    scales = np.maximum(e4m3_encode(wanted.astype(np.float32)), np.uint8(recipe(tiers).min_scale))
    scales = np.where(ran[:, None], np.arange(SCALES), scales)
    fits = fit_bins(wanted, E4M3_VALUES[scales].astype(np.float64))
    cost, lost = _gaussian_table()
    measured = [layer for layer, done in zip(layers, ran, strict=True) if done]
    return Regime(
        np.bincount(scales.reshape(-1), weights=counted.reshape(-1), minlength=SCALES).astype(np.int64),
        bool(ran.all()),
        BLOCK * float((counted * peaks**2 * cost[fits]).sum()),
        math.fsum(layer.sum_squares for layer in layers),
        BLOCK * float((counted * lost[fits]).sum()),
        BLOCK * int(counted.sum()),
        math.fsum(layer.sum_error for layer in measured),
        math.fsum(layer.sum_squares for layer in measured),
    )


def _multiplier(layer: LayerResult) -> float:
    """The g of a layer, of several the geometric mean; without three tiers, the one it would get."""
    scales = [scale for scale in layer.tensor_scales if scale > 0]
    if scales:
        return math.exp(math.fsum(map(math.log, scales)) / len(scales))
    return layer.statistics.max_abs / 2688 if layer.statistics and layer.statistics.max_abs else 1.0
