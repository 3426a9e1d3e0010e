"""Rows: which layers and heads of sections the table shows, and in what order; all of it index arrays, no Qt."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from studio.gui.layers.choices import Indices
from studio.gui.layers.columns import COLUMNS
from studio.gui.layers.sections import Sections
from studio.gui.layers.store import LayerStore

_AUTO, _OPEN, _FOLDED = range(3)


class Folds:
    """Which sections are folded; those of experts are until someone unfolds them, or filters: then matches show."""

    def __init__(self, sections: Sections) -> None:
        self._sections = sections
        self._inner = sections.inner
        self._said = np.full(len(sections), _AUTO, np.int8)
        self._filtered = False

    def set(self, numbers: Iterable[int], folded: bool) -> None:
        """Fold or unfold sections."""
        self._said[np.fromiter(numbers, np.int64)] = _FOLDED if folded else _OPEN

    @property
    def said(self) -> tuple[Indices, Indices]:
        """The sections that the user folded, and those that the user unfolded."""
        return np.flatnonzero(self._said == _FOLDED), np.flatnonzero(self._said == _OPEN)

    def set_filtered(self, filtered: bool) -> None:
        """Whether a filter chooses what is shown."""
        self._filtered = filtered

    def mask(self) -> NDArray[np.bool_]:
        """Which sections are folded."""
        by_itself = (self._said == _AUTO) & self._inner & (not self._filtered)
        folded: NDArray[np.bool_] = (self._said == _FOLDED) | by_itself
        return folded


class Rows:
    """The rows as `numbers`: the place of a layer, or -1 - section for the row that heads one.

    `visible`: the layers that pass the filter, section by section, folded ones too. `alone`: the sections inside others
    of which only one layer does: it stands without a head.
    """

    def __init__(self, store: LayerStore, sections: Sections, passed: NDArray[np.bool_]) -> None:
        self._store, self._sections = store, sections
        self.visible: Indices = sections.order[passed[sections.order]]
        self._section = sections.of[self.visible]
        self.alone: NDArray[np.bool_] = np.bincount(self._section, minlength=len(sections)) == 1
        self.alone &= sections.inner
        self.numbers: Indices = np.zeros(0, np.int64)

    def sort(self, column: int, descending: bool) -> None:
        """Show layers alone, sorted by a column; what is unknown comes last."""
        keys = COLUMNS[column].values(self._store)
        if isinstance(keys, list):
            ordered = sorted(self.visible.tolist(), key=keys.__getitem__, reverse=descending)
            self._take(np.array(ordered, np.int64))
            return
        values = np.asarray(keys)[self.visible].astype(np.float64)
        unknown = np.isnan(values)
        values = np.where(unknown, np.inf, -values if descending else values)
        self._take(self.visible[np.argsort(values, kind="stable")])

    def divide(self, folded: NDArray[np.bool_]) -> None:
        """Show layers below the heads of their sections, but for what is folded."""
        inner, outer = self._section, self._sections.outer[self._section]
        blocks = np.flatnonzero(np.diff(outer, prepend=-1))
        experts = np.flatnonzero((inner != outer) & (np.diff(inner, prepend=-1) != 0) & ~self.alone[inner])
        heads = np.concatenate([-1 - outer[blocks], -1 - inner[experts]])
        rows = np.insert(self.visible, np.concatenate([blocks, experts]), heads)
        hidden = (folded[inner] & ~self.alone[inner]) | folded[outer]
        hidden_heads = np.concatenate([np.zeros(len(blocks), np.bool_), folded[outer[experts]]])
        self._take(rows[~np.insert(hidden, np.concatenate([blocks, experts]), hidden_heads)])

    def _take(self, numbers: Indices) -> None:
        self.numbers = numbers
        heads, places = numbers < 0, np.arange(len(numbers))
        self._row_of = np.full(len(self._store), -1, np.int64)
        self._head_of = np.full(len(self._sections), -1, np.int64)
        self._row_of[numbers[~heads]] = places[~heads]
        self._head_of[-1 - numbers[heads]] = places[heads]

    def __len__(self) -> int:
        return len(self.numbers)

    def members(self, section: int) -> Indices:
        """The layers of a section, and of those inside it, that pass the filter."""
        first, end = self._span(np.array([section]))
        return self.visible[first[0] : end[0]]

    def _span(self, sections: Indices) -> tuple[Indices, Indices]:
        """Where the layers of sections begin and end among the visible ones."""
        last = self._sections.last[sections]
        return np.searchsorted(self._section, sections), np.searchsorted(self._section, last, "right")

    def row_of(self, index: int) -> int | None:
        """The row of a layer, None when it is not shown."""
        row = int(self._row_of[index])
        return row if row >= 0 else None

    def head_of(self, section: int) -> int:
        """The row that heads a section; where that is hidden too, the one of the section around it."""
        row = int(self._head_of[section])
        return row if row >= 0 else max(int(self._head_of[self._sections.outer[section]]), 0)

    def layers_at(self, rows: Indices) -> Indices:
        """The layers of rows, in their order; a row that heads a section stands for the layers of it."""
        numbers = self.numbers[rows]
        if not (numbers < 0).any():
            return numbers
        edges = np.zeros(len(self.visible) + 1, np.int64)
        first, end = self._span(-1 - numbers[numbers < 0])
        np.add.at(edges, first, 1)
        np.add.at(edges, end, -1)
        chosen = np.zeros(len(self._store), np.bool_)
        chosen[self.visible[np.cumsum(edges[:-1]) > 0]] = True
        chosen[numbers[numbers >= 0]] = True
        return self.visible[chosen[self.visible]]

    def rows_at(self, layers: Indices) -> Indices:
        """The rows of layers, from above, and of the heads all of whose layers are among them."""
        chosen = np.zeros(len(self._store), np.bool_)
        chosen[layers] = True
        before = np.concatenate([[0], np.cumsum(chosen[self.visible])])
        heads = np.flatnonzero(self.numbers < 0)
        first, end = self._span(-1 - self.numbers[heads])
        whole = heads[before[end] - before[first] == end - first]
        rows = self._row_of[layers]
        return np.sort(np.concatenate([rows[rows >= 0], whole]))
