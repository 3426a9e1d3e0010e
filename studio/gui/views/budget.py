"""BudgetView: what the best mix of each size loses, single formats beside it, and a budget to drag."""

import math
import time

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QPointF, Qt, Signal
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QSlider, QSplitter, QVBoxLayout, QWidget

from studio import core
from studio.gui.shell.text import set_reason
from studio.gui.views.axes import nice, powers_of_ten
from studio.gui.views.figure import Figure
from studio.gui.views.labels import Entry, Line
from studio.gui.views.number_table import NumberTable
from studio.gui.views.plot import Plot, upright_mark
from studio.gui.views.view import View

STEPS = 1000
"""Places of the slider, from the smallest mix to one that loses next to nothing."""

DECADES = 4.0
"""How far below the largest loss the plot reaches at most."""

_REACH = 14


class BudgetView(View):
    """A curve, dots, and a slider; what the mix at the slider is made of stands below.

    Signals:
        came_into_sight(): it is shown, and may have missed something.
        price_wanted(), probe_wanted(): measure what every option costs, or what that means in tokens.
        mix_wanted(object): a `core.Mix` that the plan is to become.
        and those of `View`.
    """

    came_into_sight = Signal()
    price_wanted = Signal()
    probe_wanted = Signal()
    mix_wanted = Signal(object)

    TITLE = "Budget"
    EMPTY = (
        "No formats are priced yet.\nPrice measures, reading all weights once, what every format and method would cost "
        "every layer; then drag a budget, and see the mix that loses least."
    )

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.planner: core.Planner | None = None
        self.mix: core.Mix | None = None
        self.before: core.Mix | None = None
        self.seconds = 0.0
        self._singles: list[tuple[str, core.Mix]] = []
        self._curve = (np.zeros(0), np.zeros(0))
        self.price_button, self.probe_button = QPushButton("Price"), QPushButton("Predict KL")
        self.price_button.clicked.connect(lambda: self.price_wanted.emit())
        self.probe_button.clicked.connect(lambda: self.probe_wanted.emit())
        for button in (self.price_button, self.probe_button):
            self.controls.addWidget(button)

    def make_plots(self) -> None:
        """Plot and slider above the table."""
        self.plot = Plot("bits per weight, whole model", "damage", nice, powers_of_ten)
        self.plot.hovered.connect(lambda point: self.say(self.tip_at(point)))
        self.plot.left.connect(lambda: self.say([]))
        self.plot.box.picked.connect(lambda point, _: self._go_to(point.x()))
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, STEPS)
        self.slider.setPageStep(STEPS // 20)
        self.slider.setAccessibleName("Budget")
        self.slider.valueChanged.connect(lambda _: self._follow())
        self.says = Line()
        self.use_button = QPushButton("Use this mix")
        self.use_button.clicked.connect(self._use)
        self.numbers = NumberTable("The mix in numbers")
        row = QHBoxLayout()
        row.setContentsMargins(6, 2, 6, 2)
        row.addWidget(self.slider, 1)
        row.addWidget(self.use_button)
        above = QWidget()
        column = QVBoxLayout(above)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addWidget(self.plot, 1)
        column.addWidget(self.says)
        column.addLayout(row)
        split = QSplitter(Qt.Orientation.Vertical)
        split.setChildrenCollapsible(False)
        split.addWidget(above)
        split.addWidget(self.numbers)
        split.setStretchFactor(0, 3)
        split.setStretchFactor(1, 1)
        rows = QVBoxLayout(self.body)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.addWidget(split)

    # What the window calls

    def show_planner(self, planner: core.Planner, before: core.Mix | None = None) -> None:
        """Show what is known; `before` is the mix that the plan of now is, None where it is another one."""
        at = self.slider.value() if self.planner and self.plotted else STEPS // 3
        self.planner, self.before = planner, before
        self._singles = [(name, mix) for name, mix in planner.uniforms() if name != core.KEEP]
        self._curve = planner.curve()
        self.plot_now()
        self.slider.blockSignals(True)
        self.slider.setValue(at)
        self.slider.blockSignals(False)
        self._follow()

    def show_nothing(self, why: str = "") -> None:
        """Say what comes next, or why there is nothing."""
        self.planner = self.mix = self.before = None
        self.show_empty(why or self.EMPTY)

    def showEvent(self, event: QShowEvent) -> None:
        """Show what changed while nobody looked."""
        super().showEvent(event)
        self.came_into_sight.emit()

    def set_reasons(self, reason: str, help_text: str) -> None:
        """Why nothing can be priced now, "" when it can."""
        for button in (self.price_button, self.probe_button):
            set_reason(button, reason, help_text)

    # The budget

    def _bits(self, nbytes: float) -> float:
        assert self.planner is not None
        return 8 * nbytes / max(self.planner.decisions.model.count, 1)

    def _range(self) -> tuple[int, int]:
        """Bytes at both ends of the slider: the largest single format is enough to lose next to nothing."""
        assert self.planner is not None
        most = max((mix.nbytes for _, mix in self._singles), default=self.planner.least_nbytes)
        return self.planner.least_nbytes, max(most, self.planner.least_nbytes + 1)

    def budget(self) -> int:
        """Bytes at the slider."""
        low, high = self._range()
        return low + round((high - low) * self.slider.value() / STEPS)

    def _go_to(self, bits: float) -> None:
        low, high = (self._bits(nbytes) for nbytes in self._range())
        self.slider.setValue(round(STEPS * (bits - low) / (high - low)))

    def _follow(self) -> None:
        """The best mix within the budget of now."""
        if self.planner is None:
            return
        begun = time.thread_time()
        self.mix = self.planner.within_nbytes(self.budget(), core.QUICK_STATES)
        self._redraw()
        self.seconds = time.thread_time() - begun

    def _use(self) -> None:
        """Take the best mix there is, and not only the one that was found quickly."""
        if self.planner is not None:
            self.mix_wanted.emit(self.planner.within_nbytes(self.budget()))

    # Drawing

    def _lost(self, mix: core.Mix) -> float:
        return mix.damage if mix.kl is None else mix.kl

    def _floor(self) -> float:
        losses = [self._lost(mix) for _, mix in self._singles if self._lost(mix) > 0]
        top = math.log10(max(losses, default=1.0))
        return max(math.log10(min(losses, default=1.0)) - 0.5, top - DECADES)

    def theme_changed(self) -> None:
        """Draw with `theme`."""
        self.plot.set_theme(self.theme)
        self.says.set_color(self.theme.text)
        if self.planner is not None:
            self._redraw()

    def _redraw(self) -> None:
        mix = self.mix
        assert mix is not None
        self.plot.plotItem.clear()
        nbytes, lost = self._curve
        seen = lost > 0
        curve, single = self.theme.accent, self.theme.kinds["up"]
        pen = pg.mkPen(curve, width=2)
        self.plot.addItem(
            pg.PlotCurveItem(self._bits(1) * nbytes[seen], np.log10(lost[seen]), pen=pen), ignoreBounds=True
        )
        self._scatter([one for _, one in self._singles], single)
        self._scatter([mix], self.theme.text)
        mark = upright_mark(self._bits(self.budget()), "budget", self.theme, self.font())
        self.plot.addItem(mark, ignoreBounds=True)
        entries = [
            Entry("best mixes", curve, "line"),
            Entry("single formats", single, "dot"),
            Entry("the mix", self.theme.text, "dot"),
        ]
        self.plot.y_axis.setLabel(self._unit())
        self.says.set_text(self.sentence())
        self.numbers.show_figure(self._parts(), self.theme.font_px)
        self.slider.setAccessibleDescription(self.sentence())
        self.show_filled(self._summary(), entries)
        if self.plot.fitted:
            self.fit()

    def _scatter(self, mixes: list[core.Mix], color: str) -> None:
        points = [(self._bits(mix.nbytes), math.log10(self._lost(mix))) for mix in mixes if self._lost(mix) > 0]
        spots = pg.ScatterPlotItem(pos=points, size=9, brush=pg.mkBrush(color), pen=pg.mkPen(self.theme.surface))
        self.plot.addItem(spots, ignoreBounds=True)

    def fit(self) -> None:
        """All single formats and what lies between them."""
        if self.planner is None:
            return
        low, high = (self._bits(nbytes) for nbytes in self._range())
        top = max((math.log10(self._lost(mix)) for _, mix in self._singles if self._lost(mix) > 0), default=0.0)
        self.plot.show_range((low - 0.1, high + 0.1), (self._floor(), top + 0.2))

    def _unit(self) -> str:
        return "predicted KL" if self.planner and self.planner.sensitivity.is_known else "damage"

    def sentence(self) -> str:
        """The mix at the slider in words."""
        mix = self.mix
        if mix is None:
            return ""
        worst = f"worst layer {mix.rel_err:.4f}"
        size = f"{self._bits(mix.nbytes):.3f} bits per weight, {core.size_text(mix.nbytes)}"
        return f"{size}: {self._unit()} {self._lost(mix):.3g}, {worst}"

    def _summary(self) -> str:
        if self._unit() == "damage":
            return "damage: squared error of outputs over their squares, added up; Predict KL tells it in tokens"
        return "KL per token in nats, predicted from short runs of parts of the model"

    def tip_at(self, point: QPointF) -> list[str]:
        """What a tooltip says at a place in data coordinates."""
        if self.planner is None:
            return []
        wide, high = self.plot.pixels()
        for name, mix in self._singles:
            if self._lost(mix) > 0:
                away = (point.x() - self._bits(mix.nbytes)) / wide, (point.y() - math.log10(self._lost(mix))) / high
                if math.hypot(*away) < _REACH:
                    return [
                        name,
                        f"{self._bits(mix.nbytes):.3f} bits per weight",
                        f"{self._unit()} {self._lost(mix):.4g}",
                    ]
        return []

    # Numbers

    def _parts(self) -> Figure:
        """What the mix gives to how many layers, and how many of them have it now."""
        assert self.planner is not None
        assert self.mix is not None
        found: dict[str, list[int]] = {}
        for item, option in zip(self.planner.decisions.items, self.mix.options, strict=True):
            counts = found.setdefault(str(option), [0, 0])
            counts[0] += len(item.layers)
            counts[1] += option.nbytes
        changed = dict.fromkeys(found, 0)
        for item, _, new in self.planner.changes(self.before, self.mix) if self.before else ():
            changed[str(new)] += len(item.layers)
        rows = [(name, *counts, changed[name] if self.before else "") for name, counts in sorted(found.items())]
        return Figure(self.TITLE, ("format and method", "layers", "bytes", "that change"), rows)

    def figure(self) -> Figure:
        """The curve and single formats."""
        if self.planner is None:
            return Figure(self.TITLE, ("plan",), [])
        nbytes, lost = self._curve
        rows = [("best mix", int(size), self._bits(size), float(y)) for size, y in zip(nbytes, lost, strict=True)]
        rows += [(name, mix.nbytes, self._bits(mix.nbytes), self._lost(mix)) for name, mix in self._singles]
        return Figure(self.TITLE, ("plan", "bytes", "bits per weight", self._unit()), rows)
