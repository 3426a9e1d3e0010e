"""Drawing: what the error plot shows when there are too many layers for a mark each: boxes, or a map of experts."""

from typing import Protocol

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QPointF

from studio.gui.shell.theme import Theme
from studio.gui.views.labels import Entry
from studio.gui.views.plot import Plot

Range = tuple[float, float]


class Drawing(Protocol):
    """Places of all layers, items that show them, and what is under the mouse.

    points: [n, 2], where a rubber band finds each layer.
    """

    points: NDArray[np.float64]

    def items(self, theme: Theme) -> list[pg.GraphicsObject]:
        """What is drawn."""
        ...

    def marked(self, chosen: NDArray[np.int64], theme: Theme) -> list[pg.GraphicsObject]:
        """What is drawn to mark layers."""
        ...

    def layers_at(self, point: QPointF, pixels: tuple[float, float]) -> NDArray[np.int64]:
        """The layers behind a place in data coordinates, `pixels` of which make a pixel."""
        ...

    def tip(self, point: QPointF, pixels: tuple[float, float], line: float) -> list[str]:
        """What a tooltip says there; `line` is the error to warn of."""
        ...

    def legend(self, theme: Theme) -> list[Entry]:
        """Signs and what they mean."""
        ...

    def ranges(self) -> tuple[Range, Range]:
        """What of x and y holds everything."""
        ...

    def label_axes(self, plot: Plot) -> None:
        """Ticks and titles."""
        ...
