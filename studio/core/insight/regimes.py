"""Scale regimes: where the E4M3 block scales of a weight fall with two tiers and with three, and what that costs.

E4M3 has a zone of normal numbers from 2**-6 to 448, where it rounds to one part in 16, seven subnormal numbers below
that, and zero. With two tiers a block's scale is max|block| / 6 itself, so small weights end among the subnormal
numbers or at zero. The third tier divides by g = max|W| / 2688 first, which moves all blocks to the normal zone.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kernels.fidelity import relative_error
from kernels.reference import E4M3_VALUES

ZONES = ("zero", "subnormal", "normal", "saturated")
ZONE_STARTS = (0, 1, 8, 126, 127)
"""Zone i holds the scale bytes from ZONE_STARTS[i] up to, not including, ZONE_STARTS[i + 1]."""

SCALES = len(E4M3_VALUES)
BLOCK = 16
DEAD_ZONE = 1 / 24
"""A weight up to this share of its block's maximum rounds to zero even under an ideal scale: 0.25 / 6."""

TWO, THREE = "nvfp4-2t", "nvfp4-3t"
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
        before, after, _ = self._compared
        return 1 - after / before if before else 0.0

    @property
    def _compared(self) -> tuple[float, float, str]:
        """The errors of both, and what they are: measured, or predicted, which is by the plain rule for scales."""
        two, three = self.two.measured, self.three.measured
        if two is None or three is None:
            return self.two.predicted, self.three.predicted, "relative error by method max, predicted,"
        return two, three, "relative error"

    def sentence(self) -> str:
        """Why these weights need the third tier, or why they do not, in words."""
        if not self.two.blocks:
            return "There are no blocks of 16 to look at."
        low, zero = self.two.share("subnormal"), self.two.share("zero")
        before, after, what = self._compared
        change = f"{what} {before:.4f} → {after:.4f}"
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
