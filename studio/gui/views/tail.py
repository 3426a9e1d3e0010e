"""TailView: the share of weights beyond x sigma, against a Gaussian: the plot that shows heavy tails best."""

from dataclasses import dataclass

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtWidgets import QWidget

from studio import core
from studio.gui.shell.specs import keys_of
from studio.gui.views.axes import powers_of_ten, sigmas
from studio.gui.views.columns import short
from studio.gui.views.distributions import (
    EDGES,
    PLACES,
    SIX_SIGMA,
    beyond,
    gaussian_beyond,
    rows,
    sigma_text,
)
from studio.gui.views.figure import Figure
from studio.gui.views.labels import STROKES, Entry
from studio.gui.views.plot import Plot, upright_mark
from studio.gui.views.plot_view import DistributionView

MOST = 8
CYCLE = ("line", "dash", "dash-dot", "dash-dot-dot")
HEAVIEST = 3
COLORS = ("key", "up", "embedding", "down", "query", "gate", "router", "output")
"""Of curves, in turn."""
_FROM = -2.0


@dataclass(frozen=True, slots=True)
class Curve:
    """The tail of a layer, or of all (no name): binary logarithm of |w| / sigma, decimal logarithm of the share."""

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]


class TailView(DistributionView):
    """A curve per selected layer; with no selection, one of all layers and those with the heaviest tails.

    A click takes the layer of a curve, dragging those of the curves inside.

    Signals: see `View`.
    """

    TITLE = "Tail"
    EMPTY = f"No weights have been counted yet.\nQuantize ({keys_of('quantize')}) to see which layers have heavy tails."

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.curves: list[Curve] = []

    def new_plot(self) -> Plot:
        """The plot."""
        return Plot("|w| in multiples of σ", "share beyond", sigmas, powers_of_ten)

    def selection_changed(self) -> None:
        """Show the selected layers."""
        self.redraw()

    def detail_changed(self) -> None:
        """Show the tail of a layer in finer steps."""
        self.redraw()

    def redraw(self) -> None:
        """Draw everything again."""
        if not len(self.distributions):
            self.show_empty(self.EMPTY)
            return
        self.curves = self._choose()
        self.plot.plotItem.clear()
        x = np.linspace(_FROM, 3.1, 120)
        y = np.log10(np.maximum(gaussian_beyond(2**x), 1e-300))
        pen = pg.mkPen(self.theme.text, width=1, style=Qt.PenStyle.DotLine)
        self.plot.addItem(pg.PlotCurveItem(x, y, pen=pen), ignoreBounds=True)
        for curve, entry in zip(self.curves, self._entries(), strict=False):
            width = 2 if curve.name else 3
            self.plot.addItem(
                pg.PlotCurveItem(curve.x, curve.y, pen=pg.mkPen(entry.color, width=width, style=STROKES[entry.shape])),
                ignoreBounds=True,
            )
        mark = upright_mark(SIX_SIGMA, "6 σ", self.theme, self.font())
        self.plot.addItem(mark, ignoreBounds=True)
        self.show_filled(self._summary(), self._entries())
        if self.plot.fitted:
            self.fit()

    def _choose(self) -> list[Curve]:
        chosen = self.distributions.chosen(self.selection)
        if chosen:
            return [self._curve(layer) for layer in chosen[:MOST]]
        layers = self.distributions.layers()
        heavy = sorted(layers, key=_reach, reverse=True)[:HEAVIEST] if len(layers) > 1 else layers
        counts = self.distributions.counts([])
        whole = [_curve("", counts, int(counts.sum()))] if len(layers) > 1 else []
        return [*whole, *(self._curve(layer) for layer in heavy)]

    def _curve(self, layer: core.LayerResult) -> Curve:
        if self.detail and self.detail.name == layer.name and self.detail.tail[0]:
            x, share = np.log2(self.detail.tail[0]), np.array(self.detail.tail[1])
            return Curve(layer.name, x[share > 0], np.log10(share[share > 0]))
        assert layer.statistics is not None
        return _curve(layer.name, np.array(layer.statistics.histogram, np.int64), layer.count)

    def _entries(self) -> list[Entry]:
        colors = [self.theme.kinds[color] for color in COLORS]
        found = []
        for number, curve in enumerate(self.curves):
            name = short(curve.name, 32) if curve.name else "all layers"
            color = colors[number % len(colors)] if curve.name else self.theme.muted
            found.append(Entry(name, color, CYCLE[number % len(CYCLE)]))
        return [*found, Entry("a Gaussian", self.theme.text, "dotted")]

    def fit(self) -> None:
        """All curves, down to a tenth of the rarest weight."""
        if not self.curves:
            return
        right = max(max(float(curve.x[-1]) for curve in self.curves if len(curve.x)), SIX_SIGMA) + 0.3
        bottom = min(min(float(curve.y.min()) for curve in self.curves if len(curve.y)), -3.0)
        self.plot.show_range((_FROM, right), (bottom - 0.4, 0.15))

    def _summary(self) -> str:
        chosen = self.distributions.chosen(self.selection)
        if len(chosen) > MOST:
            return f"the first {MOST} of {core.counted(len(chosen), 'selected layer')}"
        layers = chosen or self.distributions.layers()
        worst = max(layers, key=_reach)
        return (
            f"heaviest: {short(worst.name)}, up to {sigma_text(_reach(worst))}; a Gaussian of that size ends near 5 σ"
        )

    # The mouse

    def curve_at(self, point: QPointF) -> Curve | None:
        """The curve near a place in data coordinates."""
        reach = 12 * self.plot.pixels()[1]
        best = None
        for curve in self.curves:
            if len(curve.x) and curve.x[0] <= point.x() <= curve.x[-1] + 0.1:
                distance = abs(float(np.interp(point.x(), curve.x, curve.y)) - point.y())
                if distance < reach:
                    best, reach = curve, distance
        return best

    def tip_at(self, point: QPointF) -> list[str]:
        """What a tooltip says at a place in data coordinates."""
        curve = self.curve_at(point)
        if curve is None:
            return []
        x = 2.0 ** point.x()
        share = 10 ** float(np.interp(point.x(), curve.x, curve.y))
        gaussian = float(gaussian_beyond(np.array([x]))[0])
        name = core.printable(curve.name) if curve.name else "all layers"
        return [name, f"{share:.3g} of the weights are beyond {sigma_text(x)}", f"of a Gaussian: {gaussian:.3g}"]

    def picked(self, point: QPointF, add: bool) -> None:
        """Take the layer of a curve."""
        curve = self.curve_at(point)
        if curve is not None and curve.name:
            self.pick([curve.name], add)
        elif curve is None and not add:
            self.pick([])

    def opened(self, point: QPointF) -> None:
        """Inspect the layer of a curve, or show all."""
        curve = self.curve_at(point)
        if curve is not None and curve.name:
            self.layer_activated.emit(curve.name)
        else:
            self.fit()

    def banded(self, rect: QRectF, add: bool) -> None:
        """Take every layer, drawn or not, whose tail passes through the rectangle."""
        layers = self.distributions.layers()
        if not layers:
            return
        counts = np.array([layer.count for layer in layers])
        shares = beyond(rows(layers), 1) / np.maximum(counts, 1)[:, None]
        with np.errstate(divide="ignore"):
            y = np.log10(shares)
        columns = (rect.left() <= PLACES) & (rect.right() >= PLACES)
        inside = ((y >= rect.top()) & (y <= rect.bottom()))[:, columns].any(axis=1)
        self.pick([layer.name for layer, hit in zip(layers, inside, strict=True) if hit], add)

    def figure(self) -> Figure:
        """Share beyond each multiple of sigma, a column per curve."""
        names = [core.printable(curve.name) if curve.name else "all layers" for curve in self.curves]
        places = [float(x) for x in EDGES if x >= 0.25]
        found = []
        for x in places:
            shares = [_share_at(curve, x) for curve in self.curves]
            found.append((x, *shares, float(gaussian_beyond(np.array([x]))[0])))
        return Figure(self.TITLE, ("beyond, sigma", *names, "Gaussian"), found)


def _share_at(curve: Curve, x: float) -> float:
    place = np.log2(x)
    if not len(curve.x) or place > curve.x[-1] + 1e-9:
        return 0.0
    return float(10 ** np.interp(place, curve.x, curve.y))


def _curve(name: str, counts: NDArray[np.int64], total: int) -> Curve:
    share = beyond(counts, total)
    seen = share > 0
    return Curve(name, PLACES[seen], np.log10(share[seen]))


def _reach(layer: core.LayerResult) -> float:
    statistics = layer.statistics
    return statistics.max_abs / statistics.sigma if statistics and statistics.sigma else 0.0
