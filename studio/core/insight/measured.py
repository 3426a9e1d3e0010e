"""What comparing two checkpoints by their weights found."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from studio.core.counting import counted
from studio.core.insight.comparison import Comparison
from studio.core.names import printable
from studio.core.planning.plan import Plan
from studio.core.results import FAR, finite


@dataclass(frozen=True, slots=True)
class Side:
    """One of the checkpoints: its layers and weights, the bytes of all, and their relative error against the reference.

    formats: what its weights are stored as, those of most first, and how many. rel_err is None for the reference.
    """

    name: str
    layers: int
    weights: int
    nbytes: int
    formats: tuple[tuple[str, int], ...]
    rel_err: float | None = None

    def to_json(self) -> dict[str, Any]:
        """All fields and the bits per weight, as JSON values; infinities become null."""
        return {key: finite(value) for key, value in asdict(self).items()} | {"bits": self.bits}

    @property
    def bits(self) -> float:
        """Bits per weight."""
        return 8 * self.nbytes / max(self.weights, 1)


@dataclass(frozen=True, slots=True)
class Measured:
    """What comparing found. `pairs` holds layers that differ, or are stored otherwise; `equal`: how many do neither.

    reference: the name of the source, "" where A took its place and errors of B are its distance from A. plan: the
    formats of B, for the layers of the reference. untaken: how many layers of B are in formats that no plan knows.
    lost: layers of the source that neither has.
    """

    comparison: Comparison
    sides: tuple[Side, Side]
    equal: int
    reference: str
    plan: Plan
    untaken: Mapping[str, int]
    lost: tuple[str, ...] = ()

    def sentence(self) -> str:
        """The comparison in one line."""
        if self.reference:
            return self.comparison.sentence()
        far, alone = [pair for pair in self.comparison.pairs if pair.error_b], self.comparison.alone
        count = len(self.comparison.pairs) + self.equal
        if not far and not alone:
            return "B decodes to the weights of A, bit by bit."
        if not far:
            common = f"{counted(count, 'layer has', 'layers have')} the same weights in both, bit by bit"
            return f"{common if count else 'A and B have no layer in common'}{alone}."
        found = f"B differs from A in {len(far):,} of {counted(count, 'layer')}{alone}"
        if broken := [pair for pair in far if math.isinf(pair.error_b)]:
            lost = f"{counted(len(broken), 'layer')} with NaN or Inf in one of them, as {printable(broken[0].name)}"
            return f"{found}: {lost}; relative error of all else {self.sides[1].rel_err or 0.0:.2g}"
        worst = max(far, key=lambda pair: pair.error_b)
        total = self.sides[1].rel_err or 0.0
        doubt = "; these are hardly the weights of one model" if total > FAR else ""
        return f"{found}: relative error {total:.2g}, most in {printable(worst.name)}, {worst.error_b:.2g}{doubt}"
