"""Panel: a small titled plot of the inspector, and the grid that flows its panels into as many columns as fit."""

from collections.abc import Sequence

import pyqtgraph as pg
from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QCursor, QResizeEvent
from PySide6.QtWidgets import QFrame, QGridLayout, QHBoxLayout, QScrollArea, QToolTip, QVBoxLayout, QWidget

from studio.gui.shell.theme import LIGHT, Theme
from studio.gui.views.axes import Ticks, nice
from studio.gui.views.labels import Line, tip
from studio.gui.views.plot import Plot

COLUMN_WIDTH = 24
PANEL_HEIGHT = 19
"""Text heights that a panel takes at least, across and down."""


class Panel(QWidget):
    """A title above a plot. Dragging zooms into the rectangle, a double click shows all again.

    A subclass overrides `fit` and `tip_at`.
    """

    def __init__(self, title: str, x: str, y: str, x_ticks: Ticks = nice, y_ticks: Ticks = nice) -> None:
        super().__init__()
        self.theme: Theme = LIGHT
        self.title = Line(bold=True)
        self.title.set_text(title)
        self.plot = Plot(x, y, x_ticks, y_ticks)
        self.setAccessibleName(title)
        self.rows = QVBoxLayout(self)
        self.rows.setContentsMargins(0, 0, 0, 0)
        self.rows.setSpacing(2)
        self.head = QHBoxLayout()
        self.head.addWidget(self.title, 1)
        self.rows.addLayout(self.head)
        self.rows.addWidget(self.plot, 1)
        self.plot.hovered.connect(lambda point: self._say(self.tip_at(point)))
        self.plot.left.connect(lambda: self._say([]))
        self.plot.box.opened.connect(lambda _: self.fit())
        self.plot.box.banded.connect(lambda rect, _: self.zoom(rect))

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours."""
        self.theme = theme
        self.title.set_color(theme.text)
        self.plot.set_theme(theme)

    def zoom(self, rect: QRectF) -> None:
        """Show a rectangle of the data."""
        if rect.width() > 0 and rect.height() > 0:
            self.plot.box.setRange(rect, padding=0)
            self.plot.fitted = False

    def fit(self) -> None:
        """Show all of the data."""

    def tip_at(self, point: QPointF) -> list[str]:
        """What a tooltip says at a place in data coordinates."""
        return []

    def add(self, item: pg.GraphicsObject, z: float = 0.0) -> None:
        """Draw an item."""
        item.setZValue(z)
        self.plot.addItem(item, ignoreBounds=True)

    def clear(self) -> None:
        """Take everything away."""
        self.plot.plotItem.clear()

    def _say(self, lines: Sequence[str]) -> None:
        if lines:
            QToolTip.showText(QCursor.pos(), tip(lines), self)
        else:
            QToolTip.hideText()


class PanelGrid(QScrollArea):
    """Panels in as many columns as fit, scrolling down where they do not."""

    def __init__(self, panels: Sequence[Panel], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.panels = list(panels)
        self.content = QWidget()
        self._grid = QGridLayout(self.content)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(8)
        for panel in self.panels:
            panel.setParent(self.content)
        self._wanted = tuple(self.panels)
        self.setWidget(self.content)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        for ground in (self.viewport(), self.content):
            ground.setAutoFillBackground(False)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._font_px = LIGHT.font_px
        self._placed: tuple[int, tuple[Panel, ...]] | None = None
        self.arrange()

    def set_font_px(self, pixels: int) -> None:
        """Panels grow with the text."""
        self._font_px = pixels
        self._placed = None
        self.arrange()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """More or fewer columns."""
        super().resizeEvent(event)
        self.arrange()

    def minimumSizeHint(self) -> QSize:
        """As small as the window wants: it scrolls."""
        return QSize(120, 80)

    def show_panels(self, panels: Sequence[Panel]) -> None:
        """Show these and hide the others."""
        self._wanted = tuple(panel for panel in self.panels if panel in panels)
        self.arrange()

    def arrange(self) -> None:
        """Place the panels that are wanted."""
        columns = max(self.viewport().width() // (COLUMN_WIDTH * self._font_px), 1)
        shown = self._wanted
        if (columns, shown) == self._placed:
            return
        self._placed = (columns, shown)
        for panel in self.panels:
            self._grid.removeWidget(panel)
            panel.setVisible(panel in shown)
        columns = _even(len(shown), columns)
        for number, panel in enumerate(shown):
            panel.setMinimumHeight(PANEL_HEIGHT * self._font_px)
            spans = columns - number % columns if number + 1 == len(shown) else 1
            self._grid.addWidget(panel, number // columns, number % columns, 1, spans)
        for column in range(8):
            self._grid.setColumnStretch(column, 1 if column < columns else 0)


def _even(count: int, columns: int) -> int:
    """At most `columns`, such that no column is empty."""
    return max(min(columns, count), 1)
