"""PredictionNoise: how much the predicted KL of a mix varies with the windows that probes were run on."""

import numpy as np
from numpy.typing import NDArray

from studio.core.budgets.decisions import Option
from studio.core.budgets.sensitivity import Sensitivity

Integers = NDArray[np.int64]


class PredictionNoise:
    """Told by what each draw of these windows would have said of the same damages."""

    def __init__(self, sensitivity: Sensitivity, shape: tuple[int, int]) -> None:
        self._draws = sensitivity.draws
        self._rows = np.arange(shape[0])
        self._damage, self._pairs = np.zeros(shape), np.zeros(shape, np.int64)
        self._known: dict[tuple[str, str], int] = {}
        self._weights: list[list[float]] = []
        self._exponents = np.array([draw.exponent for draw in self._draws])

    def add(self, place: tuple[int, int], part: str, option: Option, damage: float) -> None:
        """Note the damage, not weighted yet, of an option at [decision, option]."""
        if not self._draws:
            return
        key = part, str(option)
        if key not in self._known:
            self._known[key] = len(self._known)
            self._weights.append([draw.weight(part, option) for draw in self._draws])
        self._pairs[place], self._damage[place] = self._known[key], damage

    def of(self, picks: Integers) -> float | None:
        """The standard error of the KL of picks; None where nothing tells it."""
        if not self._draws:
            return None
        pairs, damage = self._pairs[self._rows, picks], self._damage[self._rows, picks]
        sums = np.bincount(pairs, damage, len(self._weights))
        return float(((sums @ np.array(self._weights)) ** self._exponents).std(ddof=1))
