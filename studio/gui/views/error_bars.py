"""ErrorBars: a few errors as horizontal bars, predicted as an outline, measured filled, with their values."""

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QWidget

from studio.gui.shell.theme import LIGHT, Theme


@dataclass(frozen=True, slots=True)
class Bar:
    """A name, its colour, and its relative errors."""

    name: str
    color: str
    predicted: float
    measured: float | None

    @property
    def text(self) -> str:
        """Both values in words."""
        known = "not measured" if self.measured is None else f"measured {self.measured:.4f}"
        return f"{known}, predicted {self.predicted:.4f}"

    @property
    def length(self) -> float:
        """The larger value."""
        return max(self.predicted, self.measured or 0.0)


class ErrorBars(QWidget):
    """Bars from zero; a note about them is their tooltip."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.bars: tuple[Bar, ...] = ()
        self.note = ""
        self._theme: Theme = LIGHT
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours."""
        self._theme = theme
        self.updateGeometry()
        self.update()

    def show_bars(self, bars: Sequence[Bar], note: str) -> None:
        """Show other bars."""
        self.bars, self.note = tuple(bars), note
        words = "; ".join(f"{bar.name}: {bar.text}" for bar in self.bars)
        self.setAccessibleName("Relative errors")
        self.setAccessibleDescription(f"{words}. {note}")
        self.setToolTip(note)
        self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:
        """A line per bar."""
        return QSize(200, len(self.bars) * self._step())

    def minimumSizeHint(self) -> QSize:
        """Any width."""
        return QSize(0, self.sizeHint().height())

    def _step(self) -> int:
        return self.fontMetrics().height() + 6

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw bars and values."""
        painter = QPainter(self)
        metrics, step = self.fontMetrics(), self._step()
        names = max((metrics.horizontalAdvance(bar.name) for bar in self.bars), default=0) + 10
        values = max((metrics.horizontalAdvance(bar.text) for bar in self.bars), default=0) + 10
        room = max(self.width() - names - values, 30)
        longest = max((bar.length for bar in self.bars), default=0.0) or 1.0
        for number, bar in enumerate(self.bars):
            y = number * step
            painter.setPen(QColor(self._theme.text))
            left = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft
            painter.drawText(QRectF(0, y, names, step), left, bar.name)
            self._draw_bar(painter, bar, QRectF(names, y + 4, room, step - 8), longest)
            painter.setPen(QColor(self._theme.muted))
            painter.drawText(QRectF(names + room * bar.length / longest + 8, y, values, step), left, bar.text)

    def _draw_bar(self, painter: QPainter, bar: Bar, place: QRectF, longest: float) -> None:
        painter.setPen(QPen(QColor(bar.color), 1))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawRect(QRectF(place.x(), place.y(), place.width() * bar.predicted / longest, place.height()))
        if bar.measured is not None:
            inner = QRectF(place.x(), place.y() + 2, place.width() * bar.measured / longest, place.height() - 3)
            painter.fillRect(inner, QColor(bar.color))
