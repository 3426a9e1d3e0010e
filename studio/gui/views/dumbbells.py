"""Dumbbells: two errors per layer joined by a bar, the largest gain on top, scrolling through any number of layers."""

import math

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QScrollBar, QWidget

from studio import core
from studio.gui.shell.theme import LIGHT, Theme
from studio.gui.views.axes import Tick, nice, nice_stride, powers_of_ten
from studio.gui.views.columns import above_zero, short
from studio.gui.views.inspector_panels import side_colors
from studio.gui.views.kinds import SHAPES
from studio.gui.views.labels import STROKES
from studio.gui.views.plot import Marks, Plot

ROW_HEIGHT = 1.7
SPREAD_FOR_LOG = 20.0
NAME_LENGTH = 28
SIDE_SHAPES = ("square", "dot")
"""Of A and B."""


class RowPlot(Plot):
    """A plot whose wheel scrolls rows instead of zooming.

    Signals:
        scrolled(int): rows to go down.
    """

    scrolled = Signal(int)

    def wheelEvent(self, event: object) -> None:
        """Scroll; with Ctrl, zoom the errors."""
        if event.modifiers() & Qt.KeyboardModifier.ControlModifier:  # type: ignore[attr-defined]
            super().wheelEvent(event)
        else:
            self.scrolled.emit(-round(event.angleDelta().y() / 40))  # type: ignore[attr-defined]
            event.accept()  # type: ignore[attr-defined]


class Dumbbells(QWidget):
    """The pairs of a comparison, one per row.

    Signals:
        rows_picked(list, bool): indices of pairs that were clicked or dragged over; True to add to the selection.
        row_opened(int): a pair that was double-clicked.
        pointed(object): index of the pair under the mouse, None for none.
    """

    rows_picked = Signal(list, bool)
    row_opened = Signal(int)
    pointed = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.theme: Theme = LIGHT
        self.comparison: core.Comparison | None = None
        self._errors: NDArray[np.float64] = np.zeros((0, 2))
        self._log = False
        self._cut = 0
        self._selected: list[int] = []
        self.plot = RowPlot("relative error", "", nice, self._names)
        self.plot.y_axis.label_height = 1.2
        self.plot.box.setMouseEnabled(x=True, y=False)
        self.plot.box.invertY(True)
        self.bar = QScrollBar(Qt.Orientation.Vertical)
        self.bar.setAccessibleName("Layers")
        self.bar.valueChanged.connect(self._scroll)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        row.addWidget(self.plot, 1)
        row.addWidget(self.bar)
        self.plot.scrolled.connect(lambda rows: self.bar.setValue(self.bar.value() + rows))
        self.plot.hovered.connect(lambda point: self.pointed.emit(self.row_at(point)))
        self.plot.left.connect(lambda: self.pointed.emit(None))
        box = self.plot.box
        box.picked.connect(lambda point, add: self.rows_picked.emit(self._rows_at(point), add))
        box.opened.connect(self._opened)
        box.banded.connect(self._banded)

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours."""
        self.theme = theme
        self.plot.set_theme(theme)
        self.redraw()

    def show_comparison(self, comparison: core.Comparison | None) -> None:
        """Show other pairs from the top."""
        self.comparison = comparison
        pairs = comparison.pairs if comparison else ()
        self._errors = np.array([(pair.error_a, pair.error_b) for pair in pairs]).reshape(-1, 2)
        self.bar.setValue(0)
        self.redraw()

    def mark(self, selected: list[int], cut: int) -> None:
        """Mark the selected rows, and where the rows end that gain enough."""
        fresh = selected != self._selected
        self._selected, self._cut = selected, cut
        first = self.bar.value()
        if fresh and len(selected) == 1 and not first <= selected[0] < first + self._rows_shown():
            self.bar.setValue(selected[0] - self._rows_shown() // 2)
        self.redraw()

    # Drawing

    def redraw(self) -> None:
        """Draw everything again."""
        self.plot.plotItem.clear()
        if not len(self._errors):
            return
        filled = self._errors[self._errors > 0]
        self._log = bool(filled.size and filled.max() > SPREAD_FOR_LOG * filled.min())
        self.plot.x_axis.set_ticks(powers_of_ten if self._log else nice)
        ends = np.log10(above_zero(self._errors)) if self._log else self._errors
        if self._log:
            ends = np.maximum(ends, math.log10(filled.min()) - 0.5)
        rows = np.arange(len(ends), dtype=np.float64)
        self._draw_selected()
        for better, color in ((True, self.theme.good), (False, self.theme.error)):
            chosen = (ends[:, 1] <= ends[:, 0]) == better
            x, y = ends[chosen].reshape(-1), np.repeat(rows[chosen], 2)
            stroke = STROKES["line" if better else "dash"]
            self._add(pg.PlotCurveItem(x, y, connect="pairs", pen=pg.mkPen(color, width=2, style=stroke)), 0)
        size = max(self.theme.font_px - 4, 7)
        for side, (color, shape) in enumerate(zip(side_colors(self.theme), SIDE_SHAPES, strict=True)):
            larger = 4 if side == 0 else 0  # seen around B where both are the same
            marks = Marks(ends[:, side], rows, size=size + larger, symbol=SHAPES[shape], brush=color, pen=None)
            self._add(marks, 2 + side)
        if 0 < self._cut < len(ends):
            line = pg.InfiniteLine(
                self._cut - 0.5, angle=0, pen=pg.mkPen(self.theme.warning, style=Qt.PenStyle.DashLine)
            )
            self._add(line, 1)
        self._fit(ends)

    def _draw_selected(self) -> None:
        color = pg.mkColor(self.theme.selection)
        for row in self._selected[:200]:
            band = pg.LinearRegionItem(
                (row - 0.5, row + 0.5), orientation="horizontal", movable=False, brush=color, pen=pg.mkPen(None)
            )
            self._add(band, -10)

    def _add(self, item: pg.GraphicsObject, z: float) -> None:
        item.setZValue(z)
        self.plot.addItem(item, ignoreBounds=True)

    def _fit(self, ends: NDArray[np.float64]) -> None:
        low, high = float(ends.min()), float(ends.max())
        room = (high - low) * 0.06 or 0.01
        shown = self._rows_shown()
        self.bar.setMaximum(max(len(ends) - shown, 0))
        self.bar.setPageStep(max(shown, 1))
        self.bar.setVisible(len(ends) > shown)
        if self.plot.fitted:
            self.plot.show_range((low - room, high + room), self._window())
        else:
            self.plot.box.setYRange(*self._window(), padding=0)

    def fit(self) -> None:
        """All errors."""
        self.plot.fitted = True
        self.redraw()

    def _rows_shown(self) -> int:
        return max(int((self.plot.height() - 4 * self.theme.font_px) / (ROW_HEIGHT * self.theme.font_px)), 1)

    def _window(self) -> tuple[float, float]:
        first, shown = self.bar.value(), self._rows_shown()
        return first - 0.7, first + max(min(shown, len(self._errors)), 4) - 0.3

    def _scroll(self) -> None:
        self.plot.box.setYRange(*self._window(), padding=0)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """More or fewer rows."""
        super().resizeEvent(event)
        self.redraw()

    def _names(self, low: float, high: float, room: int) -> list[Tick]:
        pairs = self.comparison.pairs if self.comparison else ()
        first, last = max(math.ceil(low), 0), min(math.floor(high), len(pairs) - 1)
        stride = nice_stride((last - first + 1) / max(room, 1))
        length = min(NAME_LENGTH, max(int(self.width() / self.theme.font_px / 1.4), 10))
        return [(float(i), short(pairs[i].name, length)) for i in range(first, last + 1, stride)]

    # The mouse

    def row_at(self, point: QPointF) -> int | None:
        """Index of the pair at a place in data coordinates."""
        row = round(point.y())
        return row if 0 <= row < len(self._errors) else None

    def _rows_at(self, point: QPointF) -> list[int]:
        row = self.row_at(point)
        return [] if row is None else [row]

    def _opened(self, point: QPointF) -> None:
        row = self.row_at(point)
        if row is not None:
            self.row_opened.emit(row)

    def _banded(self, rect: QRectF, add: bool) -> None:
        first, last = max(math.ceil(rect.top() - 0.5), 0), min(math.floor(rect.bottom() + 0.5), len(self._errors) - 1)
        self.rows_picked.emit(list(range(first, last + 1)), add)
