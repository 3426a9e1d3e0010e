"""LayerTable: the layers as a flat item model with rows that head blocks and experts; what is shown is index arrays."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QAbstractTableModel, QItemSelectionRange, QModelIndex, QObject, QPersistentModelIndex, Qt
from PySide6.QtGui import QColor

from studio import core
from studio.gui.layers.choices import Indices
from studio.gui.layers.columns import COLUMNS, Column, bits_of
from studio.gui.layers.document import Document
from studio.gui.layers.layer_filter import Filter
from studio.gui.layers.rows import Folds, Rows
from studio.gui.layers.sections import Sections
from studio.gui.layers.store import (
    DONE,
    FAILED,
    KEPT,
    PINNED,
    PROPOSED,
    RUNNING,
    STALE,
    STATE_HELP,
    LayerStore,
)
from studio.gui.shell.text import tip
from studio.gui.shell.theme import LIGHT, Theme

Index = QModelIndex | QPersistentModelIndex
PLAIN, BOLD, STRUCK = range(3)
INDENT = "     "
LEFT = int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
RIGHT = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
_MEASURED = ("err", "snr", "lost", "gone")
_NOWHERE = QModelIndex()
OF_WEIGHTS = "This is the error of weights: methods that look at inputs let it rise so that outputs lose less."


class LayerTable(QAbstractTableModel):
    """A row is a layer, or heads a section: a block, an expert of it, or, divided by kind, all layers of one kind.

    Sorted, the rows are layers alone; in their own order they stand below their section, which can be folded.
    """

    def __init__(self, document: Document, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self._filter = Filter()
        self.sort_column, self.descending = -1, True
        self.by_kind = False
        self._numbers: Indices = np.zeros(0, np.int64)
        self._take_colors(LIGHT)
        document.opened.connect(self.reload)

    @property
    def store(self) -> LayerStore:
        """The layers shown."""
        return self._document.store

    @property
    def shown(self) -> LayerStore:
        """The same layers, with what is proposed for them where something is."""
        return self._document.looked_at

    @property
    def sections(self) -> Sections:
        """How the layers are divided now."""
        return self.store.kind_sections if self.by_kind else self.store.sections

    # what is shown

    def reload(self) -> None:
        """Show another checkpoint, in its own order, experts folded."""
        self.sort_column, self.by_kind = -1, False
        if self._document.model is not None:
            self._folds = Folds(self.sections)
        self.rearrange()

    def divide_by_kind(self, by_kind: bool) -> None:
        """Put layers of one kind together, each kind folded to a line; or block by block again."""
        self.by_kind, self.sort_column = by_kind, -1
        self._folds = Folds(self.sections)
        if by_kind:
            self._folds.set(range(len(self.sections)), folded=True)
        self.rearrange()

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours."""
        self._take_colors(theme)
        self.touch_all()

    def _take_colors(self, theme: Theme) -> None:
        self._muted = QColor(theme.muted)
        self._format_inks = {name: QColor(color) for name, color in theme.formats.items()}
        tones = {DONE: theme.good, FAILED: theme.error, STALE: theme.warning}
        tones |= dict.fromkeys((RUNNING, PROPOSED, PINNED), theme.accent)
        self._state_inks = {state: QColor(color) for state, color in tones.items()}

    def set_filter(self, wanted: Filter) -> None:
        """Show the layers that pass."""
        self._filter = wanted
        self.rearrange()

    def sort_by(self, column: int) -> None:
        """First the largest on top, or the first of names and places; then the other way; then in their own order."""
        descending = not COLUMNS[column].ascending
        if column != self.sort_column:
            self.sort_column, self.descending = column, descending
        elif self.descending == descending:
            self.descending = not descending
        else:
            self.sort_column = -1
        self.rearrange()

    def fold(self, sections: Iterable[int], folded: bool) -> None:
        """Hide or show the layers of sections."""
        self._folds.set(sections, folded)
        self.rearrange()

    @property
    def said_folds(self) -> tuple[Indices, Indices]:
        """The sections that the user folded, and those that the user unfolded; the others fold by themselves."""
        return self._folds.said

    def reveal(self, index: int) -> None:
        """Unfold what hides a layer that passes the filter."""
        section = int(self.sections.of[index])
        if self.sort_column < 0 and self.row_of(index) is None and index in self._rows.members(section):
            self.fold((section, int(self.sections.outer[section])), folded=False)

    def rearrange(self) -> None:
        """Work out the rows again: filter, order, folds."""
        self.beginResetModel()
        passed = None
        self._numbers = np.zeros(0, np.int64)
        if self._document.model is not None:
            passed = self._filter.mask(self.store)
            self._rows = Rows(self.store, self.sections, passed)
            self._place()
        self.endResetModel()
        if passed is not None:
            self._document.show_only(passed)

    def _place(self) -> None:
        self._folds.set_filtered(bool(self._filter.terms))
        self._folded = self._folds.mask()
        if self.sort_column >= 0:
            self._rows.sort(self.sort_column, self.descending)
        else:
            self._rows.divide(self._folded)
        self._numbers = self._rows.numbers

    # between rows and layers

    def layers_of(self, row: int) -> list[int]:
        """The layer of a row; for the row that heads a section its layers that pass the filter."""
        found: list[int] = self.layers_at(np.array([row])).tolist()
        return found

    def layers_at(self, rows: Indices) -> Indices:
        """The layers of rows, and those that heads among them stand for."""
        return self._rows.layers_at(rows)

    def rows_at(self, layers: Indices) -> Indices:
        """The rows of layers, from above, and of the heads all of whose layers are among them."""
        return self._rows.rows_at(layers)

    def row_of(self, index: int) -> int | None:
        """The row of a layer, None when it is not shown."""
        return self._rows.row_of(index)

    def group_of(self, row: int) -> int:
        """The innermost section with a head that a row belongs to."""
        number = int(self._numbers[row])
        section = -1 - number if number < 0 else int(self.sections.of[number])
        return int(self.sections.outer[section]) if self._rows.alone[section] else section

    def is_head(self, row: int) -> bool:
        """True for a row that heads a section."""
        return bool(self._numbers[row] < 0)

    def heads_among(self, rows: Indices) -> NDArray[np.bool_]:
        """Which of the rows head a section."""
        heads: NDArray[np.bool_] = self._numbers[rows] < 0
        return heads

    def is_folded(self, section: int) -> bool:
        """True when the layers of a section are hidden."""
        return bool(self._folded[section])

    def head_row(self, section: int) -> int:
        """The row that heads a section."""
        return self._rows.head_of(section)

    @property
    def visible(self) -> Indices:
        """The layers that pass the filter, in the order of the sections, folded ones too."""
        return self._rows.visible

    @property
    def listed(self) -> Indices:
        """The layers that pass the filter, in the order of the rows."""
        return self._numbers if self.sort_column >= 0 else self._rows.visible

    def range_of(self, first: int, last: int) -> QItemSelectionRange:
        """Rows that are there, for Qt's selection; `index` would ask for their number each time."""
        return QItemSelectionRange(self.createIndex(first, 0), self.createIndex(last, len(COLUMNS) - 1))

    def touch(self, indices: Indices, first: int, last: int) -> None:
        """Tell the view that layers changed, for those among rows `first` .. `last`, and the heads above."""
        shown = self._numbers[first : last + 1]
        touched = np.isin(shown, indices) | (shown < 0)
        rows = first + np.flatnonzero(touched)
        if len(rows):
            low, high = int(rows[0]), int(rows[-1])
            self.dataChanged.emit(self.index(low, 0), self.index(high, len(COLUMNS) - 1))

    def touch_rows(self, first: int, last: int) -> None:
        """Tell the view that rows look different."""
        last = min(last, len(self._numbers) - 1)
        if first <= last:
            self.dataChanged.emit(self.index(first, 0), self.index(last, len(COLUMNS) - 1))

    def touch_all(self) -> None:
        """Tell the view that everything may look different."""
        self.touch_rows(0, len(self._numbers) - 1)

    # what Qt asks

    def rowCount(self, parent: Index = _NOWHERE) -> int:
        """Number of rows."""
        return 0 if parent.isValid() else len(self._numbers)

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
        if not index.isValid() or not 0 <= index.row() < len(self._numbers):
            return None
        number, column = int(self._numbers[index.row()]), COLUMNS[index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return self._head_text(-1 - number, column) if number < 0 else self._text(number, column)
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return RIGHT if column.right else LEFT
        if role in (Qt.ItemDataRole.ToolTipRole, Qt.ItemDataRole.AccessibleDescriptionRole):
            about = self.summary_of(-1 - number) if number < 0 else self._about(number, column.key)
            return tip(about) if role == Qt.ItemDataRole.ToolTipRole else about
        return None

    def _text(self, layer: int, column: Column) -> str:
        if column.key == "name":
            return self._name(layer)
        if column.key == "err" and self.shown.rel_err[layer] > self._document.warning_line:
            return "▲ " + column.cell(self.shown, layer)
        return column.cell(self.shown, layer)

    def _name(self, layer: int) -> str:
        if self.sort_column >= 0:
            return core.printable_end(self.store.names[layer])
        sections = self.sections
        section, title = int(sections.of[layer]), sections.titles[layer]
        if self._rows.alone[section]:
            return INDENT + core.printable_end(f"{sections.names[section]}.{title}")
        depth = 1 if sections.outer[section] == section else 2
        return depth * INDENT + core.printable_end(title)

    def _head_text(self, section: int, column: Column) -> str:
        if column.key == "name":
            return self._head_name(section)
        return column.head(self.shown, self._rows.members(section))

    def _head_name(self, section: int) -> str:
        depth = 1 if self.sections.outer[section] != section else 0
        sign = "▸" if self._folded[section] else "▾"
        return f"{depth * INDENT}{sign} {core.printable_end(self.sections.names[section])}"

    def summary_of(self, section: int) -> str:
        """The layers of a section that pass the filter, in a few lines."""
        store, members = self.shown, self._rows.members(section)
        size = core.size_text(int(store.nbytes_out[members].sum()))
        lines = [
            f"{core.printable(self.sections.names[section])}: {core.counted(len(members), 'layer')}",
            f"{size}, {bits_of(store, members):.2f} bits per weight",
        ]
        known = members[~np.isnan(store.rel_err[members])]
        if len(known):
            worst = int(known[np.argmax(store.rel_err[known])])
            squares = float(store.squares[members].sum())
            whole = f"{math.sqrt(store.errors[members].sum() / squares):.4f} together, " if squares else ""
            lines.append(f"relative error {whole}worst {store.rel_err[worst]:.4f}")
            lines.append(f"the worst is {core.printable(store.names[worst])}")
        kept = int((store.state[members] == KEPT).sum())
        return "\n".join([*lines, *([f"{core.counted(kept, 'layer')} kept"] if kept else [])])

    def cell(self, row: int, column: int) -> tuple[str, QColor | None, int]:
        """Text, colour (None for that of text) and look (`PLAIN`, `BOLD`, `STRUCK`) of a cell, for painting."""
        layer, found = int(self._numbers[row]), COLUMNS[column]
        if layer < 0:
            return self._head_text(-1 - layer, found), self._muted if column else None, BOLD
        struck = found.key in _MEASURED and self.shown.state[layer] == STALE
        return self._text(layer, found), self._ink(layer, found.key), STRUCK if struck else PLAIN

    def bar_of(self, row: int) -> float:
        """Length of the bar below an error, 1 for twice the warning line; NaN without one."""
        return float(self.shown.rel_err[int(self._numbers[row])]) / (2 * self._document.warning_line or 1.0)

    def _ink(self, layer: int, key: str) -> QColor | None:
        if key == "name":
            return None
        state = int(self.shown.state[layer])
        if key == "format":
            return self._format_inks.get(self.shown.format_of(layer), self._muted)
        if key == "status":
            return self._state_inks.get(state, self._muted)
        if key == "err" and state != STALE and self.shown.rel_err[layer] > self._document.warning_line:
            return self._state_inks[STALE]
        return self._muted if state in (KEPT, STALE) else None

    def _about(self, layer: int, key: str) -> str:
        store = self.shown
        name = core.printable(store.names[layer])
        state = int(store.state[layer])
        about = store.problems.get(layer) or (store.reason_of(layer) if state == KEPT else "") or STATE_HELP[state]
        lines = [name, f"{store.shapes[layer]}  {store.dtypes[layer]}  {store.roles[layer]}"]
        if state == PROPOSED:
            now = core.choice_text(self.store.format_of(layer), self.store.method_of(layer))
            return "\n".join([*lines, f"now {now}", about])
        if key == "method" and state != KEPT:
            return "\n".join([*lines, *self._document.method_lines(layer)])
        if key == "err" and not math.isnan(store.rel_err[layer]):
            line = self._document.warning_line
            lines.append(
                f"relative error {store.rel_err[layer]:.5f}, warning line {line:.4f}, SNR {store.snr[layer]:.1f} dB"
            )
            if state == DONE and core.method_of(store.method_of(layer)).needs:
                lines.append(OF_WEIGHTS)
        return "\n".join([*lines, about])
