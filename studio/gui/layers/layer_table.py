"""LayerTable: the layers as a flat item model with a row that heads each block; order and filter are index arrays."""

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt
from PySide6.QtGui import QColor

from studio import core
from studio.gui.layers.document import Document
from studio.gui.layers.layer_filter import Filter
from studio.gui.layers.store import DONE, FAILED, KEPT, RUNNING, SIGNS, STALE, STATE_HELP, STATES, LayerStore
from studio.gui.shell.text import tip
from studio.gui.shell.theme import LIGHT, Theme

Index = QModelIndex | QPersistentModelIndex
PLAIN, BOLD, STRUCK = range(3)
LEFT = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
RIGHT = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
_MEASURED = ("err", "snr", "lost", "gone")
_NOWHERE = QModelIndex()


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, what it means, its width in characters, how a cell reads and what it sorts by."""

    key: str
    title: str
    help: str
    width: int
    cell: Callable[[LayerStore, int], str]
    sort: Callable[[LayerStore], Any]
    hidden: bool = False
    right: bool = True
    long: bool = False


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else ("∞" if math.isinf(value) else format(value, form))


def _size(value: int) -> str:
    return core.size_text(int(value))


def _status(store: LayerStore, index: int) -> str:
    return f"{SIGNS[store.state[index]]} {STATES[store.state[index]]}"


def _states(store: LayerStore) -> NDArray[np.int8]:
    return store.state


def _count(value: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return str(value)


COLUMNS: tuple[Column, ...] = (
    Column(
        "name", "Layer", "Name of the weight.", 24, lambda s, i: s.titles[i], lambda s: s.names, right=False, long=True
    ),
    Column("format", "Format", "Keys 0-9 change it.", 9, lambda s, i: s.formats[i], lambda s: s.formats, right=False),
    Column(
        "err",
        "Error",
        "Relative error ‖W − Q‖ / ‖W‖; ▲ is above the warning line.",
        8,
        lambda s, i: _number(s.rel_err[i], ".4f"),
        lambda s: s.rel_err,
    ),
    Column("status", "Status", "What is known of the layer.", 10, lambda s, i: _status(s, i), _states, right=False),
    Column("size", "Size", "Bytes after quantizing.", 8, lambda s, i: _size(s.nbytes_out[i]), lambda s: s.nbytes_out),
    Column(
        "peak",
        "Max/σ",
        "Largest weight in standard deviations: what outliers cost.",
        6,
        lambda s, i: _number(s.peak[i], ".1f"),
        lambda s: s.peak,
    ),
    Column("shape", "Shape", "Rows × columns of the weight.", 10, lambda s, i: s.shapes[i], lambda s: s.counts),
    Column("params", "Weights", "Number of weights.", 10, lambda s, i: _count(s.counts[i]), lambda s: s.counts, True),
    Column("dtype", "Source", "How it is stored now.", 8, lambda s, i: s.dtypes[i], lambda s: s.dtypes, True, False),
    Column(
        "bits",
        "Bits/w",
        "Bits stored per weight, scales included.",
        8,
        lambda s, i: _number(s.bits[i], ".2f"),
        lambda s: s.bits,
        True,
    ),
    Column("snr", "SNR dB", "Signal-to-noise ratio.", 8, lambda s, i: _number(s.snr[i], ".1f"), lambda s: s.snr, True),
    Column(
        "lost",
        "Became 0",
        "Share of the non-zero weights that became zero.",
        9,
        lambda s, i: _number(s.lost[i], ".2%"),
        lambda s: s.lost,
        True,
    ),
    Column(
        "gone",
        "Rows at 0",
        "Rows all of whose weights became zero, which the relative error of the layer hides.",
        9,
        lambda s, i: _number(s.gone[i], ",.0f"),
        lambda s: s.gone,
        True,
    ),
)
KEYS = [column.key for column in COLUMNS]


class LayerTable(QAbstractTableModel):
    """Rows are indices of layers, or -1 - group for the row that heads a block.

    Sorted, the rows are layers alone; in their own order they stand below their block, which can be folded.
    """

    def __init__(self, document: Document, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self._filter = Filter()
        self._folded: set[int] = set()
        self.sort_column, self.descending = -1, True
        self._rows: NDArray[np.int64] = np.zeros(0, np.int64)
        self._row_of = self._head_of = np.zeros(0, np.int64)
        self._members: dict[int, NDArray[np.int64]] = {}
        self._visible: NDArray[np.int64] = np.zeros(0, np.int64)
        self._take_colors(LIGHT)
        document.opened.connect(self.reload)

    @property
    def store(self) -> LayerStore:
        """The layers shown."""
        return self._document.store

    # what is shown

    def reload(self) -> None:
        """Show another checkpoint, in its own order, unfolded."""
        self._folded.clear()
        self.sort_column = -1
        self.rearrange()

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours."""
        self._take_colors(theme)
        self.touch_all()

    def _take_colors(self, theme: Theme) -> None:
        self._muted = QColor(theme.muted)
        self._format_inks = {name: QColor(color) for name, color in theme.formats.items()}
        tones = {DONE: theme.good, FAILED: theme.error, STALE: theme.warning, RUNNING: theme.accent}
        self._state_inks = {state: QColor(color) for state, color in tones.items()}

    def set_filter(self, wanted: Filter) -> None:
        """Show the layers that pass."""
        self._filter = wanted
        self.rearrange()

    def sort_by(self, column: int) -> None:
        """First the largest on top, then the smallest, the third time the order of the checkpoint."""
        if column != self.sort_column:
            self.sort_column, self.descending = column, KEYS[column] not in ("name", "format", "dtype")
        elif self.descending == (KEYS[column] not in ("name", "format", "dtype")):
            self.descending = not self.descending
        else:
            self.sort_column = -1
        self.rearrange()

    def fold(self, groups: Iterable[int], folded: bool) -> None:
        """Hide or show the layers of blocks."""
        changed = set(groups)
        self._folded = self._folded | changed if folded else self._folded - changed
        self.rearrange()

    def rearrange(self) -> None:
        """Work out the rows again: filter, order, folds."""
        self.beginResetModel()
        if self._document.model is None:
            passed = None
            self._rows = self._visible = self._row_of = self._head_of = np.zeros(0, np.int64)
        else:
            passed = self._filter.mask(self.store)
            self._visible = self.store.order[passed[self.store.order]]
            self._rows = self._sorted() if self.sort_column >= 0 else self._grouped()
            self._number_rows()
        self.endResetModel()
        if passed is not None:
            self._document.show_only(passed)

    def _number_rows(self) -> None:
        """Where each layer and each head of a block is, -1 for those that are not shown."""
        self._row_of = np.full(len(self.store), -1, np.int64)
        self._head_of = np.full(len(self.store.group_names), -1, np.int64)
        heads = self._rows < 0
        numbers = np.arange(len(self._rows))
        self._row_of[self._rows[~heads]] = numbers[~heads]
        self._head_of[-1 - self._rows[heads]] = numbers[heads]

    def _sorted(self) -> NDArray[np.int64]:
        keys = COLUMNS[self.sort_column].sort(self.store)
        if isinstance(keys, list):
            ordered = sorted(self._visible.tolist(), key=keys.__getitem__, reverse=self.descending)
            return np.array(ordered, np.int64)
        values = keys[self._visible].astype(np.float64)
        unknown = np.isnan(values)
        values = np.where(unknown, np.inf, -values if self.descending else values)
        return self._visible[np.argsort(values, kind="stable")]

    def _grouped(self) -> NDArray[np.int64]:
        self._members = {}
        if not len(self._visible):
            return self._visible
        groups = self.store.group[self._visible]
        starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
        heads = -1 - groups[starts].astype(np.int64)
        self._members = dict(zip(groups[starts].tolist(), np.split(self._visible, starts[1:]), strict=True))
        rows = np.insert(self._visible, starts, heads)
        if not self._folded:
            return rows
        layers_group = np.where(rows >= 0, self.store.group[np.maximum(rows, 0)], -1)
        return rows[~np.isin(layers_group, list(self._folded))]

    # between rows and layers

    def layers_of(self, row: int) -> list[int]:
        """The layer of a row; for the row that heads a block its layers that pass the filter."""
        index = int(self._rows[row])
        if index >= 0:
            return [index]
        return list(map(int, self._members[-1 - index]))

    def row_of(self, index: int) -> int | None:
        """The row of a layer, None when it is not shown."""
        row = int(self._row_of[index]) if index < len(self._row_of) else -1
        return row if row >= 0 else None

    def group_of(self, row: int) -> int:
        """The block that a row belongs to."""
        index = int(self._rows[row])
        return -1 - index if index < 0 else int(self.store.group[index])

    def is_head(self, row: int) -> bool:
        """True for a row that heads a block."""
        return bool(self._rows[row] < 0)

    def is_folded(self, group: int) -> bool:
        """True when the layers of a block are hidden."""
        return group in self._folded

    def head_row(self, group: int) -> int:
        """The row that heads a block."""
        return max(int(self._head_of[group]), 0)

    @property
    def visible(self) -> list[int]:
        """The layers that pass the filter, in the order of the checkpoint, folded ones too."""
        return list(map(int, self._visible))

    def touch(self, indices: Collection[int], first: int, last: int) -> None:
        """Tell the view that layers changed, for those among rows `first` .. `last`, and the heads above."""
        wanted = {-1 - int(self.store.group[index]) for index in indices}.union(indices)
        rows = [row for row in range(first, min(last + 1, len(self._rows))) if int(self._rows[row]) in wanted]
        if rows:
            low, high = rows[0], rows[-1]
            self.dataChanged.emit(self.index(low, 0), self.index(high, len(COLUMNS) - 1))

    def touch_all(self) -> None:
        """Tell the view that everything may look different."""
        if len(self._rows):
            self.dataChanged.emit(self.index(0, 0), self.index(len(self._rows) - 1, len(COLUMNS) - 1))

    # what Qt asks

    def rowCount(self, parent: Index = _NOWHERE) -> int:
        """Number of rows."""
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: Index = _NOWHERE) -> int:
        """Number of columns."""
        return 0 if parent.isValid() else len(COLUMNS)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Titles of the columns, with what they mean as a tooltip."""
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(COLUMNS):
            return None
        column = COLUMNS[section]
        if role == Qt.ItemDataRole.DisplayRole:
            sign = "" if section != self.sort_column else (" ▾" if self.descending else " ▴")
            return column.title + sign
        if role == Qt.ItemDataRole.ToolTipRole:
            return column.help
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return RIGHT if column.right else LEFT
        return None

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """What a cell shows."""
        if not index.isValid() or not 0 <= index.row() < len(self._rows):
            return None
        layer, column = int(self._rows[index.row()]), COLUMNS[index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return self._head_text(-1 - layer, column.key) if layer < 0 else self._text(layer, column)
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return RIGHT if column.right else LEFT
        if layer < 0:
            return None
        if role == Qt.ItemDataRole.ToolTipRole:
            return tip(self._about(layer, column.key))
        if role == Qt.ItemDataRole.AccessibleDescriptionRole:
            return self._about(layer, column.key)
        return None

    def _text(self, layer: int, column: Column) -> str:
        if column.key == "name":
            whole = self.sort_column >= 0
            return (
                core.printable(self.store.names[layer]) if whole else "     " + core.printable(self.store.titles[layer])
            )
        if column.key == "err" and self.store.rel_err[layer] > self._document.warning_line:
            return "▲ " + column.cell(self.store, layer)
        return column.cell(self.store, layer)

    def _head_text(self, group: int, key: str) -> str:
        store = self.store
        members = self._members[group]
        if key == "name":
            return f"{'▸' if group in self._folded else '▾'} {core.printable(store.group_names[group])}"
        if key == "shape":
            return f"{len(members)} layers" if len(members) != 1 else "1 layer"
        if key == "params":
            return _count(int(store.counts[members].sum()))
        if key == "size":
            return core.size_text(int(store.nbytes_out[members].sum()))
        if key == "format":
            used = {store.formats[i] for i in members.tolist()} - {core.KEEP} or {core.KEEP}
            return used.pop() if len(used) == 1 else "mixed"
        if key in ("err", "peak"):
            known = (store.rel_err if key == "err" else store.peak)[members]
            known = known[~np.isnan(known)]
            return f"≤ {known.max():.{4 if key == 'err' else 1}f}" if len(known) else ""
        return self._head_status(store.state[members]) if key == "status" else ""

    def _head_status(self, states: NDArray[np.int8]) -> str:
        if failed := int((states == FAILED).sum()):
            return f"{SIGNS[FAILED]} {failed} failed"
        chosen = int((states != KEPT).sum())
        return f"{int((states == DONE).sum())}/{chosen} done" if chosen else f"{SIGNS[KEPT]} kept"

    def cell(self, row: int, column: int) -> tuple[str, QColor | None, int]:
        """Text, colour (None for that of text) and look (`PLAIN`, `BOLD`, `STRUCK`) of a cell, for painting."""
        layer, found = int(self._rows[row]), COLUMNS[column]
        if layer < 0:
            return self._head_text(-1 - layer, found.key), self._muted if column else None, BOLD
        struck = found.key in _MEASURED and self.store.state[layer] == STALE
        return self._text(layer, found), self._ink(layer, found.key), STRUCK if struck else PLAIN

    def bar_of(self, row: int) -> float:
        """Length of the bar below an error, 1 for twice the warning line; NaN without one."""
        return float(self.store.rel_err[int(self._rows[row])]) / (2 * self._document.warning_line or 1.0)

    def _ink(self, layer: int, key: str) -> QColor | None:
        if key == "name":
            return None
        state = int(self.store.state[layer])
        if key == "format":
            return self._format_inks.get(self.store.formats[layer], self._muted)
        if key == "status":
            return self._state_inks.get(state, self._muted)
        if key == "err" and state != STALE and self.store.rel_err[layer] > self._document.warning_line:
            return self._state_inks[STALE]
        return self._muted if state in (KEPT, STALE) else None

    def _about(self, layer: int, key: str) -> str:
        store = self.store
        name = core.printable(store.names[layer])
        state = int(store.state[layer])
        about = store.problems.get(layer) or (store.reasons[layer] if state == KEPT else "") or STATE_HELP[state]
        lines = [name, f"{store.shapes[layer]}  {store.dtypes[layer]}  {store.roles[layer]}"]
        if key == "err" and not math.isnan(store.rel_err[layer]):
            line = self._document.warning_line
            lines.append(
                f"relative error {store.rel_err[layer]:.5f}, warning line {line:.4f}, SNR {store.snr[layer]:.1f} dB"
            )
        return "\n".join([*lines, about])
