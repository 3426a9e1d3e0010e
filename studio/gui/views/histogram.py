"""HistogramView: how many weights have which magnitude, before and after, with the outliers beyond 6 sigma."""

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtWidgets import QWidget

from studio import core
from studio.gui.shell.specs import keys_of
from studio.gui.views.axes import Tick, powers_of_ten, sigmas
from studio.gui.views.columns import short
from studio.gui.views.distributions import EDGES, PLACES, SIX_SIGMA, gaussian_bins, rows, sigma_text
from studio.gui.views.figure import Figure
from studio.gui.views.labels import Entry
from studio.gui.views.plot import Plot, upright_mark
from studio.gui.views.plot_view import DistributionView

FLOOR = -0.35
"""Where bars begin: one weight is at 0 on the logarithmic axis, and must be seen."""

_ZERO_GAP = 1.0


class HistogramView(DistributionView):
    """Weights by |w| / sigma, both axes logarithmic: source filled, after quantizing as a line.

    Dragging over bars selects the layers that have weights there.

    Signals: see `View`.
    """

    TITLE = "Outliers"
    EMPTY = f"No weights have been counted yet.\nQuantize ({keys_of('quantize')}) to see which layers have outliers."

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.source: NDArray[np.int64] = np.zeros(len(EDGES) - 1, np.int64)
        self.after: NDArray[np.int64] | None = None
        self._zeros: tuple[int, int] | None = None
        self._gaussian = gaussian_bins()

    def new_plot(self) -> Plot:
        """The plot, whose magnitudes can be looked at closely."""
        plot = Plot("|w| in multiples of σ, the layer's standard deviation", "weights", sigmas, powers_of_ten)
        plot.box.setMouseEnabled(x=True, y=False)
        return plot

    # Data

    def selection_changed(self) -> None:
        """Show the selected layers alone, and ask for what became of a single one."""
        self.redraw()
        chosen = self.distributions.chosen(self.selection)
        if len(chosen) == 1 and (self.detail is None or self.detail.name != chosen[0].name):
            self.detail_wanted.emit(chosen[0].name)

    def detail_changed(self) -> None:
        """Lay what became of the weights over the source."""
        self.redraw()

    def redraw(self) -> None:
        """Draw everything again."""
        if not len(self.distributions):
            self.show_empty(self.EMPTY)
            return
        chosen = self.distributions.chosen(self.selection)
        self.source = self.distributions.counts(chosen)
        detail = self.detail if len(chosen) == 1 and self.detail and self.detail.name == chosen[0].name else None
        side = detail.a if detail else None
        self.after = np.array(side.histogram, np.int64) if side else None
        self._zeros = (detail.zeros, side.zeros) if detail and side else None
        self._draw()
        self.show_filled(self._summary(), self._legend(side.format if side else ""))
        if self.plot.fitted:
            self.fit()

    # Drawing

    def _draw(self) -> None:
        self.plot.plotItem.clear()
        grey, accent = pg.mkColor(self.theme.muted), pg.mkColor(self.theme.warning)
        grey.setAlpha(110)
        accent.setAlpha(28)
        outside = pg.LinearRegionItem((SIX_SIGMA, PLACES[-1]), movable=False, brush=accent, pen=pg.mkPen(None))
        outside.setZValue(-20)
        self.plot.addItem(outside, ignoreBounds=True)
        self._bars(PLACES[:-1], PLACES[1:], self.source, grey, float(PLACES[self._first()]) + 1e-9)
        self._curve(self._gaussian * self.source.sum(), self.theme.text, Qt.PenStyle.DotLine)
        if self.after is not None:
            self._steps(self.after)
        if self._zeros:
            self._draw_zeros(*self._zeros, grey)
        mark = upright_mark(SIX_SIGMA, "6 σ", self.theme, self.font())
        self.plot.addItem(mark, ignoreBounds=True)

    def _bars(
        self,
        low: NDArray[np.float64],
        high: NDArray[np.float64],
        counts: NDArray[np.int64],
        color: object,
        left: float = -99.0,
    ) -> None:
        filled = (counts > 0) & (high >= left)
        top = np.log10(np.maximum(counts[filled], 1))
        self.plot.addItem(
            pg.BarGraphItem(
                x0=low[filled], x1=high[filled], y0=FLOOR, height=top - FLOOR, brush=color, pen=pg.mkPen(None)
            ),
            ignoreBounds=True,
        )

    def _curve(self, counts: NDArray[np.float64], color: str, line: Qt.PenStyle) -> None:
        seen = (counts > 0.4) & (np.arange(len(counts)) >= self._first())
        middle = (PLACES[:-1] + PLACES[1:]) / 2
        pen = pg.mkPen(color, width=1, style=line)
        self.plot.addItem(pg.PlotCurveItem(middle[seen], np.log10(counts[seen]), pen=pen), ignoreBounds=True)

    def _steps(self, counts: NDArray[np.int64]) -> None:
        assert self.detail is not None
        assert self.detail.a is not None
        first = self._first()
        heights = np.where(counts > 0, np.log10(np.maximum(counts, 1)), FLOOR)
        pen = pg.mkPen(self.theme.format_color(self.detail.a.format), width=2)
        self.plot.addItem(
            pg.PlotCurveItem(PLACES[first:], heights[first:], stepMode="center", pen=pen), ignoreBounds=True
        )

    def _draw_zeros(self, before: int, after: int, grey: object) -> None:
        """Zeros have no place on a logarithmic axis: they stand to the left of it."""
        assert self.detail is not None
        assert self.detail.a is not None
        x = np.array([self._zero_place()])
        self._bars(x - 0.3, x, np.array([before]), grey)
        self._bars(x, x + 0.3, np.array([after]), self.theme.format_color(self.detail.a.format))

    def _zero_place(self) -> float:
        return float(PLACES[self._first()]) - _ZERO_GAP

    def _first(self) -> int:
        """The first bin shown: below 1/32 sigma only when nothing else is filled."""
        filled = np.flatnonzero(self.source)
        return int(min(filled[0] if len(filled) else 0, 28) if not len(filled) else min(max(filled[0], 28), filled[-1]))

    def fit(self) -> None:
        """All filled bins, from 1/32 sigma on."""
        filled = np.flatnonzero(self.source)
        if not len(filled):
            return
        left = self._zero_place() - 0.6 if self._zeros else float(PLACES[self._first()]) - 0.2
        right = max(float(PLACES[filled[-1] + 1]), SIX_SIGMA) + 0.5
        tallest = max(int(self.source.max()), *([int(self.after.max())] if self.after is not None else []), 1)
        ticks = sigmas
        if self._zeros:
            zero: Tick = (self._zero_place(), "0")
            first = float(PLACES[self._first()])
            self.plot.x_axis.set_ticks(lambda a, b, room: [zero, *(t for t in sigmas(a, b, room) if t[0] >= first)])
        else:
            self.plot.x_axis.set_ticks(ticks)
        self.plot.show_range((left, right), (FLOOR, np.log10(tallest) * 1.08 + 0.2))

    # Words and numbers

    def _legend(self, form: str) -> list[Entry]:
        found = [Entry("source", self.theme.muted), Entry("a Gaussian", self.theme.text, "dotted")]
        if form:
            found.insert(1, Entry(f"after {form}", self.theme.format_color(form), "line"))
        return found

    def _summary(self) -> str:
        chosen = self.distributions.chosen(self.selection)
        layers = chosen or self.distributions.layers()
        outliers = sum(layer.statistics.outliers for layer in layers if layer.statistics)
        total = int(self.source.sum())
        who = short(layers[0].name) if len(layers) == 1 else core.counted(len(layers), "layer")
        worst = max(
            (
                layer.statistics.max_abs / layer.statistics.sigma
                for layer in layers
                if layer.statistics and layer.statistics.sigma
            ),
            default=0.0,
        )
        share = f"{outliers:,} of {core.counted(total, 'weight')} beyond 6 σ" if outliers else "no weight beyond 6 σ"
        return f"{who}: {share}, the largest at {sigma_text(worst)}"

    def tip_at(self, point: QPointF) -> list[str]:
        """What a tooltip says at a place in data coordinates."""
        if not len(self.distributions):
            return []
        if self._zeros and point.x() < PLACES[self._first()]:
            return [
                "exactly zero",
                f"source: {core.counted(self._zeros[0], 'weight')}",
                f"after: {core.counted(self._zeros[1], 'weight')}",
            ]
        place = int(np.searchsorted(PLACES, point.x(), side="right")) - 1
        if not 0 <= place < len(self.source):
            return []
        total = max(int(self.source.sum()), 1)
        count = int(self.source[place])
        lines = [
            f"{sigma_text(EDGES[place])} to {sigma_text(EDGES[place + 1])}",
            f"source: {core.counted(count, 'weight')} ({count / total:.3%})",
            f"a Gaussian: {self._gaussian[place] * total:,.1f}",
        ]
        if self.after is not None:
            lines.insert(2, f"after: {core.counted(int(self.after[place]), 'weight')}")
        return lines

    def opened(self, point: QPointF) -> None:
        """Show all."""
        self.fit()

    def banded(self, rect: QRectF, add: bool) -> None:
        """Take the layers that have weights there."""
        inside = (PLACES[1:] > rect.left()) & (PLACES[:-1] < rect.right())
        layers = self.distributions.layers()
        if inside.any() and layers:
            found = np.flatnonzero(rows(layers)[:, inside].sum(axis=1))
            self.pick([layers[i].name for i in found], add)

    def figure(self) -> Figure:
        """Bin by bin."""
        heads = ("from, sigma", "to, sigma", "source, weights", "Gaussian, weights")
        total = int(self.source.sum())
        found = [
            [float(EDGES[i]), float(EDGES[i + 1]), int(self.source[i]), float(self._gaussian[i] * total)]
            for i in range(len(self.source))
        ]
        if self.after is None:
            return Figure(self.TITLE, heads, found)
        for row, count in zip(found, self.after, strict=True):
            row.append(int(count))
        return Figure(self.TITLE, (*heads, "after, weights"), found)
