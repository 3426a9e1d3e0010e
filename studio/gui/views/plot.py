"""Plot: one pair of axes in the window's colours, where dragging selects and the wheel zooms."""

import math
from typing import Any

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QColor, QFont, QImage, QPaintEngine, QPainter
from PySide6.QtWidgets import QGraphicsView, QSizePolicy, QWidget

from studio.gui.shell.theme import Theme
from studio.gui.views.axes import Ruler, Ticks, nice, style


class SelectBox(pg.ViewBox):  # type: ignore[misc]
    """The inside of a plot: left drag draws a rubber band, middle drag pans, right click asks for the menu.

    Signals:
        picked(QPointF, bool): a click in data coordinates; True with Ctrl or Shift held.
        opened(QPointF): a double click.
        banded(QRectF, bool): a rubber band in data coordinates.
    """

    picked = Signal(QPointF, bool)
    opened = Signal(QPointF)
    banded = Signal(QRectF, bool)

    def __init__(self) -> None:
        super().__init__(enableMenu=False)

    def mouseDragEvent(self, ev: Any, axis: int | None = None) -> None:
        """Draw the rubber band, and tell its rectangle when it is let go."""
        if ev.button() != Qt.MouseButton.LeftButton or axis is not None:
            super().mouseDragEvent(ev, axis)
            return
        ev.accept()
        if not ev.isFinish():
            self.updateScaleBox(ev.buttonDownPos(), ev.pos())
            return
        self.rbScaleBox.hide()
        rect = self.childGroup.mapRectFromParent(QRectF(ev.buttonDownPos(), ev.pos()).normalized())
        self.banded.emit(rect, _adds(ev))

    def mouseClickEvent(self, ev: Any) -> None:
        """Tell a click or a double click with the left button."""
        if ev.button() != Qt.MouseButton.LeftButton:
            return
        ev.accept()
        point = self.mapToView(ev.pos())
        if ev.double():
            self.opened.emit(point)
        else:
            self.picked.emit(point, _adds(ev))


def _adds(ev: Any) -> bool:
    held = ev.modifiers()
    return bool(held & (Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier))


class Plot(pg.PlotWidget):  # type: ignore[misc]
    """A plot with a labelled bottom and left axis.

    Signals:
        hovered(QPointF): the mouse moved, in data coordinates.
        left(): the mouse went away.
    """

    hovered = Signal(QPointF)
    left = Signal()

    def __init__(
        self, x: str, y: str, x_ticks: Ticks = nice, y_ticks: Ticks = nice, parent: QWidget | None = None
    ) -> None:
        self.box = SelectBox()
        self.x_axis, self.y_axis = Ruler("bottom", x_ticks, x), Ruler("left", y_ticks, y)
        super().__init__(parent, viewBox=self.box, axisItems={"bottom": self.x_axis, "left": self.y_axis})
        for axis in (self.x_axis, self.y_axis):
            axis.setZValue(-1000)
        self.box.setZValue(-100)  # an item below the box would be lifted above the others
        self.setMenuEnabled(False)
        self.hideButtons()
        self.setFrameShape(QGraphicsView.Shape.NoFrame)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Ignored)
        self.setMinimumSize(120, 90)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.box.disableAutoRange()
        self.fitted = True
        self.vertical_grid = True
        self.box.sigRangeChangedManually.connect(self._zoomed)
        self.scene().sigMouseMoved.connect(self._moved)

    def set_theme(self, theme: Theme) -> None:
        """Colours and font of the axes and the ground."""
        font = QFont(self.font())
        font.setPixelSize(theme.font_px)
        self.setBackground(theme.surface)
        for axis in (self.x_axis, self.y_axis):
            style(axis, theme.muted, theme.border, theme.grid, font)
            axis.setGrid(255 if axis is self.y_axis or self.vertical_grid else False)
        self.box.rbScaleBox.setPen(pg.mkPen(theme.accent, width=1))
        fill = pg.mkColor(theme.accent)
        fill.setAlpha(40)
        self.box.rbScaleBox.setBrush(pg.mkBrush(fill))

    def show_range(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        """Show exactly this part, which a later zoom is free to leave."""
        self.fitted = True
        self.box.setRange(xRange=x, yRange=y, padding=0, disableAutoRange=True)

    def pixels(self) -> tuple[float, float]:
        """How much of the data one pixel covers, per axis."""
        rect, (width, height) = self.box.viewRect(), (self.box.width(), self.box.height())
        return rect.width() / max(width, 1.0), rect.height() / max(height, 1.0)

    def leaveEvent(self, event: Any) -> None:
        """Tell that nothing is under the mouse."""
        self.left.emit()
        super().leaveEvent(event)

    def _zoomed(self, *_: object) -> None:
        self.fitted = False

    def _moved(self, position: QPointF) -> None:
        if self.box.sceneBoundingRect().contains(position):
            self.hovered.emit(self.box.mapSceneToView(position))
        else:
            self.left.emit()


def upright_mark(place: float, text: str, theme: Theme, font: QFont) -> pg.InfiniteLine:
    """A dashed line across a plot, named at its upper end."""
    mark = pg.InfiniteLine(
        place,
        pen=pg.mkPen(theme.warning, width=1, style=Qt.PenStyle.DashLine),
        label=text,
        labelOpts={"position": 0.94, "color": theme.warning, "anchors": [(-0.1, 0.5), (1.1, 0.5)]},
    )
    mark.label.setFont(font)
    return mark


class Marks(pg.ScatterPlotItem):  # type: ignore[misc]
    """Marks of a few colours and shapes; clicks go through them to the plot, which knows what they mean."""

    def mouseClickEvent(self, ev: Any) -> None:
        """Leave it to the plot."""
        ev.ignore()


class Cloud(pg.GraphicsObject):  # type: ignore[misc]
    """Dots of one size, each with its colour: ten thousand of them in a fraction of a frame.

    They are stamped into one picture, rims first, because a painter takes a millisecond for a thousand round dots.
    """

    def __init__(self, points: NDArray[np.float64], size: int, colors: NDArray[np.uint32]) -> None:
        super().__init__()
        self._points, self._size, self._colors = points, size, colors
        low, high = (points.min(axis=0), points.max(axis=0)) if len(points) else (np.zeros(2), np.zeros(2))
        self._bounds = QRectF(QPointF(*low.tolist()), QPointF(*high.tolist()))

    def boundingRect(self) -> QRectF:
        """All points, with room for their size."""
        x, y = (abs(v) * 10 for v in (self.pixelWidth(), self.pixelHeight()))
        return self._bounds.adjusted(-x, -y, x, y)

    def paint(self, painter: QPainter, *_: object) -> None:
        """Draw the dots."""
        engine = painter.paintEngine()
        if engine is not None and engine.type() == QPaintEngine.Type.SVG:
            self._draw_each(painter)
            return
        to_view = painter.worldTransform()
        ratio = abs(painter.deviceTransform().m11() / to_view.m11())  # pixels of the device per unit of the view
        area = to_view.mapRect(self.viewRect())
        scale = np.array([to_view.m11(), to_view.m22()])
        places = (self._points * scale + (to_view.dx() - area.left(), to_view.dy() - area.top())) * ratio
        size = math.ceil(area.width() * ratio), math.ceil(area.height() * ratio)
        image = _stamped(np.floor(places).astype(np.int64), self._colors, self._size * ratio / 2, *size)
        image.setDevicePixelRatio(ratio)
        painter.save()
        painter.resetTransform()
        painter.drawImage(area.topLeft(), image)
        painter.restore()

    def _draw_each(self, painter: QPainter) -> None:
        """As shapes, for a file of shapes."""
        for color in np.unique(self._colors).tolist():
            pen = pg.mkPen(QColor.fromRgba(color), width=self._size)
            pen.setCapStyle(Qt.PenCapStyle.RoundCap)
            painter.setPen(pen)
            x, y = self._points[self._colors == color].T
            painter.drawPoints(pg.functions.arrayToQPolygonF(x, y))


def _stamped(centres: NDArray[np.int64], colors: NDArray[np.uint32], radius: float, width: int, height: int) -> QImage:
    """A picture of round dots at pixels [n, 2]: first all rims, which shine through, then all that is inside."""
    reach = math.ceil(radius)
    picture = np.zeros((height + 2 * reach, width + 2 * reach), np.uint32)
    x, y = centres.T
    seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    middle = (y[seen] + reach) * picture.shape[1] + x[seen] + reach
    steps = np.arange(-reach, reach + 1)
    cover = np.clip(radius + 0.5 - np.hypot(steps[:, None], steps[None, :]), 0.0, 1.0)
    flat, solid = picture.reshape(-1), colors[seen]
    for share in np.unique(cover[cover > 0]):
        tint = _premultiplied(solid, float(share))
        for down, right in np.argwhere(cover == share) - reach:
            flat[middle + (down * picture.shape[1] + right)] = tint
    inside = np.ascontiguousarray(picture[reach : reach + height, reach : reach + width])
    return QImage(inside.data, width, height, 4 * width, QImage.Format.Format_ARGB32_Premultiplied).copy()


def _premultiplied(colors: NDArray[np.uint32], share: float) -> NDArray[np.uint32]:
    """Opaque 0xAARRGGBB made translucent."""
    channels = np.rint(np.ascontiguousarray(colors).view(np.uint8) * share)
    tint: NDArray[np.uint32] = channels.astype(np.uint8).view(np.uint32)
    return tint


def nearest(points: Any, at: QPointF, pixels: tuple[float, float], reach: float = 14.0) -> int | None:
    """Index of the point [n, 2] nearest to `at` on the screen, None when none is within `reach` pixels."""
    if not len(points):
        return None
    dx, dy = (points[:, 0] - at.x()) / pixels[0], (points[:, 1] - at.y()) / pixels[1]
    distance = dx * dx + dy * dy
    best = int(distance.argmin())
    return best if distance[best] <= reach * reach else None
