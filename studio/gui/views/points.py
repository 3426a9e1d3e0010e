"""PointsView: a mark per quantized layer, picked by click, rubber band or arrow keys; ErrorView and ScatterView."""

from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QKeyEvent
from PySide6.QtWidgets import QWidget

from studio import core
from studio.gui.shell.theme import Theme
from studio.gui.views.axes import Ticks, nice
from studio.gui.views.columns import Columns, entries
from studio.gui.views.kinds import MOST_NAMES, SHAPES
from studio.gui.views.labels import Entry
from studio.gui.views.plot import Cloud, Marks, Plot, nearest
from studio.gui.views.plot_view import PlotView

Groups = list[tuple[Entry, NDArray[np.int64]]]
"""Signs, and the indices of the layers that have them."""

UNKNOWN = (
    "These codes were taken over as they were stored: their errors are not known here.\n"
    "Open the checkpoint that they were made from, and compare it with this folder."
)

FADED = 0.3
MANY = 2000
"""From here on all marks are dots, which are cheaper to draw than shapes."""


class PointsView(PlotView):
    """A mark per layer at [x, y]. A subclass overrides `positions`, `fit` and `summary_text`.

    Signals: see `View`.
    """

    X, Y = "", ""
    X_TICKS: Ticks = staticmethod(nice)
    Y_TICKS: Ticks = staticmethod(nice)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.columns = Columns()
        self.points: NDArray[np.float64] = np.zeros((0, 2))
        self.color_by = "kind"
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self._marks: list[pg.GraphicsObject] = []
        self._rings: list[pg.GraphicsObject] = []
        self._groups: Groups = []
        self._found: Groups = []

    def new_plot(self) -> Plot:
        """The plot."""
        return Plot(self.X, self.Y, type(self).X_TICKS, type(self).Y_TICKS)

    # What a subclass says

    def positions(self) -> NDArray[np.float64]:
        """[n, 2] places of the layers in `columns`."""
        raise NotImplementedError

    def summary_text(self) -> str:
        """A line about all points."""
        return ""

    def place_marks(self, entry: Entry, chosen: NDArray[np.int64], *, ring: bool) -> pg.GraphicsObject:
        """The marks of one colour; with a ring around them when they are the selected ones."""
        pen = pg.mkPen(self.theme.text, width=2) if ring else None
        x, y = self.points[chosen].T if len(chosen) else ((), ())
        return Marks(
            x, y, size=self.mark_size() + (5 if ring else 0), symbol=SHAPES[entry.shape], brush=entry.color, pen=pen
        )

    @property
    def dots(self) -> bool:
        """Whether layers are dots; a subclass may draw something else."""
        return True

    def _cloud(self, chosen: NDArray[np.int64], larger: int) -> Cloud:
        colors = np.zeros(len(self.columns), np.uint32)
        for entry, members in self._groups:
            colors[members] = QColor(entry.color).rgba()
        return Cloud(self.points[chosen], self.mark_size() + larger, colors[chosen])

    def mark_size(self) -> int:
        """Pixels across a mark: smaller, the more there are."""
        count = len(self.columns)
        return 9 if count < 300 else 7 if count < 2000 else 5

    # Drawing

    def results_changed(self) -> None:
        """Place all marks again, unless nothing changed."""
        if self.columns.update(self.results) or not self.columns.layers:
            self.redraw()

    def selection_changed(self) -> None:
        """Ring the selected layers and fade the others."""
        self._draw_selection()

    def refit(self) -> None:
        """Place all marks again, and show all of them."""
        if self.plotted:
            self.plot.fitted = True
            self.redraw()

    def redraw(self) -> None:
        """Place all marks again."""
        if not len(self.columns):
            self._clear(self._marks)
            self._clear(self._rings)
            self.show_empty(UNKNOWN if any(result.quantized for result in self.results) else self.EMPTY)
            return
        self.points = self.positions()
        self._clear(self._marks)
        self._found = entries(self.columns, self.color_by, self.theme)
        self._groups = _by_sign(self._found)
        self.draw_marks()
        self._draw_selection()
        self.decorate(self.theme)
        self.show_filled(self.summary_text(), self.named())
        if self.plot.fitted:
            self.fit()

    def draw_marks(self) -> None:
        """A mark per layer."""
        if len(self.columns) > MANY and self.dots:
            self._add(self._cloud(np.arange(len(self.columns)), 0), self._marks)
        else:
            for entry, chosen in self._groups:
                self._add(self.place_marks(entry, chosen, ring=False), self._marks)

    def named(self) -> list[Entry]:
        """The entries of a legend: all, or those with the most layers and how many there are besides."""
        found = self._found
        if len(found) <= MOST_NAMES:
            return [entry for entry, _ in found]
        least = sorted((len(indices) for _, indices in found), reverse=True)[MOST_NAMES - 1]
        most = [entry for entry, indices in found if len(indices) >= least][:MOST_NAMES]
        return [*most, Entry(f"and {len(found) - len(most):,} more kinds", most[0].color, "none")]

    def decorate(self, theme: Theme) -> None:
        """Draw what is no mark."""

    def _draw_selection(self) -> None:
        self._clear(self._rings)
        chosen = self.columns.indices(self.selection)
        for item in self._marks:
            item.setOpacity(FADED if len(chosen) else 1.0)
        if len(chosen) and len(self.columns):
            self.draw_rings(chosen)

    def draw_rings(self, chosen: NDArray[np.int64]) -> None:
        """A ring around the mark of each of these layers."""
        if len(chosen) > MANY // 8 and self.dots:
            self._add(self._cloud(chosen, 1), self._rings)
            return
        for entry, members in self._groups:
            mine = np.intersect1d(members, chosen)
            if len(mine):
                self._add(self.place_marks(entry, mine, ring=True), self._rings)

    def _add(self, item: pg.GraphicsObject, items: list[pg.GraphicsObject]) -> None:
        item.setZValue(10 if items is self._rings else 5)
        self.plot.addItem(item, ignoreBounds=True)
        items.append(item)

    def _clear(self, items: list[pg.GraphicsObject]) -> None:
        for item in items:
            self.plot.removeItem(item)
        items.clear()

    # The mouse and the keys

    def layer_at(self, point: QPointF) -> int | None:
        """Index of the layer whose mark is under a place in data coordinates."""
        return nearest(self.points, point, self.plot.pixels()) if len(self.columns) else None

    def layers_at(self, point: QPointF) -> list[int]:
        """Indices of all layers that a click at a place takes."""
        found = self.layer_at(point)
        return [] if found is None else [found]

    def tip_at(self, point: QPointF) -> list[str]:
        """What a tooltip says at a place in data coordinates."""
        found = self.layer_at(point)
        return [] if found is None else self.columns.tip(found)

    def picked(self, point: QPointF, add: bool) -> None:
        """Take the layers of the marks there."""
        self.setFocus()
        found = self.layers_at(point)
        if found or not add:
            self.pick([self.columns.layers[i].name for i in found], add)

    def opened(self, point: QPointF) -> None:
        """Inspect the worst layer there, or show all."""
        found = self.layers_at(point)
        if found:
            worst = max(found, key=lambda i: self.columns.error[i])
            self.layer_activated.emit(self.columns.layers[worst].name)
        else:
            self.fit()

    def banded(self, rect: QRectF, add: bool) -> None:
        """Take the layers of the marks inside."""
        self.setFocus()
        if not len(self.columns):
            return
        x, y = self.points.T
        inside = (x >= rect.left()) & (x <= rect.right()) & (y >= rect.top()) & (y <= rect.bottom())
        self.pick([self.columns.names[i] for i in np.flatnonzero(inside)], add)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Left and right go from mark to mark, Enter opens the layer."""
        step = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}.get(Qt.Key(event.key()))
        if step and len(self.columns):
            self._step(step)
        elif event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.selection and not event.modifiers():
            self.layer_activated.emit(self.selection[-1])
        else:
            super().keyPressEvent(event)

    def _step(self, step: int) -> None:
        order = np.lexsort((self.points[:, 1], self.points[:, 0]))
        chosen = self.columns.indices(self.selection[-1:])
        at = int(np.flatnonzero(order == chosen[0])[0]) + step if len(chosen) else 0
        name = self.columns.names[order[min(max(at, 0), len(order) - 1)]]
        self.pick([name])


def _by_sign(found: Groups) -> Groups:
    """What looks the same is drawn at once: thousands of kinds have a few dozen signs."""
    members: dict[tuple[str, str], list[NDArray[np.int64]]] = {}
    for entry, indices in found:
        members.setdefault((entry.color, entry.shape), []).append(indices)
    return [(Entry("", *sign), np.concatenate(parts)) for sign, parts in members.items()]


def padded(values: Sequence[float] | NDArray[np.float64], share: float = 0.06) -> tuple[float, float]:
    """A range that holds the values with some room, never of no width."""
    low, high = float(min(values)), float(max(values))
    room = (high - low) * share or abs(high) * 0.05 or 0.5
    return low - room, high + room


__all__ = ["FADED", "Columns", "PointsView", "core", "padded"]
