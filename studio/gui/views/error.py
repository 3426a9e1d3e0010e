"""ErrorView: the relative error of every quantized layer, by block or by kind, against a warning line."""

import math

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QActionGroup
from PySide6.QtWidgets import QComboBox, QWidget

from studio import core
from studio.gui.shell.theme import Theme
from studio.gui.views.axes import Tick, marks, nice, powers_of_ten
from studio.gui.views.columns import above_zero, short
from studio.gui.views.figure import Figure
from studio.gui.views.kinds import kind
from studio.gui.views.labels import Entry
from studio.gui.views.points import PointsView, padded

SPREAD_FOR_LOG = 5.0
WARNING = 0.12
MOST_SECTIONS = 240
"""Blocks or kinds that can have a name on the axis; of more, every second or third has one."""


class ErrorView(PointsView):
    """Dots or bars of relative error in file order or by kind.

    Signals:
        warning_changed(float): where the user left the warning line.
        and those of `View`.
    """

    warning_changed = Signal(float)

    TITLE = "Error by layer"
    EMPTY = "No layer has been quantized yet.\nQuantize (Ctrl+Return), and each layer appears here with its error."
    Y = "relative error"

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.warning_line = WARNING
        self.scale = "auto"
        self.marks_box = self._choice("Marks", ("Dots", "Bars"))
        self.group_box = self._choice("Order", ("By block", "By kind", "Worst first"))
        self.color_box = self._choice("Colours", ("Colour: kind", "Colour: format"))
        self._line = pg.InfiniteLine(
            WARNING, angle=0, movable=True, label="", labelOpts={"position": 0.995, "anchors": [(1, 0), (1, 1)]}
        )
        self._line.setZValue(8)
        self._line.sigPositionChangeFinished.connect(self._line_left)
        self._line.sigDragged.connect(lambda: self._label_line(self._value_at(self._line.value())))
        self.plot.addItem(self._line, ignoreBounds=True)
        self.plot.vertical_grid = False
        self.plot.box.setMouseEnabled(x=True, y=False)
        self._separators: list[pg.InfiniteLine] = []
        self._order: NDArray[np.int64] = np.zeros(0, np.int64)
        self._add_scales()

    def _choice(self, name: str, texts: tuple[str, ...]) -> QComboBox:
        box = QComboBox()
        box.addItems(list(texts))
        box.setAccessibleName(name)
        box.currentIndexChanged.connect(self._chosen)
        self.controls.addWidget(box)
        return box

    def _add_scales(self) -> None:
        self.menu.addSeparator()
        group = QActionGroup(self)
        for text, scale in (
            ("Error axis: automatic", "auto"),
            ("Error axis: from zero", "zero"),
            ("Error axis: logarithmic", "log"),
        ):
            action = group.addAction(text)
            action.setCheckable(True)
            action.setChecked(scale == "auto")
            action.triggered.connect(lambda _=False, scale=scale: self.set_scale(scale))
            self.menu.addAction(action)

    def set_scale(self, scale: str) -> None:
        """Show the errors on an axis that is "auto", from "zero", or "log"."""
        self.scale = scale
        self.plot.fitted = True
        self.redraw()

    def set_warning_line(self, value: float) -> None:
        """Move the warning line."""
        self.warning_line = value
        self.redraw()

    def _chosen(self) -> None:
        self.color_by = ("kind", "format")[self.color_box.currentIndex()]
        self.plot.fitted = True
        self.redraw()

    # Places

    @property
    def logarithmic(self) -> bool:
        """True when the error axis is logarithmic: by choice, or because a few layers tower over the others."""
        if self.scale != "auto" or not len(self.columns):
            return self.scale == "log"
        return bool(self.columns.error.max() > SPREAD_FOR_LOG * max(self.columns.median, 1e-9))

    def positions(self) -> NDArray[np.float64]:
        """x: place in the chosen order; y: error or its decimal logarithm."""
        order = ("block", "kind", "worst")[self.group_box.currentIndex()]
        count = len(self.columns)
        if order == "worst":
            self._order = np.argsort(-self.columns.error, kind="stable")
        elif order == "kind":
            self._order = np.argsort(self.columns.kind_of, kind="stable")
        else:
            self._order = np.lexsort((self.columns.block, self.columns.stack))
        x = np.empty(count)
        x[self._order] = np.arange(count)
        error = self.columns.error
        return np.column_stack([x, np.log10(above_zero(error)) if self.logarithmic else error])

    @property
    def dots(self) -> bool:
        """Dots, or bars."""
        return self.marks_box.currentIndex() == 0

    def place_marks(self, entry: Entry, chosen: NDArray[np.int64], *, ring: bool) -> pg.GraphicsObject:
        """Dots, or bars from the bottom of the plot."""
        if self.dots:
            return super().place_marks(entry, chosen, ring=ring)
        floor = -12.0 if self.logarithmic else 0.0
        pen = pg.mkPen(self.theme.text, width=2) if ring else pg.mkPen(None)
        x, y = self.points[chosen].T
        return pg.BarGraphItem(x=x, y0=floor, height=y - floor, width=0.8, brush=entry.color, pen=pen)

    def layer_at(self, point: QPointF) -> int | None:
        """The dot near a place, or the bar over it."""
        if self.dots or not len(self.columns):
            return super().layer_at(point)
        place = round(point.x())
        if not 0 <= place < len(self.columns):
            return None
        index = int(self._order[place])
        return index if point.y() <= self.points[index, 1] + 6 * self.plot.pixels()[1] else None

    def fit(self) -> None:
        """All layers, and errors from the smallest to the largest or the warning line."""
        if not len(self.columns):
            return
        x = padded((0, len(self.columns) - 1), 0.02)
        values = [float(self.points[:, 1].min()), float(self.points[:, 1].max())]
        if self.logarithmic or self.warning_line < 4 * self.columns.error.max():
            values.append(self._place_of(self.warning_line))
        low, high = padded(values, 0.1)
        if self.scale == "zero" or not (self.dots or self.logarithmic):
            low = 0.0  # the length of a bar is its value
        elif not self.logarithmic:
            low = max(low, 0.0)
        self.plot.show_range((min(x[0], -0.6), max(x[1], len(self.columns) - 0.4)), (low, high))

    # Decoration

    def decorate(self, theme: Theme) -> None:
        """The warning line, and the borders between blocks or kinds."""
        self.plot.y_axis.set_ticks(powers_of_ten if self.logarithmic else nice)
        self._line.setPen(pg.mkPen(theme.warning, width=1, style=Qt.PenStyle.DashLine))
        self._line.setHoverPen(pg.mkPen(theme.warning, width=3))
        self._line.label.setColor(theme.warning)
        ground = pg.mkColor(theme.surface)
        ground.setAlpha(210)
        self._line.label.fill = pg.mkBrush(ground)
        self._line.label.setFont(self.font())
        self._line.setValue(self._place_of(self.warning_line))
        self._label_line(self.warning_line)
        for line in self._separators:
            self.plot.removeItem(line)
        starts, labels = self._sections()
        self._separators = []
        if len(starts) <= MOST_SECTIONS // 2:
            for start in starts[1:]:
                line = pg.InfiniteLine(start - 0.5, pen=pg.mkPen(theme.grid, width=1))
                line.setZValue(-5)
                self.plot.addItem(line, ignoreBounds=True)
                self._separators.append(line)
        self._label_sections(starts, labels)

    def _sections(self) -> tuple[list[int], list[str]]:
        """Where a new block or kind begins, and its name."""
        order = self.group_box.currentIndex()
        if order == 2:
            return [], []
        if order == 1:
            keys = self.columns.kind_of[self._order]
        else:
            columns = self.columns
            places = columns.stack * (int(columns.block.max()) + 1) + columns.block
            keys = np.where(columns.block >= 0, places, -1 - columns.kind_of)[self._order]
        starts = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1)).tolist()
        starts = starts[:: -(-len(starts) // MOST_SECTIONS)]
        return starts, [self._section(int(self._order[start]), order) for start in starts]

    def _section(self, index: int, order: int) -> str:
        block = int(self.columns.block[index])
        if order == 1 or block < 0:
            return self.columns.kinds[int(self.columns.kind_of[index])]
        return str(block)

    def _label_sections(self, starts: list[int], labels: list[str]) -> None:
        axis = self.plot.x_axis
        if self.group_box.currentIndex() == 2:
            axis.set_ticks(lambda low, high, room: [(v, f"{v + 1:.0f}") for v, _ in nice(low, high, room) if v >= 0])
            axis.setLabel("layers, worst first")
            return
        ends = [*starts[1:], len(self.columns)]
        middles: list[Tick] = [
            ((a + b - 1) / 2, label)
            for a, b, label in zip(starts, ends, labels, strict=True)
            if self._fits(a, b, label)
        ]
        widest = max((self.fontMetrics().horizontalAdvance(label) for _, label in middles), default=0)
        by_block = self.group_box.currentIndex() == 0
        axis.set_ticks(marks(middles), 3.0 if by_block else widest / self.theme.font_px + 1.0)
        axis.setLabel("block" if self.group_box.currentIndex() == 0 else "kind of layer")

    def _fits(self, start: int, stop: int, label: str) -> bool:
        """A long name needs a section that is wide enough for it."""
        if label.isdigit():
            return True
        width = self.plot.box.width() * (stop - start) / max(len(self.columns), 1)
        return bool(self.fontMetrics().horizontalAdvance(label) < max(width * 1.6, 20))

    def _place_of(self, value: float) -> float:
        return math.log10(max(value, 1e-9)) if self.logarithmic else value

    def _value_at(self, place: float) -> float:
        return float(10**place if self.logarithmic else max(place, 0.0))

    def _label_line(self, value: float) -> None:
        self._line.label.setFormat(f"warn above {value:.3f}")

    def _line_left(self) -> None:
        self.warning_line = self._value_at(self._line.value())
        self._label_line(self.warning_line)
        self.summary.set_text(self.summary_text())
        self.warning_changed.emit(self.warning_line)

    def _banded(self, rect: QRectF, add: bool) -> None:
        if not self.dots:
            rect.setTop(-1e9)
        super()._banded(rect, add)

    # Words and numbers

    def above_line(self) -> list[str]:
        """Names of the layers above the warning line."""
        return [self.columns.layers[i].name for i in np.flatnonzero(self.columns.error > self.warning_line)]

    def summary_text(self) -> str:
        """Median, worst layer, and how many are above the line."""
        error = self.columns.error
        worst = int(error.argmax())
        above = int((error > self.warning_line).sum())
        tail = f", {above:,} above the line" if above else ", none above the line"
        count = f"{len(error):,} layers" if len(error) != 1 else "1 layer"
        name = short(self.columns.layers[worst].name)
        return f"{count}, median {self.columns.median:.4f}, worst {name} {error[worst]:.4f}{tail}"

    def figure(self) -> Figure:
        """Layer by layer in the order shown."""
        heads = ("layer", "block", "kind", "format", "bits per weight", "relative error", "SNR, dB", "max |w| / sigma")
        rows = []
        for i in self._order:
            layer: core.LayerResult = self.columns.layers[i]
            block = "" if layer.block is None else layer.block
            start = (layer.name, block, kind(layer), layer.format)
            rows.append((*start, layer.bits_per_weight, layer.rel_err, layer.snr, float(self.columns.ratio[i])))
        return Figure(self.TITLE, heads, rows)
