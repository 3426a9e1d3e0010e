"""QualityBars: what each model lost in tokens, as bars from what the source has, with their noise as whiskers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QHelpEvent, QPainter, QPaintEvent, QPen, QResizeEvent
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from studio import core
from studio.gui.shell.theme import LIGHT, Theme
from studio.gui.views.axes import nice
from studio.gui.views.labels import tip

NARROW, WIDE = 26, 46
"""Text heights across from which on the plots stand side by side, and noise beside each bar in digits, too."""

NAMES = 11
"""Text heights across that names take at most."""

TICK_WIDTH = 3.5
_WRAPPED = Qt.TextFlag.TextWordWrap | Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignBottom
_LEFT = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of a model: what the axis is called, which estimate, in how many units, and where its bars begin.

    head: the same in short. sign: +1 where the axis runs up from `start`, -1 where it runs down from it.
    """

    title: str
    head: str
    of: Callable[[core.Evaluated], core.Estimate | None]
    unit: float = 1.0
    start: float = 0.0
    sign: int = 1
    digits: int = 1

    def loss(self, row: core.Evaluated) -> tuple[float, float] | None:
        """How far a row is from `start`, and its noise, in units; None where it is not known."""
        found = self.of(row)
        if found is None:
            return None
        return self.sign * (found.value * self.unit - self.start), (found.noise or 0.0) * self.unit

    def numbers(self, row: core.Evaluated) -> tuple[float | str, float | str]:
        """The figure and its noise in units, "" for what is not known."""
        found = self.of(row)
        if found is None:
            return "", ""
        return found.value * self.unit, "" if found.noise is None else found.noise * self.unit

    def text(self, row: core.Evaluated, *, alone: bool = False) -> str:
        """The figure and, unless `alone`, its noise, in units."""
        found = self.of(row)
        if found is None:
            return ""
        if not math.isfinite(found.value):
            return "no number"
        noise = "" if alone or found.noise is None else f" ± {found.noise * self.unit:.{self.digits}f}"
        return f"{found.value * self.unit:.{self.digits}f}{noise}"


PERPLEXITY = Metric("Perplexity", "perplexity", lambda row: row.perplexity, digits=2)
AGAINST_FIRST = Metric(
    "KL above that of the first, nats per token", "KL above the first", lambda row: row.kl_difference, digits=4
)
"""Its noise is that of pairs of windows, which is smaller than that of both."""

AGAINST_SOURCE = (
    Metric("Perplexity above source, %", "above source, %", lambda row: row.increase, 100),
    Metric("KL to source, nats per token", "KL, nats per token", lambda row: row.kl, digits=4),
    Metric("Top-1 agreement, %", "top-1, %", lambda row: row.top1, 100, 100.0, -1),
)


def metrics_of(rows: Sequence[core.Evaluated]) -> tuple[Metric, ...]:
    """What can be shown of rows: what they lost against a source, or their perplexity where there is none."""
    return AGAINST_SOURCE if any(row.kl for row in rows) or not rows else (PERPLEXITY,)


class QualityBars(QWidget):
    """A plot per metric, a bar per model in each; longer bars are worse."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.rows: tuple[core.Evaluated, ...] = ()
        self.waiting: tuple[str, ...] = ()
        self.metrics: tuple[Metric, ...] = ()
        self._theme: Theme = LIGHT
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.setAccessibleName("Quality of each model")

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours."""
        self._theme = theme
        self._fit()
        self.update()

    def show_rows(self, rows: Sequence[core.Evaluated], waiting: Sequence[str] = ()) -> None:
        """Show other models; `waiting` are the names of those that were not run yet."""
        self.rows, self.waiting, self.metrics = tuple(rows), tuple(waiting), metrics_of(rows)
        self.setAccessibleDescription("; ".join(map(self.sentence, self.rows)))
        self._fit()
        self.update()

    def sentence(self, row: core.Evaluated) -> str:
        """All figures of a row in words."""
        return f"{core.printable(row.name)}: {', '.join(self._figures(row))}"

    def _figures(self, row: core.Evaluated) -> list[str]:
        return [f"{metric.title} {metric.text(row)}" for metric in self.metrics if metric.of(row)]

    # where things are

    @property
    def _count(self) -> int:
        return len(self.rows) + len(self.waiting)

    def _step(self) -> int:
        return self.fontMetrics().height() + 8

    def _text(self) -> int:
        return self.fontMetrics().height()

    @property
    def _beside(self) -> bool:
        return self.width() >= NARROW * self._text()

    def _plot_height(self, lines: int) -> int:
        """The height of a plot whose title takes so many lines."""
        return lines * self._text() + 6 + self._count * self._step() + self._text() + 10

    def _fit(self) -> None:
        plots = len(self.metrics)
        wanted = self._plot_height(2) if self._beside else plots * (self._plot_height(1) + 6)
        self.setMinimumHeight(wanted if self._count else 0)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Plots beside or below each other."""
        super().resizeEvent(event)
        self._fit()

    def changeEvent(self, event: QEvent) -> None:
        """Follow the size of the text."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.FontChange:
            self._fit()

    def sizeHint(self) -> QSize:
        """All of it."""
        return QSize(400, self.minimumHeight())

    def _names_width(self) -> float:
        names = [core.printable(name, 60) for name in (*(row.name for row in self.rows), *self.waiting)]
        widest = max((self.fontMetrics().horizontalAdvance(name) for name in names), default=0)
        return min(widest + 12, NAMES * self._text(), self.width() * 0.4)

    def _places(self) -> list[tuple[Metric, QRectF, int]]:
        """Each metric, where its title and bars are, and the lines of its title."""
        names, count = self._names_width(), max(len(self.metrics), 1)
        if not self._beside:
            height = self._plot_height(1)
            return [
                (metric, QRectF(names, i * (height + 6), self.width() - names, height), 1)
                for i, metric in enumerate(self.metrics)
            ]
        width = (self.width() - names) / count
        return [
            (metric, QRectF(names + i * width, 0, width - 10, self._plot_height(2)), 2)
            for i, metric in enumerate(self.metrics)
        ]

    # drawing

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw names once in each line of plots, and the plots."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        tops: set[float] = set()
        for metric, place, lines in self._places():
            top = place.y() + lines * self._text() + 6
            if top not in tops:
                self._draw_names(painter, top)
                tops.add(top)
            self._draw_plot(painter, metric, place, top)

    def _draw_names(self, painter: QPainter, top: float) -> None:
        width = self._names_width() - 10
        shown = [(row.name, self._theme.text) for row in self.rows]
        shown += [(name, self._theme.muted) for name in self.waiting]
        for number, (name, color) in enumerate(shown):
            painter.setPen(QColor(color))
            text = self.fontMetrics().elidedText(core.printable(name, 60), Qt.TextElideMode.ElideRight, int(width))
            painter.drawText(QRectF(0, top + number * self._step(), width, self._step()), _LEFT, text)

    def _draw_plot(self, painter: QPainter, metric: Metric, place: QRectF, top: float) -> None:
        losses = [metric.loss(row) for row in self.rows]
        alone = self._beside and self.width() < WIDE * self._text()
        texts = [metric.text(row, alone=alone) for row in self.rows]
        room = max((self.fontMetrics().horizontalAdvance(text) for text in texts), default=0) + 12
        low, high = span([loss for loss in losses if loss])
        area = QRectF(place.x(), top, max(place.width() - room, 20), self._count * self._step())
        scale = area.width() / (high - low)
        zero = area.x() - low * scale
        painter.setPen(QColor(self._theme.text))
        title = QRectF(place.x(), place.y(), place.width(), top - place.y() - 4)
        painter.drawText(title, int(_WRAPPED), metric.title)
        if any(losses):
            self._draw_axis(painter, metric, area, zero, scale, (low, high))
        for number, (row, loss, text) in enumerate(zip(self.rows, losses, texts, strict=True)):
            if loss:
                line = QRectF(area.x(), top + number * self._step(), area.width(), self._step())
                end = self._draw_bar(painter, self._color(row), loss, line, zero, scale)
                painter.setPen(QColor(self._theme.text))
                painter.drawText(QRectF(end + 6, line.y(), room, self._step()), _LEFT, text)

    def _draw_axis(
        self,
        painter: QPainter,
        metric: Metric,
        area: QRectF,
        zero: float,
        scale: float,
        ends: tuple[float, float],
    ) -> None:
        ticks = nice(*ends, max(int(area.width() / (TICK_WIDTH * self._text())), 2))
        step = ticks[1][0] - ticks[0][0] if len(ticks) > 1 else 1.0
        digits = max(-math.floor(math.log10(step) + 1e-9), 0)
        free = 0.0
        for value, _ in ticks:
            x = zero + value * scale
            painter.setPen(QPen(QColor(self._theme.grid if abs(value) > step / 2 else self._theme.muted), 1))
            painter.drawLine(QPointF(x, area.top()), QPointF(x, area.bottom()))
            text = f"{metric.start + metric.sign * value:.{digits}f}"
            wide = self.fontMetrics().horizontalAdvance(text)
            if x - wide / 2 >= free:
                painter.setPen(QColor(self._theme.muted))
                painter.drawText(QPointF(x - wide / 2, area.bottom() + self._text()), text)
                free = x + wide / 2 + 6

    def _draw_bar(
        self,
        painter: QPainter,
        color: str,
        loss: tuple[float, float],
        line: QRectF,
        zero: float,
        scale: float,
    ) -> float:
        """Draw a bar and its whisker; gives where both end."""
        value, noise = loss
        if not math.isfinite(value):
            painter.fillRect(line.adjusted(0, 4, 0, -4), QColor(self._theme.error))
            return line.right()
        bar = QRectF(QPointF(zero, line.top() + 4), QPointF(zero + value * scale, line.bottom() - 4)).normalized()
        painter.fillRect(bar, QColor(color))
        middle, ends = line.center().y(), [zero + (value + side * noise) * scale for side in (-1, 1)]
        if noise:
            painter.setPen(QPen(QColor(self._theme.text), 1.5))
            painter.drawLine(QPointF(ends[0], middle), QPointF(ends[1], middle))
            for end in ends:
                painter.drawLine(QPointF(end, middle - 4), QPointF(end, middle + 4))
        return max(bar.right(), ends[1])

    def _color(self, row: core.Evaluated) -> str:
        return self._theme.format_color(row.format.partition(",")[0])

    # what is under the mouse

    def event(self, event: QEvent) -> bool:
        """Say all figures of the row under the mouse."""
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip:
            row = self.row_at(event.pos().y())
            if row:
                lines = [core.printable(row.name), f"{row.format} {row.method}".strip(), *self._figures(row)]
                QToolTip.showText(event.globalPos(), tip(lines), self)
            else:
                QToolTip.hideText()
            return True
        return super().event(event)

    def row_at(self, y: float) -> core.Evaluated | None:
        """The model whose bar is at a height."""
        for _, place, lines in self._places():
            number = int((y - place.y() - lines * self._text() - 6) // self._step())
            if place.top() <= y <= place.bottom() and 0 <= number < len(self.rows):
                return self.rows[number]
        return None


def span(losses: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """An axis that holds zero and all finite losses with their whiskers."""
    ends = [side for value, noise in losses for side in (value - noise, value + noise) if math.isfinite(side)]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    return (low, high) if high > low else (0.0, 1.0)
