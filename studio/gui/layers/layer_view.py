"""LayerView: the table of layers on the screen: widths, folding, and one selection kept by layer, not by row."""

from collections.abc import Mapping

import numpy as np
from PySide6.QtCore import QItemSelection, QItemSelectionModel, QModelIndex, QPoint, Qt, QTimer, Signal
from PySide6.QtGui import QColor, QKeyEvent, QMouseEvent, QPaintEvent, QPalette, QResizeEvent
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QMenu, QTableView, QWidget

from studio.gui.layers.choices import Indices
from studio.gui.layers.columns import COLUMNS, KEYS
from studio.gui.layers.document import Document
from studio.gui.layers.layer_delegate import LayerDelegate
from studio.gui.layers.layer_filter import Filter
from studio.gui.layers.layer_table import LayerTable
from studio.gui.shell.settings import Settings
from studio.gui.shell.text import draw_empty
from studio.gui.shell.theme import Theme

ROOMY_COLUMN = KEYS.index("shape")
_SELECT = QItemSelectionModel.SelectionFlag
_MORE_THAN_FITS = 40
SHORTEST_NAME = 0.6
YIELDING = (
    ("method", 0.65),
    ("dtype", 0.65),
    ("peak", 0.75),
    ("expert", 1.0),
    ("block", 1.0),
    ("shape", 1.0),
    ("bits", 1.0),
)
"""Columns shown where that leaves so much of its width to the name, the first ones first, unless the user chose."""
PLACES = ("block", "expert")
"""What tells layers apart that stand under no head: always there when the table is sorted."""
NO_ROWS = "No layer passes the filter.\nEsc shows all layers again."
NO_LAYERS = "This checkpoint holds no weights."
TOUCH_MS = 100


class LayerView(QTableView):
    """The table. A selected row that heads a section stands for the layers of it that pass the filter.

    Signals:
        activated_layer(str): Enter or a double click on a layer.
        filtered(int): another number of layers passes the filter.
        menu_wanted(QPoint): a context menu is asked for at a place on the screen.
    """

    activated_layer = Signal(str)
    filtered = Signal(int)
    menu_wanted = Signal(QPoint)

    def __init__(self, document: Document, settings: Settings, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document, self._settings = document, settings
        self.table = LayerTable(document, self)
        self._delegate = LayerDelegate(self.table, self)
        self._following = False
        self._said: dict[int, bool] = {}
        self._widths = [0] * len(COLUMNS)
        self._touched: list[Indices] = []
        self._touch_timer = QTimer(self, singleShot=True, interval=TOUCH_MS)
        self._touch_timer.timeout.connect(self._touch)
        self.setItemDelegate(self._delegate)
        self.setModel(self.table)
        self._set_up()
        self.selectionModel().selectionChanged.connect(self._tell_selection)
        self.table.modelReset.connect(self._show_rows)
        document.selected.connect(self.follow)
        document.chosen.connect(self.touch)
        document.measured.connect(self.touch)
        document.proposed.connect(self._touch_shown)
        document.opened.connect(self._touch_timer.stop)
        document.opened.connect(self._forget_touched)
        self.doubleClicked.connect(self._activate)
        settings.changed.connect(self._setting_changed)

    def _set_up(self) -> None:
        self.setAccessibleName("Layers")
        self.setAccessibleDescription("Every layer of the checkpoint with its format, size, error and state")
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setTextElideMode(Qt.TextElideMode.ElideLeft)
        self.setTabKeyNavigation(False)
        self.setCornerButtonEnabled(False)
        self.verticalHeader().hide()
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        head = self.horizontalHeader()
        head.setSectionsClickable(True)
        head.setSectionsMovable(True)
        head.setHighlightSections(False)
        head.setMinimumSectionSize(40)
        none_selected = QItemSelectionModel(self.table, head)  # else the head asks every row what is selected
        head.setSelectionModel(none_selected)
        head.sectionClicked.connect(self._sort)
        head.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        head.customContextMenuRequested.connect(self._offer_columns)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.customContextMenuRequested.connect(lambda at: self.menu_wanted.emit(self.viewport().mapToGlobal(at)))

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours and another size of text."""
        self._delegate.set_theme(theme)
        chosen = self.palette()
        chosen.setColor(QPalette.ColorRole.HighlightedText, QColor(theme.selected_text))
        self.setPalette(chosen)
        self._set_row_height(theme.font_px)
        wide = self.fontMetrics().horizontalAdvance("0")
        self._widths = [
            round(column.width * wide * theme.font_px / max(self.font().pixelSize(), 1)) + 14 for column in COLUMNS
        ]
        for number, width in enumerate(self._widths):
            self.setColumnWidth(number, width)
        self._fill_width()
        self.table.set_theme(theme)

    def _forget_touched(self) -> None:
        self._touched.clear()

    def _fill_width(self) -> None:
        """Show the columns that there is room for, and give names what is left."""
        numbers = [KEYS.index(key) for key, _ in YIELDING]
        shown = (n for n in range(1, len(COLUMNS)) if n not in numbers and not self.isColumnHidden(n))
        room = self.viewport().width() - sum(self.columnWidth(number) for number in shown)
        for key, least in sorted(YIELDING, key=lambda column: not self._needed(column[0])):
            number = KEYS.index(key)
            width = self.columnWidth(number) or self._widths[number]
            fits = self._has(key) and (self._needed(key) or room - width >= least * self._widths[0])
            self.setColumnHidden(number, not self._said.get(number, fits))
            room -= 0 if self.isColumnHidden(number) else width
        self.setColumnWidth(0, max(room, round(SHORTEST_NAME * self._widths[0])))

    def _needed(self, key: str) -> bool:
        if key in PLACES:
            return self.table.sort_column >= 0
        return (key == "shape" and self.table.by_kind) or (key == "dtype" and self._has(key))

    def _has(self, key: str) -> bool:
        """Whether the rows have something for a column: codes that are stored, a block that a kind has not."""
        if key == "dtype":
            return self._document.model is not None and not self._document.exported and self._document.store.in_codes
        if key not in PLACES:
            return True
        if self.table.by_kind and not self._needed(key):
            return False
        values = COLUMNS[KEYS.index(key)].values
        return self._document.model is not None and bool((np.asarray(values(self._document.store)) >= 0).any())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Fill the width again."""
        super().resizeEvent(event)
        self._fill_width()

    def _set_row_height(self, font_px: int) -> None:
        self.verticalHeader().setDefaultSectionSize(font_px + (5 if self._settings["compact"] else 10))

    def _setting_changed(self, key: str) -> None:
        if key == "compact":
            self._set_row_height(self._delegate.theme.font_px)

    def hide_extra_columns(self) -> None:
        """Hide the columns that most people do not need; others come where there is room."""
        self._said.clear()
        for number, column in enumerate(COLUMNS):
            self.setColumnHidden(number, column.hidden)
        self._fill_width()

    def reset_columns(self) -> None:
        """Columns, their order and their widths as they were at first."""
        head = self.horizontalHeader()
        for number, width in enumerate(self._widths):
            head.moveSection(head.visualIndex(number), number)
            self.setColumnWidth(number, width)
        self.hide_extra_columns()

    @property
    def said_columns(self) -> dict[str, bool]:
        """Columns that the user showed (True) or hid (False); the others come where there is room."""
        return {KEYS[number]: shown for number, shown in self._said.items()}

    def say_columns(self, said: Mapping[str, bool]) -> None:
        """Show and hide columns as `said_columns` gave."""
        self.hide_extra_columns()
        for key, shown in said.items():
            self._show_column(KEYS.index(key), shown)

    @property
    def has_layers(self) -> bool:
        """True when a checkpoint is open."""
        return self._document.model is not None

    def _offer_columns(self, at: QPoint) -> None:
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        for number, column in enumerate(COLUMNS[1:], 1):
            action = menu.addAction(column.title.replace("&", "&&"))
            action.setCheckable(True)
            action.setChecked(not self.isColumnHidden(number))
            action.toggled.connect(lambda shown, number=number: self._show_column(number, shown))
        menu.popup(self.horizontalHeader().mapToGlobal(at))

    def _show_column(self, number: int, shown: bool) -> None:
        self._said[number] = shown
        self.setColumnHidden(number, not shown)
        self._fill_width()

    def paintEvent(self, event: QPaintEvent) -> None:
        """The rows, or why there are none."""
        super().paintEvent(event)
        if self._document.model is not None and not self.table.rowCount():
            draw_empty(self.viewport(), NO_ROWS if len(self._document.store) else NO_LAYERS, self._delegate.theme.muted)

    # order, filter, folds

    def divide_by_kind(self, by_kind: bool) -> None:
        """A line for each kind of layer instead of each block, or back."""
        self.table.divide_by_kind(by_kind)
        self.horizontalHeader().viewport().update()

    def _sort(self, column: int) -> None:
        self.table.sort_by(column)
        self._fill_width()
        self.horizontalHeader().viewport().update()

    def set_filter(self, wanted: Filter) -> None:
        """Show the layers that pass."""
        self.table.set_filter(wanted)
        self.filtered.emit(len(self.table.visible))

    def fold(self, folded: bool, everywhere: bool = False) -> None:
        """Fold or unfold the section of the current row, or where it is folded the one around it; or all."""
        table = self.table
        if table.sort_column >= 0 or not table.rowCount():
            return
        row = max(self.currentIndex().row(), 0)
        group = table.group_of(min(row, table.rowCount() - 1))
        if folded and table.is_folded(group):
            group = int(table.sections.outer[group])
        table.fold(range(len(table.sections)) if everywhere else [group], folded)
        head = table.index(table.head_row(group), 0)
        self.selectionModel().setCurrentIndex(head, _SELECT.NoUpdate)
        self.scrollTo(head)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """A click on the triangle of a section folds it; anything else selects."""
        index = self.indexAt(event.position().toPoint())
        on_head = index.isValid() and index.column() == 0 and self.table.is_head(index.row())
        if on_head and event.position().x() - self.columnViewportPosition(0) < self._triangle_end(index.row()):
            group = self.table.group_of(index.row())
            self.table.fold([group], not self.table.is_folded(group))
            return
        super().mousePressEvent(event)

    def _triangle_end(self, row: int) -> int:
        name = str(self.table.index(row, 0).data())
        indent = name[: len(name) - len(name.lstrip())]
        return self.fontMetrics().horizontalAdvance(indent) + 2 * self._delegate.theme.font_px

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Left and right fold blocks, with Shift all; Enter opens the layer. Letters stay free for actions."""
        key = event.key()
        everywhere = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
        if key in (Qt.Key.Key_Left, Qt.Key.Key_Right):
            self.fold(key == Qt.Key.Key_Left, everywhere)
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and not event.modifiers():
            self._activate(self.currentIndex())
        elif event.text().isprintable() and event.text() and not event.modifiers() & ~Qt.KeyboardModifier.ShiftModifier:
            event.ignore()
        else:
            super().keyPressEvent(event)

    def _activate(self, index: QModelIndex) -> None:
        if not index.isValid():
            return
        if self.table.is_head(index.row()):
            group = self.table.group_of(index.row())
            self.table.fold([group], not self.table.is_folded(group))
            return
        self.activated_layer.emit(self.table.store.names[self.table.layers_of(index.row())[0]])

    # selection

    def _tell_selection(self, _chosen: QItemSelection, left: QItemSelection) -> None:
        if self._following:
            return
        table, rows = self.table, _rows_in(self.selectionModel().selection())
        found = table.layers_at(rows)
        gone = _rows_in(left)
        heads = table.heads_among(gone)
        if heads.all() or not heads.any():  # one row was taken out, rather than all for another
            found = found[~np.isin(found, table.layers_at(gone))]
        self._following = True
        self._document.select_at(self._current_last(found))
        if table.heads_among(rows).any() or heads.any():
            self._select_rows(table.rows_at(self._document.selected_indices))
        self._following = False

    def _current_last(self, layers: Indices) -> Indices:
        row = self.currentIndex().row()
        if not 0 <= row < self.table.rowCount() or self.table.is_head(row):
            return layers
        current = self.table.layers_of(row)[0]
        others = layers[layers != current]
        return layers if len(others) == len(layers) else np.append(others, current)

    def follow(self, layers: Indices) -> None:
        """Select the rows of layers, without telling anyone; scroll to the last, and unfold what hides it."""
        if self._following:
            return
        if len(layers) == 1:
            self.table.reveal(int(layers[0]))
        self._select(layers)

    def _select(self, layers: Indices) -> None:
        current = self.table.row_of(int(layers[-1])) if len(layers) else None
        self._following = True
        self._select_rows(self.table.rows_at(layers))
        if current is not None:
            self.selectionModel().setCurrentIndex(self.table.index(current, 0), _SELECT.NoUpdate)
            self.scrollTo(self.table.index(current, 0))
        self._following = False

    def _select_rows(self, rows: Indices) -> None:
        """Select rows by ranges; from nothing, as Qt compares each new range with each old one."""
        chosen = QItemSelection()
        edges = np.flatnonzero(np.diff(rows) != 1)
        firsts, lasts = np.append(rows[:1], rows[edges + 1]), np.append(rows[edges], rows[-1:])
        for first, end in zip(firsts.tolist(), lasts.tolist(), strict=True):
            chosen.append(self.table.range_of(first, end))
        self.selectionModel().clearSelection()
        self.selectionModel().select(chosen, _SELECT.Select)

    def _show_rows(self) -> None:
        """Other rows: other columns may be needed, and the selection is elsewhere."""
        if self._document.model is not None:
            self._fill_width()
            self._select(self._document.selected_indices)

    # changes

    def touch(self, indices: Indices) -> None:
        """Draw changed layers again soon, at most ten times a second."""
        self._touched.append(indices)
        if not self._touch_timer.isActive():
            self._touch_timer.start()

    def _touch(self) -> None:
        touched, self._touched = self._touched, []
        if self._document.model is None or not touched:
            return
        self.table.touch(np.concatenate(touched), *self._rows_in_sight())

    def _touch_shown(self) -> None:
        """Draw what is in sight again now."""
        if self._document.model is not None:
            self.table.touch_rows(*self._rows_in_sight())

    def _rows_in_sight(self) -> tuple[int, int]:
        first = max(self.rowAt(0), 0)
        last = self.rowAt(self.viewport().height() - 1)
        return first, last if last >= 0 else first + _MORE_THAN_FITS


def _rows_in(selection: QItemSelection) -> Indices:
    """The rows of a selection, from above, each once."""
    spans = [np.arange(part.top(), part.bottom() + 1) for part in selection.toList()]
    return np.unique(np.concatenate(spans)) if spans else np.zeros(0, np.int64)
