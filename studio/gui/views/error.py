"""ErrorView: the relative error of every quantized layer, or of blocks and experts when there are many."""

import math

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QPointF, QRectF, Signal
from PySide6.QtWidgets import QWidget

from studio.gui.shell.specs import keys_of
from studio.gui.shell.theme import Theme
from studio.gui.views.axes import nice, powers_of_ten
from studio.gui.views.boxes import LEAST_PIXELS, Boxes
from studio.gui.views.color_key import ColorKey
from studio.gui.views.columns import above_zero
from studio.gui.views.drawing import Drawing
from studio.gui.views.error_choices import ErrorChoices, add_scales
from studio.gui.views.error_range import error_range
from studio.gui.views.error_words import HEADS, rows_of, summary_of
from studio.gui.views.experts import COLORS, ExpertMap, expert_kinds, is_mixture
from studio.gui.views.figure import Figure
from studio.gui.views.labels import Entry
from studio.gui.views.points import PointsView, padded
from studio.gui.views.section_axis import Borders, label_sections
from studio.gui.views.sections import Sections, sections
from studio.gui.views.warning_line import WarningLine

SPREAD_FOR_LOG = 5.0
WARNING = 0.12
FEW = 400
"""Layers up to which each has a mark of its own; of more, blocks or experts are shown."""


class ErrorView(PointsView):
    """Relative errors: a mark per layer, a box per block or kind, or a map of experts.

    Signals:
        warning_changed(float): where the user left the warning line.
        and those of `View`.
    """

    warning_changed = Signal(float)

    TITLE = "Error by layer"
    EMPTY = (
        "No layer has been quantized yet.\n"
        f"Quantize ({keys_of('quantize')}), and each layer appears here with its error."
    )
    Y = "relative error"

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.warning_line = WARNING
        self.scale = "auto"
        self.drawing: Drawing | None = None
        self._shown = ""
        self.choices = ErrorChoices()
        self.choices.changed.connect(self._chosen)
        self.controls.addWidget(self.choices)
        self.key = ColorKey(COLORS)
        self.show_key(self.key)
        self._sections: Sections = sections(self.columns, "block")
        self.menu.addAction("Show the warning line").triggered.connect(lambda *_: self.show_line())
        add_scales(self.menu, self.set_scale)
        self._offer()

    def make_plots(self) -> None:
        """One plot with the warning line."""
        super().make_plots()
        self._borders = Borders(self.plot)
        self._line = WarningLine(self.plot)
        self._line.sigPositionChangeFinished.connect(self._line_left)
        self._line.sigDragged.connect(lambda: self._line.name(self._line_text(self._value_at(self._line.value()))))
        self._line.sought.connect(self.show_line)
        self.plot.addItem(self._line, ignoreBounds=True)
        self.plot.vertical_grid = False
        self.plot.box.sigXRangeChanged.connect(lambda *_: self._make_room())
        self.plot.box.sigRangeChangedManually.connect(lambda *_: self._make_room())
        self.plot.box.sigResized.connect(lambda *_: self._make_room())

    # What is shown

    def set_scale(self, scale: str) -> None:
        """Show the errors on an axis that is "auto", from "zero", or "log"."""
        self.scale = scale
        self.refit()

    def set_marks(self, marks: str) -> None:
        """Show layers as "dots", "bars", "boxes", "experts", or as many as there are ask for ("auto")."""
        self.choices.set_marks(marks)

    def set_warning_line(self, value: float) -> None:
        """Move the warning line."""
        self.warning_line = value
        if self.plotted:
            self.redraw()

    @property
    def order(self) -> str:
        """What the layers are ordered by: "block", "kind", or "worst"."""
        return self.choices.order

    @property
    def marks(self) -> str:
        """What is drawn: "dots", "bars", "boxes" or "experts"."""
        chosen = self.choices.marks
        if chosen == "experts" and not self._experts:
            chosen = "auto"
        if chosen == "auto":
            chosen = "dots" if len(self.columns) <= FEW else "experts" if is_mixture(self.columns) else "boxes"
            chosen = "dots" if self.order == "worst" else chosen
        return "dots" if chosen == "boxes" and self.order == "worst" else chosen

    @property
    def dots(self) -> bool:
        """Dots, or something else."""
        return self.marks == "dots"

    @property
    def logarithmic(self) -> bool:
        """True when the error axis is logarithmic: by choice, or because a few layers tower over the others."""
        if self.scale != "auto" or not len(self.columns):
            return self.scale == "log"
        return bool(self.columns.error.max() > SPREAD_FOR_LOG * max(self.columns.median, 1e-9))

    def _chosen(self) -> None:
        self.color_by = self.choices.color_by
        self.refit()

    def _offer(self) -> None:
        """The choices that make sense for what is drawn, and for the layers that there are."""
        self._experts = expert_kinds(self.columns) if len(self.columns) else []
        mapped = self.marks == "experts"
        self.choices.offer(self._experts, mapped=mapped)
        self.key.setVisible(mapped)

    # Drawing

    def positions(self) -> NDArray[np.float64]:
        """x: place in the chosen order; y: error or its decimal logarithm; as a box or a map has them."""
        self._offer()
        self._sections = sections(self.columns, self.order)
        self.drawing = self._summed()
        if self.marks != self._shown:  # the axes mean something else: a zoom into them is over
            self._shown, self.plot.fitted = self.marks, True
        self.plot.box.invertY(self.marks == "experts")
        if self.drawing is not None:
            return self.drawing.points
        error = self.columns.error
        return np.column_stack([self._sections.places, np.log10(above_zero(error)) if self.logarithmic else error])

    def _summed(self) -> Drawing | None:
        if self.marks == "experts":
            return ExpertMap(self.columns, self.choices.kind)
        if self.marks == "boxes":
            return Boxes(self.columns, self._sections, self.color_by, split=self._has_room(), log=self.logarithmic)
        return None

    def _has_room(self) -> bool:
        """True where each kind of layer in a block can have its own box."""
        kinds = len(self.columns.formats if self.color_by == "format" else self.columns.kinds)
        shown = len(self._sections) if self.plot.fitted else min(self.plot.box.viewRect().width(), len(self._sections))
        return kinds > 1 and self.plot.box.width() >= LEAST_PIXELS * kinds * shown

    def _make_room(self) -> None:
        """Take boxes apart, or put them together, when the plot is zoomed or made larger."""
        if isinstance(self.drawing, Boxes) and self.order == "block" and self.drawing.split != self._has_room():
            self.redraw()

    def draw_marks(self) -> None:
        """A mark per layer, or what sums them up."""
        if self.drawing is None:
            super().draw_marks()
            return
        for item in self.drawing.items(self.theme):
            self._add(item, self._marks)

    def draw_rings(self, chosen: NDArray[np.int64]) -> None:
        """Mark selected layers."""
        if self.drawing is None:
            super().draw_rings(chosen)
            return
        for item in self.drawing.marked(chosen, self.theme):
            self._add(item, self._rings)

    def named(self) -> list[Entry]:
        """The legend."""
        return super().named() if self.drawing is None else self.drawing.legend(self.theme)

    def place_marks(self, entry: Entry, chosen: NDArray[np.int64], *, ring: bool) -> pg.GraphicsObject:
        """Dots, or bars from the bottom of the plot."""
        if self.dots:
            return super().place_marks(entry, chosen, ring=ring)
        floor = -12.0 if self.logarithmic else 0.0
        pen = pg.mkPen(self.theme.text, width=2) if ring else pg.mkPen(None)
        x, y = self.points[chosen].T
        return pg.BarGraphItem(x=x, y0=floor, height=y - floor, width=0.8, brush=entry.color, pen=pen)

    def fit(self) -> None:
        """All layers, and the warning line where it is not far off."""
        self._fit(line=False)

    def show_line(self) -> None:
        """All layers, and the warning line wherever it is."""
        self._fit(line=True)

    def _fit(self, *, line: bool) -> None:
        if not len(self.columns):
            return
        if self.marks == "experts" and self.drawing is not None:
            self.plot.show_range(*self.drawing.ranges())
            return
        count = len(self.columns)
        x = padded((0, count - 1), 0.02)
        across, values = (min(x[0], -0.6), max(x[1], count - 0.4)), self.points[:, 1]
        if self.drawing is not None:
            across, _ = self.drawing.ranges()
        self.plot.show_range(across, self._up(float(values.min()), float(values.max()), line=line))

    def _up(self, low: float, high: float, *, line: bool) -> tuple[float, float]:
        """The range of errors shown, for data in a range."""
        text, height = 2.4 * self.theme.font_px, self.plot.box.height()  # the mark, its inset, and half a dot
        return error_range(
            low,
            high,
            self._place_of(self.warning_line),
            from_zero=self.scale == "zero" or (self.marks == "bars" and not self.logarithmic),
            positive=not self.logarithmic,
            with_line=line,
            label=text / max(height - text, text),
        )

    # Decoration

    def decorate(self, theme: Theme) -> None:
        """Axes, the warning line, and the borders between blocks or kinds."""
        self.plot.box.setMouseEnabled(x=True, y=self.marks == "experts")
        self._line.setVisible(self.marks != "experts")
        self._line.set_theme(theme, self.font())
        self._line.show_at(self._place_of(self.warning_line), self._line_text(self.warning_line))
        self._borders.show(self._sections if self.drawing is None else None, theme.grid)
        if self.drawing is not None:
            self.drawing.label_axes(self.plot)
        else:
            self._label_marks()
        if isinstance(self.drawing, ExpertMap):
            self.key.set_color(theme.muted)
            self.key.show_ends(*self.drawing.key(), titled=True)

    def _label_marks(self) -> None:
        self.plot.y_axis.set_ticks(powers_of_ten if self.logarithmic else nice)
        self.plot.y_axis.setLabel(self.Y)
        label_sections(self.plot, self._sections)

    # The warning line

    def _place_of(self, value: float) -> float:
        return math.log10(max(value, 1e-9)) if self.logarithmic else value

    def _value_at(self, place: float) -> float:
        return float(10**place if self.logarithmic else max(place, 0.0))

    def _line_text(self, value: float) -> str:
        return f"warn above {value:.3f}"

    def _line_left(self) -> None:
        self.warning_line = self._value_at(self._line.value())
        self._line.show_at(self._line.value(), self._line_text(self.warning_line))
        self.summary.set_text(self.summary_text())
        self.warning_changed.emit(self.warning_line)

    # The mouse

    def layer_at(self, point: QPointF) -> int | None:
        """The dot near a place, or the bar over it."""
        if self.dots or not len(self.columns):
            return super().layer_at(point)
        place = round(point.x())
        if not 0 <= place < len(self.columns):
            return None
        index = int(self._sections.order[place])
        return index if point.y() <= self.points[index, 1] + 6 * self.plot.pixels()[1] else None

    def layers_at(self, point: QPointF) -> list[int]:
        """The layer, or all layers, behind a place."""
        if self.drawing is None or not len(self.columns):
            return super().layers_at(point)
        return list(map(int, self.drawing.layers_at(point, self.plot.pixels())))

    def tip_at(self, point: QPointF) -> list[str]:
        """The layer, or the layers, behind a place."""
        if self.drawing is None or not len(self.columns):
            return super().tip_at(point)
        return self.drawing.tip(point, self.plot.pixels(), self.warning_line)

    def banded(self, rect: QRectF, add: bool) -> None:
        """Take the layers of the marks inside; a bar reaches down to the bottom."""
        if self.marks == "bars":
            rect.setTop(-1e9)
        super().banded(rect, add)

    # Words and numbers

    def above_line(self) -> list[str]:
        """Names of the layers above the warning line."""
        return [self.columns.layers[i].name for i in np.flatnonzero(self.columns.error > self.warning_line)]

    def summary_text(self) -> str:
        """Median, worst layer, how many are above the line, and which have no place in a map of experts."""
        return summary_of(self.columns, self.warning_line, mapped=self.marks == "experts")

    def figure(self) -> Figure:
        """Layer by layer in the order shown."""
        return Figure(self.TITLE, HEADS, rows_of(self.columns, self._sections.order))
