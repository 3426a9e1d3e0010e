"""NumberTable: the numbers of a plot as a table."""

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QTableView

from studio.gui.views.figure import Figure, FigureModel


class NumberTable(QTableView):
    """Shows the rows of a figure, as high as the text needs."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.setAccessibleName(f"{title} as table")
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.verticalHeader().hide()
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.setShowGrid(False)
        self.horizontalHeader().setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        self.horizontalHeader().setStretchLastSection(True)
        self.setWordWrap(False)

    def show_figure(self, figure: Figure, font_px: int) -> None:
        """Show these numbers."""
        self.setModel(FigureModel(figure, self))
        self.verticalHeader().setDefaultSectionSize(font_px + 9)
        for column, head in enumerate(figure.heads):
            least = (24 if head == "layer" else 8) * font_px
            self.setColumnWidth(column, max(self.fontMetrics().horizontalAdvance(head) + 24, least))
