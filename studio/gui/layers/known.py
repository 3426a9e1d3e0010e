"""Known: the results of the layers of a model, in a shelf per recipe, so that those of a plan are gathered at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from studio import core
from studio.gui.layers.choices import Choices, Indices

FIGURES = ("rel_err", "snr", "lost", "gone", "squares", "errors", "peak")


class Shelf:
    """The results for one recipe and one way to share the tensor scale.

    results: object array of `core.LayerResult`. figures: [figure, layer] float64, rows as in `FIGURES`. there: which
    layers have one. sought: which were looked for in the cache.
    """

    def __init__(self, layers: int) -> None:
        self.results = np.full(layers, None, object)
        self.figures = np.full((len(FIGURES), layers), np.nan)
        self.there = np.zeros(layers, np.bool_)
        self.sought = np.zeros(layers, np.bool_)

    def add(self, index: int, result: core.LayerResult) -> None:
        """Put a result in its place."""
        self.results[index], self.there[index] = result, True
        self.figures[:, index] = figures_of(result)


def figures_of(result: core.LayerResult) -> tuple[float, ...]:
    """The figures of a result, in the order of `FIGURES`; of codes that were taken over only the peak is known."""
    statistics = result.statistics
    peak = statistics.max_abs / statistics.sigma if statistics and statistics.sigma else np.nan
    if result.quantized and not result.measured:
        return np.nan, np.nan, np.nan, np.nan, 0.0, 0.0, peak
    rows = float(result.vanished_rows)
    return result.rel_err, result.snr, result.vanished_share, rows, result.sum_squares, result.sum_error, peak


class Known:
    """Results by layer, recipe and peers; what a cache knew before is taken from it when it is first asked for."""

    def __init__(self, cache: core.ResultCache, groups: core.ScaleGroups, layers: int) -> None:
        self._cache, self._groups, self._layers = cache, groups, layers
        self._shelves: dict[tuple[int, int], Shelf] = {}
        self._had_some = len(cache) > 0

    def add(self, index: int, recipe: int, mark: int, result: core.LayerResult) -> None:
        """Remember a result; `recipe` and `mark` are the numbers of recipe and peers."""
        self._shelf(recipe, mark).add(index, result)

    def _shelf(self, recipe: int, mark: int) -> Shelf:
        if (recipe, mark) not in self._shelves:
            self._shelves[recipe, mark] = Shelf(self._layers)
        return self._shelves[recipe, mark]

    def shelves(
        self, choices: Choices, marks: NDArray[np.uint64], indices: Indices
    ) -> list[tuple[Shelf | None, Indices]]:
        """The layers of `indices` that are quantized, divided by the shelf that holds their results, if any does."""
        chosen = indices[choices.recipes[indices] >= 0]
        peers, with_peers = np.unique(marks[chosen], return_inverse=True)
        kinds, which = np.unique(choices.recipes[chosen] * len(peers) + with_peers, return_inverse=True)
        found = []
        for number, kind in enumerate(kinds.tolist()):
            members, (recipe, mark) = chosen[which == number], divmod(kind, len(peers))
            found.append((self._filled(recipe, int(peers[mark]), choices, members), members))
        return found

    def _filled(self, recipe: int, mark: int, choices: Choices, members: Indices) -> Shelf | None:
        """The shelf, with what the cache had for `members` before the model was opened."""
        if not self._had_some:
            return self._shelves.get((recipe, mark))
        shelf = self._shelf(recipe, mark)
        for index in members[~shelf.sought[members] & ~shelf.there[members]].tolist():
            if result := self._cache.find(choices[index], self._groups.peers(index, choices)):
                shelf.add(index, result)
        shelf.sought[members] = True
        return shelf

    def there(self, choices: Choices, marks: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which layers have a result for what is chosen."""
        found = np.zeros(len(choices), np.bool_)
        for shelf, members in self.shelves(choices, marks, np.arange(len(choices))):
            if shelf is not None:
                found[members] = shelf.there[members]
        return found

    def results(self, choices: Choices, marks: NDArray[np.uint64]) -> Sequence[core.LayerResult | None]:
        """The result of each layer for what is chosen, None where there is none."""
        found = np.full(len(choices), None, object)
        for shelf, members in self.shelves(choices, marks, np.arange(len(choices))):
            if shelf is not None:
                found[members] = shelf.results[members]
        results: list[core.LayerResult | None] = found.tolist()
        return results
