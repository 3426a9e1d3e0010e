"""WorkerList: what each worker of a run does: the part that it holds, its bytes, its rate, when it was heard of."""

from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QDialog, QHeaderView, QTableWidget, QTableWidgetItem, QVBoxLayout, QWidget

from studio import core
from studio.gui.shell.text import label

HEADS = ("Worker", "Holds", "Done", "Rate", "Heard of")
HEIGHT = 14
"""Text heights, at least."""

ABOUT = "A worker that dies, or says nothing for 15 minutes, costs the part that it holds: another begins it again."

_NAMES = 2
_LATE = 5.0
"""Seconds of silence that are told: a worker says twice a second how far it is."""


class WorkerList(QDialog):
    """A table that follows the run, beside the window."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Workers")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.table = QTableWidget(0, len(HEADS))
        self.table.setAccessibleName("Workers")
        for column, head in enumerate(HEADS):
            self.table.setHorizontalHeaderItem(column, _cell(head, column))
        self.table.verticalHeader().hide()
        self.table.setShowGrid(False)
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.table.horizontalHeader().setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        rows = QVBoxLayout(self)
        rows.addWidget(self.table, 1)
        rows.addWidget(label(ABOUT, "muted", wrap=True))
        height = self.fontMetrics().height()
        self.resize(52 * height, HEIGHT * height)

    def show_workers(self, workers: Sequence[core.WorkerRate]) -> None:
        """Show a row for each."""
        self.table.setRowCount(len(workers))
        for row, worker in enumerate(workers):
            for column, text in enumerate(cells(worker)):
                self.table.setItem(row, column, _cell(text, column))


def _cell(text: str, column: int) -> QTableWidgetItem:
    """Names at the left, numbers at the right."""
    cell = QTableWidgetItem(text)
    side = Qt.AlignmentFlag.AlignLeft if column < _NAMES else Qt.AlignmentFlag.AlignRight
    cell.setTextAlignment(side | Qt.AlignmentFlag.AlignVCenter)
    return cell


def cells(worker: core.WorkerRate) -> tuple[str, ...]:
    """What the table says of a worker."""
    heard = f"{worker.silent:.0f} s ago" if worker.part and worker.silent > _LATE else "now" if worker.part else ""
    rate = f"{core.size_text(worker.rate)}/s" if worker.part else "waits"
    return worker.name, worker.part, core.size_text(worker.done), rate, heard
