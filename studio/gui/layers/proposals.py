"""Proposals: what mixes of formats would choose for each layer, so that the table follows a budget while it moves."""

from collections.abc import Hashable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from studio import core
from studio.gui.layers.choices import BY_PLAN, CODES, METHOD_CODES, Codes, Edits, Indices
from studio.gui.layers.store import LayerStore

T = TypeVar("T", bound=np.generic)


class Proposals:
    """All options of all layers as tables, made once for a planner; a mix is then a few gathers.

    layers: int64, those that are decided about. owners: int64, the decision of each of these.
    """

    def __init__(self, costs: core.Costs) -> None:
        items = costs.decisions.items
        self.layers: Indices = np.array([index for item in items for index in item.layers], np.int64)
        self.owners: Indices = np.repeat(np.arange(len(items)), [len(item.layers) for item in items])
        shape = len(self.layers), max(len(item.options) for item in items)
        self._codes, self._methods = np.zeros(shape, np.int8), np.zeros(shape, np.int8)
        self._nbytes, self._rel_err = np.zeros(shape, np.int64), np.full(shape, np.nan, np.float32)
        self._alike: dict[Hashable, tuple[Codes, Codes, Indices]] = {}
        for row, (index, owner) in enumerate(zip(self.layers.tolist(), self.owners.tolist(), strict=True)):
            self._fill(costs, row, index, items[owner])

    def _fill(self, costs: core.Costs, row: int, index: int, item: core.Decision) -> None:
        key = costs.decisions.alike[index], item.options
        if key not in self._alike:
            chosen = [costs.decisions.choice(index, option) for option in item.options]
            self._alike[key] = (
                np.array([CODES[choice.format] for choice in chosen], np.int8),
                np.array([METHOD_CODES[choice.method] for choice in chosen], np.int8),
                np.array([choice.nbytes for choice in chosen], np.int64),
            )
        codes, methods, nbytes = self._alike[key]
        count = len(item.options)
        self._codes[row, :count], self._methods[row, :count], self._nbytes[row, :count] = codes, methods, nbytes
        found = [costs.of(index, option) for option in item.options]
        self._rel_err[row, :count] = [cost.rel_err if cost else np.nan for cost in found]

    def of(self, mix: core.Mix, store: LayerStore, pinned: NDArray[np.bool_]) -> LayerStore:
        """What the table shows for a mix; layers that nothing is decided about are as in `store`."""
        rows, picks = np.arange(len(self.layers)), mix.picks[self.owners]
        places = self.layers
        return store.proposing(
            _placed(store.codes, places, self._codes[rows, picks]),
            _placed(store.methods, places, self._methods[rows, picks]),
            _placed(store.nbytes_out, places, self._nbytes[rows, picks]),
            _placed(store.rel_err, places, self._rel_err[rows, picks]),
            pinned,
        )

    def settled(self, mix: core.Mix, store: LayerStore, edits: Edits) -> Edits:
        """Choices by hand that name the methods, too, that a mix has for them."""
        methods = self.of(mix, store, edits.mask).methods
        places = np.flatnonzero((edits.codes != BY_PLAN) & np.isin(np.arange(len(store)), self.layers))
        return edits.with_methods(places, np.where(methods == METHOD_CODES[""], BY_PLAN, methods)[places])

    def together(self, indices: Indices) -> Indices:
        """The layers that are decided about together with those at `indices`, these among them."""
        mine = self.owners[np.isin(self.layers, indices)]
        return self.layers[np.isin(self.owners, mine)]


def _placed(values: NDArray[T], places: Indices, new: NDArray[Any]) -> NDArray[T]:
    found = values.copy()
    found[places] = new
    return found
