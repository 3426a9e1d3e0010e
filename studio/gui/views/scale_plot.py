"""ScalePlot: blocks by the E4M3 byte of their scale, over the zones of E4M3."""

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, QRectF
from PySide6.QtGui import QFontMetrics
from PySide6.QtWidgets import QWidget

from studio import core
from studio.gui.shell.theme import Theme
from studio.gui.views.axes import Tick, nice
from studio.gui.views.plot import Plot

_SPREAD = (8.0, *(3.0,) * 7, *(1.0,) * 118, 6.0)
"""Width of each scale byte along the axis: the few of the small zones are drawn wider, to be seen."""

PLACES = np.concatenate([[0.0], np.cumsum(_SPREAD)])
STARTS = [float(PLACES[byte]) for byte in core.ZONE_STARTS]
_RANK = {zone: rank for rank, zone in enumerate((core.ZONES[1], core.ZONES[0], core.ZONES[3], core.ZONES[2]))}
"""Whose label is placed first."""
LOW = 14
"""Text heights: a plot that is lower names no zones, only their shares."""


_MARKS = ((0, "0"), (8, "2⁻⁶"), (24, "2⁻⁴"), (40, "2⁻²"), (56, "1"), (72, "4"), (88, "16"), (104, "64"), (126, "448"))
_FEW = ("0", "2⁻⁶", "1", "448")


def scale_ticks(low: float, high: float, room: int) -> list[Tick]:
    """Ticks at the values of scale bytes: all of them, or the borders of the zones."""
    shown = [(byte, text) for byte, text in _MARKS if room >= len(_MARKS) or text in _FEW]
    places = [((PLACES[byte] + PLACES[byte + 1]) / 2, text) for byte, text in shown]
    return [(float(place), text) for place, text in places if low <= place <= high]


class ScalePlot(Plot):
    """Blocks by the E4M3 byte of their scale, over the zones of E4M3."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("block scale, E4M3", "blocks, %", scale_ticks, nice, parent)
        self.x_axis.label_width = 2.6
        self.vertical_grid = False
        self.box.setMouseEnabled(x=False, y=False)
        self.regime: core.Regime | None = None
        self._shares: NDArray[np.float64] = np.zeros(len(PLACES) - 1)
        self._theme: Theme | None = None
        self._bars: pg.BarGraphItem | None = None
        self._zones: list[tuple[str, float, pg.TextItem]] = []
        self._labels: list[tuple[pg.TextItem, str, str]] = []
        self._low = 0
        self._top = 1.0
        self.box.sigResized.connect(lambda _: self._fit())

    def show_regime(self, regime: core.Regime, theme: Theme, color: str, top: float) -> None:
        """Draw the blocks of a regime, on an axis up to `top` percent."""
        self.regime, self._top = regime, top
        if theme != self._theme:
            self._theme = theme
            self._draw_zones(theme)
        self._shares = 100 * regime.counts / max(regime.blocks, 1)
        self._draw_bars(color)
        self._place_labels(regime, top)
        self._fit()

    def _draw_bars(self, color: str) -> None:
        filled = self._shares > 0
        if self._bars is not None:
            self.removeItem(self._bars)
        edges = {"x0": PLACES[:-1][filled], "x1": PLACES[1:][filled], "y0": 0, "height": self._shares[filled]}
        self._bars = pg.BarGraphItem(**edges, brush=color, pen=pg.mkPen(None))
        self.addItem(self._bars, ignoreBounds=True)

    def _fit(self) -> None:
        """All scales, with room for half of the last label, and names of the zones where there is room."""
        half = 0.5 * self.fontMetrics().horizontalAdvance("448") + 2
        margin = half * float(PLACES[-1]) / max(self.box.width() - half, 4 * half)
        self.show_range((PLACES[0], PLACES[-1] + margin), (0.0, self._top))
        self._write_labels()

    def _draw_zones(self, theme: Theme) -> None:
        """They are the same for every regime, and drawn once: each is three items of the scene."""
        self.plotItem.clear()
        self._zones, self._bars, self._low = [], None, LOW * theme.font_px
        tints = (theme.error, theme.warning, theme.good, theme.error)
        for zone, tint, low, high in zip(core.ZONES, tints, STARTS, STARTS[1:], strict=False):
            color = pg.mkColor(tint)
            color.setAlpha(70 if zone != "normal" else 26)
            region = pg.LinearRegionItem((low, high), movable=False, brush=color, pen=pg.mkPen(None))
            region.setZValue(-50)
            self.addItem(region, ignoreBounds=True)
            self._zones.append((zone, (low + high) / 2, self._label_of(zone, theme)))

    def _label_of(self, zone: str, theme: Theme) -> pg.TextItem:
        upright = zone == "normal"
        label = pg.TextItem(color=theme.text, anchor=(0.5, 0) if upright else (1, 0.5), angle=0 if upright else 90)
        label.setFont(self.font())
        label.setZValue(20)
        self.addItem(label, ignoreBounds=True)
        return label

    def _place_labels(self, regime: core.Regime, top: float) -> None:
        self._labels = []
        for zone, middle, label in self._zones:
            share = _percent(regime.share(zone))
            label.setPos(middle, top)
            self._labels.append((label, f"{zone} {share}", share))

    def _write_labels(self) -> None:
        """Name the zones where there is room: a text that would lie on another is shortened, or left out."""
        taken: list[QRectF] = []
        for label, named, share in sorted(self._labels, key=lambda one: _RANK[one[1].partition(" ")[0]]):
            tall = self.height() > self._low or not label.angle
            for text in (named, share, "") if tall else (share, ""):
                label.setText(text)
                place = self._place_of(label, text)
                if not text or not any(place.intersects(other) for other in taken):
                    break
            if label.toPlainText():
                taken.append(place)

    def _place_of(self, label: pg.TextItem, text: str) -> QRectF:
        """Pixels that a label takes with a text."""
        metrics = QFontMetrics(self.font())
        length, height = metrics.horizontalAdvance(text) + 10.0, metrics.height() + 4.0
        width, down = (height, length) if label.angle else (length, height)
        return QRectF(label.pos().x() / self.pixels()[0] - width / 2, 0, width, down)

    def tip_at(self, point: QPointF) -> list[str]:
        """What a tooltip says at a place in data coordinates."""
        if self.regime is None or not 0 <= point.x() < PLACES[-1]:
            return []
        byte = int(np.searchsorted(PLACES, point.x(), side="right")) - 1
        place = int(np.searchsorted(core.ZONE_STARTS, byte, side="right")) - 1
        zone = core.ZONES[place]
        return [
            f"scale {value_text(byte)} (byte 0x{byte:02X}), {zone}",
            f"{core.counted(int(self.regime.counts[byte]), 'block')}, {self._shares[byte]:.2f}% of all",
            f"{zone} in all: {_percent(self.regime.share(zone))}",
        ]


def value_text(byte: int) -> str:
    """The value of a scale byte."""
    exponent, mantissa = divmod(byte, 8)
    value = 2.0**-9 * mantissa if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return f"{value:g}"


def _percent(share: float) -> str:
    if share == 0:
        return "0%"
    return f"{share:.0%}" if 0.01 <= share <= 0.99 or share == 1 else "<1%" if share < 0.5 else ">99%"


def zone_of(byte: int) -> str:
    """The zone of a scale byte."""
    return core.ZONES[int(np.searchsorted(core.ZONE_STARTS, byte, side="right")) - 1]
