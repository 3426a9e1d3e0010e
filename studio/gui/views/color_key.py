"""ColorKey: the colours of a map from its least to its largest value, with both values, and what they are."""

import pyqtgraph as pg
from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QLinearGradient, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

WIDTH = 4.5
"""Text heights that the colours take across."""


class ColorKey(QWidget):
    """A strip of colours between two texts, a title before them where there is one."""

    def __init__(self, colors: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self._colors = colors
        self._ends = ("", "")
        self._title = ""
        self._ink = "#000000"

    def set_color(self, ink: str) -> None:
        """Show the texts in another colour."""
        self._ink = ink
        self.update()

    def show_ends(self, least: str, largest: str, meaning: str, *, titled: bool = False) -> None:
        """Show other values; `meaning` says what they are, in the picture too when it is `titled`."""
        self._ends = (least, largest)
        self._title = meaning if titled else ""
        self.setAccessibleName(f"{meaning}: dark {least}, bright {largest}")
        self.setToolTip(self.accessibleName())
        self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:
        """Both texts and the strip."""
        metrics = self.fontMetrics()
        texts = sum(metrics.horizontalAdvance(text) + 5 for text in self._ends)
        return QSize(self._indent() + texts + round(WIDTH * metrics.height()), metrics.height() + 4)

    def minimumSizeHint(self) -> QSize:
        """All of it."""
        return self.sizeHint()

    def _indent(self) -> int:
        """Room that the title takes."""
        return self.fontMetrics().horizontalAdvance(self._title) + 10 if self._title else 0

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw texts and colours."""
        painter, metrics = QPainter(self), self.fontMetrics()
        left, right = (metrics.horizontalAdvance(text) + 5 for text in self._ends)
        painter.setPen(QColor(self._ink))
        sides = (Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignRight)
        painter.drawText(self.rect(), int(sides[0] | Qt.AlignmentFlag.AlignVCenter), self._title)
        room = self.rect().adjusted(self._indent(), 0, 0, 0)
        for text, side in zip(self._ends, sides, strict=True):
            painter.drawText(room, int(side | Qt.AlignmentFlag.AlignVCenter), text)
        height = metrics.height() * 0.6
        strip = QRectF(room.left() + left, (self.height() - height) / 2, room.width() - left - right, height)
        shades = QLinearGradient(strip.topLeft(), strip.topRight())
        colors = pg.colormap.get(self._colors)
        for step in range(9):
            shades.setColorAt(step / 8, colors.map(step / 8, mode="qcolor"))
        painter.fillRect(strip, shades)
