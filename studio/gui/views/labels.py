"""Labels that never force a width: a line that is cut to fit, and a legend of colours and names."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFontMetrics, QPainter, QPaintEvent, QPen, QPolygonF, QResizeEvent
from PySide6.QtWidgets import QLabel, QSizePolicy, QWidget


def tip(lines: Sequence[str]) -> str:
    """Lines of plain text as a tooltip: the first one bold, nothing in them read as markup."""
    first, *rest = [html.escape(line) for line in lines]
    return "<p style='white-space:pre'>" + "\n".join([f"<b>{first}</b>", *rest]) + "</p>"


class Line(QWidget):
    """One line of plain text, cut with an ellipsis where there is no room; the whole text is its tooltip."""

    def __init__(self, parent: QWidget | None = None, *, bold: bool = False) -> None:
        super().__init__(parent)
        self._text, self._short, self._color, self._bold = "", "", "#000000", bold
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def text(self) -> str:
        """The whole text."""
        return self._text

    def set_text(self, text: str, short: str = "") -> None:
        """Show another text, and `short` where there is no room for it."""
        if text != self._text:
            self._text, self._short = text, short
            self.setToolTip(tip([text]) if text else "")
            self.setAccessibleName(text)
            self.updateGeometry()
            self.update()

    def set_color(self, color: str) -> None:
        """Show it in another colour."""
        self._color = color
        self.update()

    def sizeHint(self) -> QSize:
        """As wide as its text, one line high."""
        font = self.font()
        font.setBold(self._bold)
        return QSize(QFontMetrics(font).horizontalAdvance(self._text) + 8, self.fontMetrics().height() + 4)

    def minimumSizeHint(self) -> QSize:
        """Any width, one line high."""
        return QSize(0, self.fontMetrics().height() + 4)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw what fits."""
        painter = QPainter(self)
        font = self.font()
        font.setBold(self._bold)
        painter.setFont(font)
        painter.setPen(QColor(self._color))
        metrics = painter.fontMetrics()
        fits = not self._short or metrics.horizontalAdvance(self._text) <= self.width()
        shown = metrics.elidedText(self._text if fits else self._short, Qt.TextElideMode.ElideRight, self.width())
        painter.drawText(self.rect(), Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, shown)


class Paragraph(QLabel):
    """Plain text that takes as many lines as it needs, and any width."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setWordWrap(True)
        wanted = self.sizePolicy()
        wanted.setHorizontalPolicy(QSizePolicy.Policy.Ignored)
        self.setSizePolicy(wanted)

    def set_text(self, text: str) -> None:
        """Show another text."""
        if text != self.text():
            self.setText(text)

    def set_color(self, color: str) -> None:
        """Show it in another colour."""
        self.setStyleSheet(f"color: {color}")

    def line_width(self) -> int:
        """Room that the text needs to stand in one line."""
        return self.fontMetrics().horizontalAdvance(self.text()) + 8


STROKES = {
    "line": Qt.PenStyle.SolidLine,
    "dash": Qt.PenStyle.DashLine,
    "dash-dot": Qt.PenStyle.DashDotLine,
    "dash-dot-dot": Qt.PenStyle.DashDotDotLine,
    "dotted": Qt.PenStyle.DotLine,
}
"""The shapes of a legend's entry that are lines."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a legend, its colour, and its shape: one of `kinds.SHAPES`, one of `STROKES`, or none."""

    name: str
    color: str
    shape: str = "square"


class Legend(QWidget):
    """Names with their colours and shapes, flowing over as many lines as they need, at most three."""

    LINES = 3

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.entries: tuple[Entry, ...] = ()
        self._color = "#000000"
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def set_entries(self, entries: Sequence[Entry], color: str) -> None:
        """Show other entries, their names in `color`."""
        if (tuple(entries), color) == (self.entries, self._color):
            return
        self.entries, self._color = tuple(entries), color
        self.setVisible(bool(entries))
        self.setAccessibleName("Legend: " + ", ".join(entry.name for entry in entries))
        self._fit()
        self.update()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Take another line, or give one back."""
        super().resizeEvent(event)
        self._fit()

    def changeEvent(self, event: QEvent) -> None:
        """Follow the size of the text."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.FontChange:
            self._fit()

    def _fit(self) -> None:
        lines = 1 + max((line for _, line, _ in self._places(self.width())), default=0)
        self.setFixedHeight(min(lines, self.LINES) * self._step())

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw signs and names."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        step, side = self._step(), self.fontMetrics().height() * 0.6
        for entry, line, x in self._places(self.width()):
            if line >= self.LINES:
                return
            wide = _width(entry) * side
            sign = QRectF(x, line * step + (step - side) / 2, wide, side)
            draw_sign(painter, entry, sign)
            painter.setPen(QColor(self._color))
            room = QRectF(x + wide + 5, line * step, self.width() - x - wide - 5, step)
            painter.drawText(room, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, entry.name)

    def _step(self) -> int:
        return self.fontMetrics().height() + 3

    def _places(self, width: int) -> list[tuple[Entry, int, float]]:
        """(entry, line, x) of every entry."""
        places, line, x = [], 0, 2.0
        for entry in self.entries:
            side = self.fontMetrics().height() * 0.6
            wide = self.fontMetrics().horizontalAdvance(entry.name) + _width(entry) * side + 5
            if x > 2 and x + wide > width:
                line, x = line + 1, 2.0
            places.append((entry, line, x))
            x += wide + 14
        return places


_POLYGONS = {
    "up": ((0.5, 0), (1, 1), (0, 1)),
    "down": ((0, 0), (1, 0), (0.5, 1)),
    "diamond": ((0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)),
    "pentagon": ((0.5, 0), (1, 0.4), (0.8, 1), (0.2, 1), (0, 0.4)),
    "plus": tuple(
        (x / 3, y / 3)
        for x, y in ((1, 0), (2, 0), (2, 1), (3, 1), (3, 2), (2, 2), (2, 3), (1, 3), (1, 2), (0, 2), (0, 1), (1, 1))
    ),
}


def _width(entry: Entry) -> float:
    return 3.0 if entry.shape in STROKES else 0.0 if entry.shape == "none" else 1.0


def draw_sign(painter: QPainter, entry: Entry, place: QRectF) -> None:
    """Draw the sign of a legend's entry."""
    color = QColor(entry.color)
    if entry.shape == "none":
        return
    if entry.shape in STROKES:
        painter.setPen(QPen(color, 2, STROKES[entry.shape]))
        middle = place.center().y()
        painter.drawLine(QPointF(place.left(), middle), QPointF(place.right(), middle))
        return
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(color)
    if entry.shape == "dot":
        painter.drawEllipse(place)
    elif entry.shape in _POLYGONS:
        corners = [
            QPointF(place.x() + x * place.width(), place.y() + y * place.height()) for x, y in _POLYGONS[entry.shape]
        ]
        painter.drawPolygon(QPolygonF(corners))
    else:
        painter.drawRect(place)
