"""BudgetPlot: what the best mix of each size loses, with its noise, single formats, the plan, a moving budget."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QPointF
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QWidget

from studio.gui.shell.theme import LIGHT, Theme
from studio.gui.views.axes import nice, powers_of_ten
from studio.gui.views.kinds import SHAPES
from studio.gui.views.labels import Entry
from studio.gui.views.plot import Marks, Plot, upright_mark

CURVE_POINTS = 800
"""Points of the curve that are drawn: more are no finer on any screen."""

_REACH = 14
_LEAST = 1e-12
_BAND = 60


@dataclass(frozen=True, slots=True)
class Spot:
    """A plan: its name, bits per weight of the whole model, what it loses, and the standard error of that."""

    name: str
    bits: float
    lost: float
    noise: float | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """The decimal logarithms of what it loses, less and more one standard error."""
        noise = self.noise or 0.0
        return _log(self.lost - noise), _log(self.lost + noise)

    @property
    def text(self) -> str:
        """What it loses, with the noise."""
        return f"{self.lost:.4g}" + (f" ± {self.noise:.2g}" if self.noise else "")


def _log(value: float) -> float:
    return math.log10(max(value, _LEAST))


def _between(bits: NDArray[np.float64], lost: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Straight lines between places, as they are on an axis of decimal logarithms."""
    if not len(bits):
        return bits, lost
    places = np.linspace(bits[0], bits[-1], CURVE_POINTS)
    return places, np.log10(np.maximum(np.interp(places, bits, lost), _LEAST))


class BudgetPlot(Plot):
    """Bits per weight across, the decimal logarithm of what is lost upwards; only what moves is drawn anew."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("bits per weight, whole model", "damage", nice, powers_of_ten, parent)
        self.theme: Theme = LIGHT
        self.singles: list[Spot] = []
        self.measured: list[Spot] = []
        self.plan: Spot | None = None
        self._spot: Spot | None = None
        self._curve, self._low, self._high = (pg.PlotCurveItem() for _ in range(3))
        self._band = pg.FillBetweenItem(self._low, self._high)
        self._whiskers = pg.PlotCurveItem(connect="pairs")
        self._dots, self._truths, self._now, self._mix = (Marks() for _ in range(4))
        for item in (self._band, self._curve, self._dots, self._whiskers, self._truths, self._now, self._mix):
            self.addItem(item, ignoreBounds=True)
        self._marks: list[pg.InfiniteLine] = []
        self._places: tuple[float, float | None] = (0.0, None)

    def take_theme(self, theme: Theme) -> None:
        """Draw in other colours."""
        self.theme = theme
        self.set_theme(theme)
        band = QColor(theme.accent)
        band.setAlpha(_BAND)
        self._curve.setPen(pg.mkPen(theme.accent, width=2))
        self._band.setBrush(pg.mkBrush(band))
        for edge in (self._low, self._high):
            edge.setPen(pg.mkPen(None))
        self._whiskers.setPen(pg.mkPen(theme.good, width=1.5))
        self._renew_marks()
        self._draw_spots()

    def show_curve(self, bits: NDArray[np.float64], lost: NDArray[np.float64]) -> None:
        """What the best mixes lose, by size, and at least between them; what loses nothing is beyond the axis."""
        places, found = _between(bits, lost)
        self._curve.setData(places, found)

    def show_noise(self, bits: NDArray[np.float64], lost: NDArray[np.float64], noise: NDArray[np.float64]) -> None:
        """A standard error to both sides of the curve, at some places; none where no noise is known."""
        for edge, side in ((self._low, -1), (self._high, 1)):
            places, found = _between(bits, lost + side * noise)
            edge.setData(places, found)
        self._band.setVisible(len(bits) > 0)

    def show_spots(self, singles: Sequence[Spot], measured: Sequence[Spot], plan: Spot | None) -> None:
        """Single formats, what was measured, and the plan of now."""
        self.singles, self.measured, self.plan = list(singles), list(measured), plan
        self._draw_spots()

    def move(self, mix: Spot, budget: float, marked: float | None) -> None:
        """The mix within a budget, and the budget that it is compared with, if any."""
        self._spot = mix
        self._draw(self._mix, [mix], self.theme.text, "dot")
        if (marked is None) != (self._places[1] is None) or not self._marks:
            self._places = budget, marked
            self._renew_marks()
        self._places = budget, marked
        for line, place in zip(self._marks, self._places, strict=False):
            line.setValue(place)

    def entries(self) -> list[Entry]:
        """What the legend says."""
        theme = self.theme
        found = [
            Entry("best mixes", theme.accent, "line"),
            Entry("single formats", theme.kinds["up"], "dot"),
            Entry("the plan", theme.kinds["output"], "square"),
            Entry("the mix", theme.text, "dot"),
        ]
        return found + ([Entry("measured", theme.good, "diamond")] if self.measured else [])

    def spot_at(self, point: QPointF) -> Spot | None:
        """The dot at a place in data coordinates."""
        wide, high = self.pixels()
        for spot in (*self.measured, *([self.plan] if self.plan else []), *self.singles):
            away = (point.x() - spot.bits) / wide, (point.y() - _log(spot.lost)) / high
            if spot.lost > 0 and math.hypot(*away) < _REACH:
                return spot
        return None

    def _draw_spots(self) -> None:
        theme, plan = self.theme, [self.plan] if self.plan else []
        self._draw(self._dots, self.singles, theme.kinds["up"], "dot")
        self._draw(self._truths, self.measured, theme.good, "diamond")
        self._draw(self._now, plan, theme.kinds["output"], "square")
        self._draw(self._mix, [self._spot] if self._spot else [], theme.text, "dot")
        noisy = [spot for spot in self.measured if spot.noise and spot.lost > 0]
        across = [spot.bits for spot in noisy for _ in range(2)]
        self._whiskers.setData(across, [end for spot in noisy for end in spot.ends])

    def _draw(self, marks: Marks, spots: Sequence[Spot], color: str, shape: str) -> None:
        shown = [spot for spot in spots if spot.lost > 0]
        look = {"symbol": SHAPES[shape], "size": 10, "brush": pg.mkBrush(color), "pen": pg.mkPen(self.theme.surface)}
        marks.setData([spot.bits for spot in shown], [_log(spot.lost) for spot in shown], **look)

    def _renew_marks(self) -> None:
        for line in self._marks:
            self.removeItem(line)
        named = [("budget", self._places[0]), ("marked", self._places[1])]
        self._marks = [upright_mark(place, name, self.theme, self.font()) for name, place in named if place is not None]
        for line in self._marks:
            self.addItem(line, ignoreBounds=True)
