"""Sensitivity: what damage in the outputs of layers means for the predictions of the model, as KL to the source.

Layers of one kind and of like damage have one sensitivity, found by quantizing them alone (see `parts`). What they do
adds up to x, and KL is x**b: b is what makes the parts alone add up to what they do together. Below 1, damage
saturates: in mixtures of experts, where small errors send tokens elsewhere, at large damage anywhere. Every format and
method has a factor, found by quantizing the whole model with it: errors of equal size and another shape differ in what
they do.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kernels import FORMATS
from studio.core.budgets.decisions import Option

_EXPONENTS = (0.5, 1.5)
_STEPS = 60
_SPREAD = 0.1
"""By what share the factors of formats of one kind differ where noise does not tell them apart."""


@dataclass(frozen=True)
class Sensitivity:
    """KL in nats by part of the model and by option; without parts nothing is known, and damage stays damage.

    parts: by the name of a part, what its damage counts. factors: by the text of an option, what its damage counts.
    exponent: b. draws: what other draws of the windows that probes were run on would have told: how noisy this is.
    texts: names and SHA-256 of what probes were run on.
    """

    parts: Mapping[str, float] = field(default_factory=dict)
    factors: Mapping[str, float] = field(default_factory=dict)
    exponent: float = 1.0
    draws: tuple["Sensitivity", ...] = ()
    texts: tuple[tuple[str, str], ...] = ()

    @property
    def is_known(self) -> bool:
        """True where damage can be told as KL."""
        return bool(self.parts)

    def weight(self, part: str, option: Option) -> float:
        """What damage of a part counts in an option."""
        return self.parts.get(part, 1.0) * self.factors.get(str(option), 1.0)

    def kl(self, total: float) -> float:
        """The KL of a plan whose weighted damages add up to `total`; NaN where nothing is known."""
        return total**self.exponent if self.is_known else math.nan

    def total(self, kl: float) -> float:
        """The sum of weighted damages at which KL is `kl`."""
        return float(kl ** (1 / self.exponent))

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"parts": dict(self.parts), "factors": dict(self.factors), "exponent": self.exponent}


@dataclass(frozen=True)
class Probed:
    """The KL of a plan with its standard error, and the damage in it, by part and by the text of the option.

    draws: the KL on each draw of windows, the same ones for all plans; none where windows are not known.
    """

    kl: float
    noise: float
    damages: Mapping[tuple[str, str], float]
    draws: tuple[float, ...] = ()


def fit(alone: Mapping[str, Probed], together: Probed | None, whole: Mapping[str, Probed]) -> Sensitivity:
    """The sensitivity that measured plans tell, and what it would be on other draws of windows.

    alone: by part, that part in few bits and the rest as it was. together: all parts in these options, None
    where that was not run. whole: by option, all layers that can have it in that option. A part that took no damage has
    the mean sensitivity of the others.
    """
    plans = [*alone.values(), *([together] if together else []), *whole.values()]
    count = min((len(found.draws) for found in plans), default=0)
    told = _told(alone, together, whole)
    draws = [
        _told(_drawn(alone, number), _drawn({"": together}, number)[""] if together else None, _drawn(whole, number))
        for number in range(count)
    ]
    noise = {option: _noise(option, found, told.exponent, draws) for option, found in whole.items()}
    return replace(told.steadied(noise), draws=tuple(draw.steadied(noise) for draw in draws))


def _drawn(plans: Mapping[str, Probed], number: int) -> dict[str, Probed]:
    return {name: replace(found, kl=found.draws[number]) for name, found in plans.items()}


@dataclass(frozen=True)
class _Told:
    """What plans tell of parts, the exponent, and the logarithms of the factors of options."""

    parts: Mapping[str, float]
    exponent: float
    factors: Mapping[str, float]

    def steadied(self, noise: Mapping[str, float]) -> Sensitivity:
        """With each factor drawn to the mean of formats of its kind as far as its noise leaves open what it is."""
        alike: dict[tuple[str, int], list[str]] = defaultdict(list)
        for option in self.factors:
            row = FORMATS[option.partition("/")[0]]
            alike[row.element, row.bits].append(option)
        found: dict[str, float] = {}
        for members in alike.values():
            trust = {option: 1 / (_SPREAD**2 + noise[option] ** 2) for option in members}
            mean = sum(trust[option] * self.factors[option] for option in members) / sum(trust.values())
            for option in members:
                found[option] = math.exp(mean + _SPREAD**2 * trust[option] * (self.factors[option] - mean))
        return Sensitivity(self.parts, found, self.exponent)


def _told(alone: Mapping[str, Probed], together: Probed | None, whole: Mapping[str, Probed]) -> _Told:
    exponent = _exponent([found.kl for found in alone.values()], together.kl if together else 0.0)
    sums = {part: sum(found.damages.values()) for part, found in alone.items()}
    parts = {part: found.kl ** (1 / exponent) / sums[part] for part, found in alone.items() if sums[part] > 0}
    mean = sum(parts.values()) / len(parts) if parts else 0.0
    parts = {part: parts.get(part, mean) for part in alone}
    factors = {option: _factor(found, parts, exponent) for option, found in whole.items()}
    return _Told(parts, exponent, {option: found for option, found in factors.items() if found is not None})


def _factor(found: Probed, parts: Mapping[str, float], exponent: float) -> float | None:
    """The logarithm of the factor of an option that all layers have; None where nothing tells it."""
    expected = sum(parts.get(part, 0.0) * damage for (part, _), damage in found.damages.items())
    if expected <= 0 or found.kl <= 0:
        return None
    return math.log(found.kl) / exponent - math.log(expected)


def _noise(option: str, found: Probed, exponent: float, draws: Sequence[_Told]) -> float:
    """The standard error of the logarithm of a factor.

    What windows have in common, that they are hard or easy for every plan, is in the sensitivity of parts, too, and is
    no noise of the factor.
    """
    logs = [draw.factors[option] for draw in draws if option in draw.factors]
    if len(logs) > 1:
        return statistics.stdev(logs)
    return found.noise / found.kl / exponent if found.kl > 0 else 0.0


def _exponent(alone: Sequence[float], together: float) -> float:
    """The b with which what parts do alone adds up to what they do together, within reason."""
    positive = [kl for kl in alone if kl > 0]
    if together <= 0 or len(positive) < 2:
        return 1.0
    low, high = _EXPONENTS
    for _ in range(_STEPS):
        middle = (low + high) / 2
        above = middle * math.log(sum(kl ** (1 / middle) for kl in positive)) > math.log(together)
        low, high = (low, middle) if above else (middle, high)
    return (low + high) / 2
