"""Figure: the numbers behind a plot, for the table beside it and for CSV; and pictures of widgets in files."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, QPoint, QRect, QSize, Qt
from PySide6.QtGui import QColor, QImage, QPainter
from PySide6.QtSvg import QSvgGenerator
from PySide6.QtWidgets import QWidget

from studio import core
from studio.gui.shell.theme import Theme

SUFFIXES = (".png", ".svg", ".csv")
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
    return core.printable(value, 4096)


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
        if role == Qt.ItemDataRole.TextAlignmentRole and isinstance(value, (int, float)):
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """The head of a column."""
        if role == Qt.ItemDataRole.DisplayRole and orientation == Qt.Orientation.Horizontal:
            return self.figure.heads[section]
        return None


def picture(widget: QWidget, title: str, theme: Theme, ratio: int = 2) -> QImage:
    """The widget as an image of `ratio` pixels per point, its title above."""
    size = _size(widget, theme)
    image = QImage(size * ratio, QImage.Format.Format_ARGB32)
    image.setDevicePixelRatio(ratio)
    _paint(image, widget, title, theme)
    return image


def write_picture(path: Path, widget: QWidget, title: str, theme: Theme) -> None:
    """Write the widget as PNG or SVG. Raises OSError when the file can not be written."""
    with path.open("wb"):
        pass
    if path.suffix == ".svg":
        drawing = QSvgGenerator()
        drawing.setFileName(str(path))
        drawing.setTitle(title)
        drawing.setSize(_size(widget, theme))
        drawing.setViewBox(QRect(QPoint(0, 0), _size(widget, theme)))
        _paint(drawing, widget, title, theme)
    elif not picture(widget, title, theme).save(str(path)):
        raise OSError(f"{path.name}: the picture could not be written")


def _head(theme: Theme) -> int:
    return theme.font_px * 2


def _size(widget: QWidget, theme: Theme) -> QSize:
    return widget.size() + QSize(0, _head(theme))


def _paint(device: QImage | QSvgGenerator, widget: QWidget, title: str, theme: Theme) -> None:
    painter = QPainter(device)
    try:
        painter.fillRect(QRect(QPoint(0, 0), _size(widget, theme)), QColor(theme.surface))
        font = widget.font()
        font.setPixelSize(theme.font_px)
        font.setBold(True)
        painter.setFont(font)
        painter.setPen(QColor(theme.text))
        space = QRect(theme.font_px // 2, 0, widget.width() - theme.font_px, _head(theme))
        shown = painter.fontMetrics().elidedText(title, Qt.TextElideMode.ElideRight, space.width())
        painter.drawText(space, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, shown)
        widget.render(painter, QPoint(0, _head(theme)))
    finally:
        painter.end()
