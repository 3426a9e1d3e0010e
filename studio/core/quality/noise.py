"""The noise of a mean over windows of text: the standard error that a bootstrap over windows finds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.core.quality.metrics import Tally
from studio.core.results import finite
from studio.core.typed import typed

RESAMPLES = 1000
_SEED = 10

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From sums [resamples, quantities] to a number for each resample."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its standard error; `noise` is None where one window can not tell it."""

    value: float
    noise: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Both, as JSON values."""
        return {"value": finite(self.value), "noise": finite(self.noise)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Estimate":
        """The estimate that `to_json` described; what JSON has no number for is infinite."""
        return typed(cls(float("inf") if data["value"] is None else data["value"], data["noise"]), signed=("value",))


def estimate(quantities: NDArray[np.float64], statistic: Statistic) -> Estimate:
    """`statistic` of the sums of `quantities` [windows, quantities] over all windows.

    Its noise is the standard deviation over 1,000 draws of as many windows with replacement, the same ones each time.
    """
    value = float(statistic(quantities.sum(axis=0)[None])[0])
    if len(quantities) < 2:
        return Estimate(value)
    return Estimate(value, float(resampled(quantities, statistic).std(ddof=1)))


def resampled(quantities: NDArray[np.float64], statistic: Statistic, resamples: int = RESAMPLES) -> NDArray[np.float64]:
    """`statistic` of the sums over each of so many draws of windows, the same ones for all `quantities`."""
    count = len(quantities)
    weights = np.random.default_rng(_SEED).multinomial(count, np.full(count, 1 / count), resamples)
    with np.errstate(invalid="ignore"):  # an infinite sum drawn zero times
        return statistic(weights @ quantities)


def perplexity(windows: Sequence[Tally]) -> Estimate:
    """The exponential of the mean negative log-likelihood."""
    sums = np.array([(w.loss, w.tokens) for w in windows])
    return estimate(sums, lambda s: np.exp(s[:, 0] / s[:, 1]))


def increase(windows: Sequence[Tally], source: Sequence[Tally]) -> Estimate:
    """By what share perplexity is above that of the source, on the same windows: 0.05 is 5 %."""
    sums = np.array([(w.loss - s.loss, w.tokens) for w, s in zip(windows, source, strict=True)])
    return estimate(sums, lambda s: np.expm1(s[:, 0] / s[:, 1]))


def divergence(windows: Sequence[Tally], other: Sequence[Tally] | None = None) -> Estimate:
    """Mean KL to the source per token in nats; less that of `other` on the same windows where it is given."""
    return estimate(_divergences(windows, other), _mean)


def divergences(windows: Sequence[Tally], resamples: int) -> NDArray[np.float64]:
    """Mean KL to the source on each of so many draws of windows; see `resampled`."""
    return resampled(_divergences(windows), _mean, resamples)


def _divergences(windows: Sequence[Tally], other: Sequence[Tally] | None = None) -> NDArray[np.float64]:
    less = [0.0] * len(windows) if other is None else [w.divergence or 0.0 for w in other]
    return np.array([((w.divergence or 0.0) - before, w.tokens) for w, before in zip(windows, less, strict=True)])


def agreement(windows: Sequence[Tally]) -> Estimate:
    """Share of tokens for which the model thinks the same word most likely as the source."""
    return estimate(np.array([(w.agreed or 0, w.tokens) for w in windows], np.float64), _mean)


def _mean(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    means: NDArray[np.float64] = sums[:, 0] / sums[:, 1]
    return means
