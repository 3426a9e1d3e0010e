"""BoxItem: boxes of one colour on a plot; joined, when there are more than can be seen."""

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QLineF, QPointF, QRectF
from PySide6.QtGui import QPainter

MOST = 1000
"""Boxes drawn; more, which are narrower than a pixel, are drawn a few as one."""


class BoxItem(pg.GraphicsObject):  # type: ignore[misc]
    """Boxes of one width at x [n], through y [n, 5]: least, three quarters, largest."""

    def __init__(self, x: NDArray[np.float64], half: float, y: NDArray[np.float64], color: str, ink: str) -> None:
        super().__init__()
        self._fill, self._line, self._ink = pg.mkColor(color), pg.mkPen(color, width=1), pg.mkPen(ink)
        self._fill.setAlpha(150)
        low, high = QPointF(float(x.min()) - half, float(y.min())), QPointF(float(x.max()) + half, float(y.max()))
        self._bounds = QRectF(low, high)
        several = -(-len(x) // MOST)
        self._half = half * several
        self._make_boxes(*(_joined(x, y, several) if several > 1 else (x, y)))

    def _make_boxes(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        half, columns = self._half, list(zip(x.tolist(), *y.T.tolist(), strict=True))
        self._rects = [QRectF(at - half, q1, 2 * half, q3 - q1) for at, _, q1, _, q3, _ in columns]
        self._stems = [QLineF(at, low, at, q1) for at, low, q1, *_ in columns]
        self._stems += [QLineF(at, q3, at, high) for at, *_, q3, high in columns]
        medians = [QLineF(at - half, middle, at + half, middle) for at, _, _, middle, *_ in columns]
        alone = np.ptp(y, axis=1) == 0  # a box of one layer is a line of its colour
        self._medians = [line for line, one in zip(medians, alone, strict=True) if not one]
        self._alone = [line for line, one in zip(medians, alone, strict=True) if one]

    def boundingRect(self) -> QRectF:
        """All boxes, with room for the pens."""
        x, y = (abs(v) * 3 for v in (self.pixelWidth() or 0.0, self.pixelHeight() or 0.0))
        return self._bounds.adjusted(-x, -y, x, y)

    def paint(self, painter: QPainter, *_: object) -> None:
        """Draw the boxes, without rims where these would hide them."""
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
        narrow = 2 * self._half < 4 * (self.pixelWidth() or 0.0)
        stem = pg.mkColor(self._line.color())
        stem.setAlpha(110 if narrow else 255)
        painter.setPen(pg.mkPen(stem))
        painter.drawLines(self._stems)
        painter.setPen(pg.mkPen(None) if narrow else self._line)
        painter.setBrush(self._fill)
        painter.drawRects(self._rects)
        for lines, pen, width in ((self._medians, self._ink, 2), (self._alone, self._line, 3)):
            painter.setPen(pg.mkPen(pen.color(), width=1 if narrow else width))
            painter.drawLines(lines)


def _joined(
    x: NDArray[np.float64], y: NDArray[np.float64], several: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Several boxes as one: from the least to the largest of all, and the means of their quarters."""
    starts = np.arange(0, len(x), several)
    counts = np.diff(np.append(starts, len(x)))
    quarters = np.add.reduceat(y, starts, axis=0) / counts[:, None]
    quarters[:, 0], quarters[:, -1] = np.minimum.reduceat(y[:, 0], starts), np.maximum.reduceat(y[:, -1], starts)
    return np.add.reduceat(x, starts) / counts, quarters
