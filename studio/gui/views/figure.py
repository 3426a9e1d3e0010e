"""Figure: the numbers behind a plot, for the table beside it and for CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, Qt
from PySide6.QtWidgets import QWidget

from studio import core

_NOWHERE = QModelIndex()


@dataclass(frozen=True, slots=True)
class Figure:
    """A title, column heads with units, and rows of text and numbers."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[Sequence[Any]]

    def csv(self) -> str:
        """The rows as CSV with a line of heads."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.heads)
        writer.writerows([_plain(value) for value in row] for row in self.rows)
        return text.getvalue()


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return core.printable(value, core.COPIED)


class FigureModel(QAbstractTableModel):
    """The rows of a figure as an item model; numbers stand at the right."""

    def __init__(self, figure: Figure, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.figure = figure

    def rowCount(self, parent: QModelIndex | QPersistentModelIndex = _NOWHERE) -> int:
        """Number of rows."""
        return 0 if parent.isValid() else len(self.figure.rows)

    def columnCount(self, parent: QModelIndex | QPersistentModelIndex = _NOWHERE) -> int:
        """Number of columns."""
        return 0 if parent.isValid() else len(self.figure.heads)

    def data(self, index: QModelIndex | QPersistentModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """The text of a cell and where it stands."""
        if not index.isValid():
            return None
        value = self.figure.rows[index.row()][index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return f"{value:,}" if isinstance(value, int) else _plain(value)
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return int(_side(value) | Qt.AlignmentFlag.AlignVCenter)
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """The head of a column, which stands where its cells do."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            head = self.figure.heads[section]
            return head[:1].upper() + head[1:]
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return int(_side(self.figure.rows[0][section] if self.figure.rows else "") | Qt.AlignmentFlag.AlignVCenter)
        return None


def _side(value: Any) -> Qt.AlignmentFlag:
    return Qt.AlignmentFlag.AlignRight if isinstance(value, (int, float)) else Qt.AlignmentFlag.AlignLeft
