"""NumberTable: the numbers of a plot as a table."""

from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QTableView

from studio.gui.views.figure import Figure, FigureModel

FIRST = 13
"""Text heights that the first column is wide, at least."""


class NumberTable(QTableView):
    """Shows the rows of a figure, as high as the text needs."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.setAccessibleName(f"{title} as table")
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.verticalHeader().hide()
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self._first = 0

    def show_figure(self, figure: Figure, font_px: int) -> None:
        """Show these numbers."""
        self.setModel(FigureModel(figure, self))
        self.verticalHeader().setDefaultSectionSize(font_px + 9)
        for column, head in enumerate(figure.heads):
            self.setColumnWidth(column, max(self.fontMetrics().horizontalAdvance(head) + 24, 7 * font_px))
        self._first = FIRST * font_px
        self._fill_width()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Fill the width again."""
        super().resizeEvent(event)
        self._fill_width()

    def _fill_width(self) -> None:
        """The first column, which names the rows, takes the room that the numbers leave."""
        if (model := self.model()) is not None:
            others = sum(self.columnWidth(column) for column in range(1, model.columnCount()))
            self.setColumnWidth(0, max(self._first, self.viewport().width() - others))
