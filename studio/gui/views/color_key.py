"""ColorKey: the colours of a map from its least to its largest value, with both values."""

import pyqtgraph as pg
from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QLinearGradient, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

WIDTH = 4.5
"""Text heights that the colours take across."""


class ColorKey(QWidget):
    """A strip of colours between two texts."""

    def __init__(self, colors: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self._map = pg.colormap.get(colors)
        self._ends = ("", "")
        self._ink = "#000000"

    def set_color(self, ink: str) -> None:
        """Show the texts in another colour."""
        self._ink = ink
        self.update()

    def show_ends(self, least: str, largest: str, meaning: str) -> None:
        """Show other values; `meaning` says what they are."""
        self._ends = (least, largest)
        self.setAccessibleName(f"{meaning}: dark {least}, bright {largest}")
        self.setToolTip(self.accessibleName())
        self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:
        """Both texts and the strip."""
        metrics = self.fontMetrics()
        texts = sum(metrics.horizontalAdvance(text) + 5 for text in self._ends)
        return QSize(texts + round(WIDTH * metrics.height()), metrics.height() + 4)

    def minimumSizeHint(self) -> QSize:
        """All of it."""
        return self.sizeHint()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw texts and colours."""
        painter, metrics = QPainter(self), self.fontMetrics()
        left, right = (metrics.horizontalAdvance(text) + 5 for text in self._ends)
        painter.setPen(QColor(self._ink))
        sides = (Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignRight)
        for text, side in zip(self._ends, sides, strict=True):
            painter.drawText(self.rect(), int(side | Qt.AlignmentFlag.AlignVCenter), text)
        height = metrics.height() * 0.6
        strip = QRectF(left, (self.height() - height) / 2, self.width() - left - right, height)
        shades = QLinearGradient(strip.topLeft(), strip.topRight())
        for step in range(9):
            shades.setColorAt(step / 8, self._map.map(step / 8, mode="qcolor"))
        painter.fillRect(strip, shades)
