"""WarningLine: a line across a plot at an error not to be passed; where that is out of sight, an arrow at the edge."""

from typing import Any

import pyqtgraph as pg
from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QFont

from studio.gui.shell.theme import Theme
from studio.gui.views.plot import Plot

INSET = 8
"""Pixels from the edge at which a line that is out of sight is marked."""


class WarningLine(pg.InfiniteLine):  # type: ignore[misc]
    """A line that can be dragged, also from the edge into the plot.

    Signals:
        sought(): a double click: show where the line is.
    """

    sought = Signal()

    def __init__(self, plot: Plot) -> None:
        options = {"position": 0.995, "anchors": [(1, 0), (1, 1)]}
        super().__init__(0.0, angle=0, movable=True, label="", labelOpts=options)
        self._plot, self._place, self._text = plot, 0.0, ""
        self._theme: Theme | None = None
        self.setZValue(8)
        plot.box.sigYRangeChanged.connect(lambda *_: self._keep_in_sight())
        plot.box.sigResized.connect(lambda *_: self._keep_in_sight())

    @property
    def beyond(self) -> int:
        """1 when the place of the line is above what the plot shows, -1 when it is below, 0 when it is in sight."""
        low, high = self._plot.box.viewRange()[1]
        return int(self._place > high) - int(self._place < low)

    def show_at(self, place: float, text: str) -> None:
        """Stand at a place on the axis of errors, named by a text."""
        self._place, self._text = place, text
        self._keep_in_sight()

    def name(self, text: str) -> None:
        """Show another text, while it is dragged."""
        self.label.setFormat(text)

    def set_theme(self, theme: Theme, font: QFont) -> None:
        """Draw with other colours."""
        self._theme = theme
        ground = pg.mkColor(theme.surface)
        ground.setAlpha(210)
        self.label.fill = pg.mkBrush(ground)
        self.label.setColor(theme.warning)
        self.label.setFont(font)
        self.setHoverPen(pg.mkPen(theme.warning, width=3))
        self._keep_in_sight()

    def _keep_in_sight(self) -> None:
        if self.moving:
            return
        low, high = self._plot.box.viewRange()[1]
        beyond, inset = self.beyond, INSET * self._plot.pixels()[1]
        self.setValue((low + inset, self._place, high - inset)[beyond + 1])
        self.name(self._text + ("  ↓ below the plot", "", "  ↑ above the plot")[beyond + 1])
        if self._theme is not None:
            stroke = Qt.PenStyle.DotLine if beyond else Qt.PenStyle.DashLine
            self.setPen(pg.mkPen(self._theme.warning, width=1, style=stroke))

    def mouseClickEvent(self, ev: Any) -> None:
        """A double click asks where the line is; other clicks are the plot's."""
        if ev.double() and ev.button() == Qt.MouseButton.LeftButton:
            ev.accept()
            self.sought.emit()
        else:
            super().mouseClickEvent(ev)
