"""FileList: files with their sizes, and what there is to say of each."""

from collections.abc import Iterable, Sequence

from PySide6.QtCore import Qt
from PySide6.QtGui import QPaintEvent, QPalette
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QTreeWidget, QTreeWidgetItem

from studio import core
from studio.gui.shell.text import draw_empty, tip

MOST = 2000
"""Rows that are shown."""
NUMBERS = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
HEIGHT = 11
"""Rows that there is room for at first."""


class FileList(QTreeWidget):
    """Rows of a name, a size and a word on what happens; only that there are more is said of many.

    `empty` is shown where there are none.
    """

    def __init__(self, heads: Sequence[str], name: str, empty: str) -> None:
        super().__init__()
        self._empty = empty
        self.setAccessibleName(name)
        self.setHeaderLabels(list(heads))
        self.setRootIsDecorated(False)
        self.setUniformRowHeights(True)
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setMinimumHeight(HEIGHT * (self.fontMetrics().height() + 6))
        header = self.header()
        header.setStretchLastSection(False)
        header.setSectionsMovable(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column in range(1, len(heads)):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        self.headerItem().setTextAlignment(1, NUMBERS)

    def paintEvent(self, event: QPaintEvent) -> None:
        """The rows, or what comes here."""
        super().paintEvent(event)
        if not self.topLevelItemCount():
            muted = self.palette().color(QPalette.ColorGroup.Disabled, QPalette.ColorRole.Text)
            draw_empty(self.viewport(), self._empty, muted.name())

    def show_files(self, files: Iterable[tuple[str, int, str]]) -> None:
        """Show these: (name, bytes, word)."""
        rows = list(files)
        self.clear()
        self.addTopLevelItems([self._item(*row) for row in rows[:MOST]])
        if len(rows) > MOST:
            self.addTopLevelItem(QTreeWidgetItem([f"and {len(rows) - MOST:,} more"]))

    def _item(self, name: str, nbytes: int, word: str) -> QTreeWidgetItem:
        made = QTreeWidgetItem([core.printable(name, 200), core.size_text(nbytes), word][: self.columnCount()])
        made.setTextAlignment(1, NUMBERS)
        made.setToolTip(0, tip(core.printable(name, 1000)))
        return made
