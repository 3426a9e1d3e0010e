"""LayerView: the table of layers on the screen: cells, folding, and one selection kept as names."""

from collections.abc import Collection

from PySide6.QtCore import (
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    QPersistentModelIndex,
    QPoint,
    QRect,
    Qt,
    QTimer,
    Signal,
)
from PySide6.QtGui import (
    QColor,
    QFont,
    QFontMetrics,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPalette,
    QPen,
    QResizeEvent,
)
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QMenu,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
    QWidget,
)

from studio.gui.layers.document import Document
from studio.gui.layers.layer_filter import Filter
from studio.gui.layers.layer_table import BOLD, COLUMNS, KEYS, LEFT, RIGHT, STRUCK, LayerTable
from studio.gui.shell.settings import Settings
from studio.gui.shell.theme import LIGHT, Theme

ERROR_COLUMN = KEYS.index("err")
ROOMY_COLUMN = KEYS.index("shape")
"""Shown where there is room for it, unless the user said otherwise."""
_SELECT = QItemSelectionModel.SelectionFlag
_MORE_THAN_FITS = 40
SHORTEST_NAME = 0.75
NO_ROWS = "No layer passes the filter.\nEsc shows all layers again."
TOUCH_MS = 100


class LayerDelegate(QStyledItemDelegate):
    """Draws a cell straight from the table: Qt's own way asks the model seven times per cell, five times as slow."""

    def __init__(self, table: LayerTable, parent: QWidget) -> None:
        super().__init__(parent)
        self._table = table
        self.set_theme(LIGHT)

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours and another size of text."""
        self.theme = theme
        self._grounds = QColor(theme.selection), QColor(theme.raised)
        self._selected_ink, self._ink = QColor(theme.selected_text), QColor(theme.text)
        self._fonts = QFont(), QFont(), QFont()
        for font in self._fonts:
            font.setPixelSize(theme.font_px)
        self._fonts[BOLD].setBold(True)
        self._fonts[STRUCK].setStrikeOut(True)
        self._metrics = [QFontMetrics(font) for font in self._fonts]

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        """Ground, text, and below an error its bar."""
        row, column = index.row(), index.column()
        text, ink, look = self._table.cell(row, column)
        rect = option.rect
        selected = bool(option.state & QStyle.StateFlag.State_Selected)
        if selected or look == BOLD:
            painter.fillRect(rect, self._grounds[0 if selected else 1])
        if not text:
            return
        painter.setPen(self._selected_ink if selected else (ink or self._ink))
        painter.setFont(self._fonts[look])
        room = rect.adjusted(6, 0, -6, 0)
        if COLUMNS[column].long:
            text = self._metrics[look].elidedText(text, Qt.TextElideMode.ElideMiddle, room.width())
        painter.drawText(room, RIGHT if COLUMNS[column].right else LEFT, text)
        if column == ERROR_COLUMN and look != BOLD:
            self._bar(painter, rect, self._table.bar_of(row))

    def _bar(self, painter: QPainter, cell: QRect, length: float) -> None:
        if length != length:  # NaN
            return
        room = cell.width() - 12
        bar = QRect(cell.left() + 6, cell.bottom() - 3, max(int(room * min(length, 1.0)), 2), 3)
        ink = self.theme.good if length <= 0.5 else (self.theme.warning if length <= 1 else self.theme.error)
        painter.fillRect(bar, QColor(ink))
        painter.setPen(QPen(QColor(self.theme.muted)))
        painter.drawLine(cell.left() + 6 + room // 2, cell.bottom() - 4, cell.left() + 6 + room // 2, cell.bottom())


class LayerView(QTableView):
    """The table. A selected row that heads a block stands for the layers of it that are shown.

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
        self._roomy = True
        self._widths = [0] * len(COLUMNS)
        self._touched: set[int] = set()
        self._touch_timer = QTimer(self, singleShot=True, interval=TOUCH_MS)
        self._touch_timer.timeout.connect(self._touch)
        self.setItemDelegate(self._delegate)
        self.setModel(self.table)
        self._set_up()
        self.selectionModel().selectionChanged.connect(self._tell_selection)
        self.table.modelReset.connect(self._select_again)
        document.selected.connect(self.follow)
        document.chosen.connect(self.touch)
        document.measured.connect(self.touch)
        document.opened.connect(self._touch_timer.stop)
        document.opened.connect(lambda: self._touched.clear())
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
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setTabKeyNavigation(False)
        self.setCornerButtonEnabled(False)
        self.verticalHeader().hide()
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        head = self.horizontalHeader()
        head.setSectionsClickable(True)
        head.setSectionsMovable(True)
        head.setHighlightSections(False)
        head.setMinimumSectionSize(40)
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

    def _fill_width(self) -> None:
        """Give names the room that is left, unless the user made the columns wider."""
        shown = [n for n in range(1, len(COLUMNS)) if n != ROOMY_COLUMN and not self.isColumnHidden(n)]
        room = self.viewport().width() - sum(self.columnWidth(number) for number in shown)
        if self._roomy:
            self.setColumnHidden(ROOMY_COLUMN, room - self._widths[ROOMY_COLUMN] < self._widths[0])
        if not self.isColumnHidden(ROOMY_COLUMN):
            room -= self.columnWidth(ROOMY_COLUMN)
        self.setColumnWidth(0, max(room, round(SHORTEST_NAME * self._widths[0])))

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
        """Hide the columns that most people do not need."""
        for number, column in enumerate(COLUMNS):
            self.setColumnHidden(number, column.hidden)

    def reset_columns(self) -> None:
        """Columns, their order and their widths as they were at first."""
        head = self.horizontalHeader()
        for number, width in enumerate(self._widths):
            head.moveSection(head.visualIndex(number), number)
            self.setColumnWidth(number, width)
        self._roomy = True
        self.hide_extra_columns()
        self._fill_width()

    def show_columns(self, keys: Collection[str], *, automatic: bool) -> None:
        """Show these columns; with `automatic` the shapes come and go with the room that there is."""
        self._roomy = automatic
        for number, key in enumerate(KEYS):
            self.setColumnHidden(number, key not in keys)
        self._fill_width()

    @property
    def is_roomy(self) -> bool:
        """True while the shapes come and go with the room that there is."""
        return self._roomy

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
        self._roomy = self._roomy and number != ROOMY_COLUMN
        self.setColumnHidden(number, not shown)
        self._fill_width()

    def paintEvent(self, event: QPaintEvent) -> None:
        """The rows, or why there are none."""
        super().paintEvent(event)
        if self._document.model is not None and not self.table.rowCount():
            painter = QPainter(self.viewport())
            painter.setPen(QColor(self._delegate.theme.muted))
            room = self.viewport().rect().adjusted(12, 12, -12, -12)
            painter.drawText(room, int(Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap), NO_ROWS)

    # order, filter, folds

    def _sort(self, column: int) -> None:
        self.table.sort_by(column)
        self.horizontalHeader().viewport().update()

    def set_filter(self, wanted: Filter) -> None:
        """Show the layers that pass."""
        self.table.set_filter(wanted)
        self.filtered.emit(len(self.table.visible))

    def fold(self, folded: bool, everywhere: bool = False) -> None:
        """Fold or unfold the block of the current row, or all."""
        table = self.table
        if table.sort_column >= 0 or not table.rowCount():
            return
        row = max(self.currentIndex().row(), 0)
        group = table.group_of(min(row, table.rowCount() - 1))
        table.fold(range(len(table.store.group_names)) if everywhere else [group], folded)
        head = table.index(table.head_row(group), 0)
        self.selectionModel().setCurrentIndex(head, _SELECT.NoUpdate)
        self.scrollTo(head)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """A click on the triangle of a block folds it; anything else selects."""
        index = self.indexAt(event.position().toPoint())
        on_head = index.isValid() and index.column() == 0 and self.table.is_head(index.row())
        if on_head and event.position().x() - self.columnViewportPosition(0) < 2 * self._delegate.theme.font_px:
            group = self.table.group_of(index.row())
            self.table.fold([group], not self.table.is_folded(group))
            return
        super().mousePressEvent(event)

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

    def _tell_selection(self) -> None:
        if self._following:
            return
        rows = sorted({index.row() for index in self.selectionModel().selectedRows()})
        found = dict.fromkeys(layer for row in rows for layer in self.table.layers_of(row))
        current = self.currentIndex().row()
        names = [self.table.store.names[layer] for layer in found]
        if 0 <= current < self.table.rowCount() and not self.table.is_head(current):
            name = self.table.store.names[self.table.layers_of(current)[0]]
            if name in names:
                names.remove(name)
                names.append(name)
        self._following = True
        self._document.select(names)
        self._following = False

    def follow(self, names: list[str]) -> None:
        """Select the rows of layers, without telling anyone; scroll to the last when none of them is in sight."""
        if self._following:
            return
        rows = sorted(row for row in map(self._row, names) if row is not None)
        current = self._row(names[-1]) if names else None
        self._following = True
        self._select_rows(rows)
        if current is not None:
            self.selectionModel().setCurrentIndex(self.table.index(current, 0), _SELECT.NoUpdate)
            self.scrollTo(self.table.index(current, 0))
        self._following = False

    def _row(self, name: str) -> int | None:
        index = self.table.store.index.get(name)
        return None if index is None else self.table.row_of(index)

    def _select_rows(self, rows: list[int]) -> None:
        chosen, last = QItemSelection(), len(COLUMNS) - 1
        start = 0
        for at in range(1, len(rows) + 1):
            if at == len(rows) or rows[at] != rows[at - 1] + 1:
                chosen.select(self.table.index(rows[start], 0), self.table.index(rows[at - 1], last))
                start = at
        self.selectionModel().select(chosen, _SELECT.ClearAndSelect)

    def _select_again(self) -> None:
        if self._document.model is not None:
            self.follow(self._document.selection)

    # changes

    def touch(self, indices: list[int]) -> None:
        """Draw changed layers again soon, at most ten times a second."""
        self._touched.update(indices)
        if not self._touch_timer.isActive():
            self._touch_timer.start()

    def _touch(self) -> None:
        indices, self._touched = self._touched, set()
        if self._document.model is None:
            return
        first = max(self.rowAt(0), 0)
        last = self.rowAt(self.viewport().height() - 1)
        self.table.touch(indices, first, last if last >= 0 else first + _MORE_THAN_FITS)
