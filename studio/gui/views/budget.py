"""BudgetView: what the best mix of each size loses, single formats beside it, and a budget to drag."""

import math
from collections.abc import Sequence

import numpy as np
from PySide6.QtCore import QModelIndex, QPointF, Qt, Signal
from PySide6.QtGui import QHideEvent, QShowEvent
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QPushButton, QSlider, QSplitter, QTabWidget, QVBoxLayout, QWidget

from studio import core
from studio.gui.shell.text import set_reason
from studio.gui.views.budget_numbers import parts, what_changes
from studio.gui.views.budget_plot import BudgetPlot, Spot
from studio.gui.views.figure import Figure
from studio.gui.views.labels import Line
from studio.gui.views.number_table import NumberTable
from studio.gui.views.view import View

STEPS = 1000
"""Places of the slider, from the smallest mix to one that loses next to nothing."""

DECADES = 4.0
"""How far below the largest loss the plot reaches at most."""


class BudgetView(View):
    """A curve, dots, and a slider; what the mix at the slider is made of, and what changes, stands below.

    Signals:
        came_into_sight(), went_out_of_sight(): what it shows may have been missed; nobody looks at it any more.
        price_wanted(), probe_wanted(): measure what every option costs, or what that means in tokens.
        mix_shown(object): the slider stands at another `core.Mix`.
        dragged(): the user moved the budget.
        mix_wanted(object): a `core.Mix` that the plan is to become.
        places_picked(list): places of layers that change, picked in the list.
        and those of `View`.
    """

    came_into_sight = Signal()
    went_out_of_sight = Signal()
    price_wanted = Signal()
    probe_wanted = Signal()
    mix_shown = Signal(object)
    dragged = Signal()
    mix_wanted = Signal(object)
    places_picked = Signal(list)

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
        self.marked: core.Mix | None = None
        self.pins = 0
        self._changes: list[core.Change] = []
        self._singles: list[Spot] = []
        self._measured: list[Spot] = []
        self._curve = (np.zeros(0), np.zeros(0))
        self._most = self._count = 1
        self.target = _target_box()
        self.target.activated.connect(lambda _: self._retarget())
        self.price_button, self.probe_button = QPushButton("Price"), QPushButton("Predict KL")
        self.price_button.setProperty("primary", True)
        self.price_button.clicked.connect(lambda: self.price_wanted.emit())
        self.probe_button.clicked.connect(lambda: self.probe_wanted.emit())
        for part in (self.target, self.price_button, self.probe_button):
            self.controls.addWidget(part)

    def has_content(self) -> bool:
        """Only a planner, for which the plots are made at once."""
        return False

    def make_plots(self) -> None:
        """Plot and slider above the tables."""
        self.plot = BudgetPlot()
        self.plot.hovered.connect(lambda point: self.say(self.tip_at(point)))
        self.plot.left.connect(lambda: self.say([]))
        self.plot.box.picked.connect(lambda point, _: self._go_to(point.x()))
        self.says = Line()
        self.numbers, self.changed = NumberTable("The mix in numbers"), NumberTable("What changes")
        self.changed.clicked.connect(self._pick_change)
        self.tables = QTabWidget()
        self.tables.setDocumentMode(True)
        self.tables.setAccessibleName("Numbers of the mix")
        self.tables.addTab(self.numbers, "The mix")
        self.tables.addTab(self.changed, "What changes")
        self.tables.currentChanged.connect(lambda _: self._show_numbers())
        above = QWidget()
        column = QVBoxLayout(above)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addWidget(self.plot, 1)
        column.addWidget(self.says)
        column.addLayout(self._budget_row())
        split = QSplitter(Qt.Orientation.Vertical)
        split.setChildrenCollapsible(False)
        for part, share in ((above, 3), (self.tables, 1)):
            split.addWidget(part)
            split.setStretchFactor(split.count() - 1, share)
        rows = QVBoxLayout(self.body)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.addWidget(split)

    def _budget_row(self) -> QHBoxLayout:
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, STEPS)
        self.slider.setPageStep(STEPS // 20)
        self.slider.setAccessibleName("Budget")
        self.slider.valueChanged.connect(lambda _: self._drag())
        self.mark_button, self.use_button = QPushButton("Mark"), QPushButton("Use this mix")
        self.mark_button.setCheckable(True)
        self.mark_button.setToolTip("Compare other budgets with this one instead of the plan")
        self.mark_button.toggled.connect(self._mark)
        self.use_button.setToolTip("Let the plan be this mix: one step of undo")
        self.use_button.clicked.connect(self._use)
        row = QHBoxLayout()
        row.setContentsMargins(6, 2, 6, 2)
        row.addWidget(self.slider, 1)
        row.addWidget(self.mark_button)
        row.addWidget(self.use_button)
        return row

    # What the window calls

    @property
    def layout_and_reader(self) -> tuple[str, str]:
        """Names of the layout that mixes are for, and of the runtime that loads them."""
        layout, reader = self.target.currentData()
        return layout, reader

    def show_planner(self, planner: core.Planner, before: core.Mix | None = None, pins: int = 0) -> None:
        """Show what is known; `before` is the mix that the plan of now is, if any, `pins` of its layers are pinned."""
        first = self.planner is None or not self.plotted
        at = STEPS // 3 if first else self.slider.value()
        self.planner, self.before, self.pins = planner, before, pins
        uniforms = [(name, mix) for name, mix in planner.uniforms() if name != core.KEEP]
        self._count = max(planner.decisions.model.count, 1)
        self._most = max((mix.nbytes for _, mix in uniforms), default=planner.least_nbytes)
        self._singles = [self._spot(name, mix) for name, mix in uniforms]
        self._curve = planner.curve()
        self.plot_now()
        self._take_curve()
        self.slider.blockSignals(True)
        self.slider.setValue(at)
        self.slider.blockSignals(False)
        self._follow()
        if self.plot.fitted or first:
            self.fit()

    def show_measured(self, found: Sequence[tuple[str, float, float, float | None]]) -> None:
        """Plans that were run: name, bits per weight, KL and its standard error."""
        self._measured = [Spot(*one) for one in found]
        if self.planner is not None:
            self._show_spots()

    def show_nothing(self, why: str = "") -> None:
        """Say what comes next, or why there is nothing."""
        self.planner = self.mix = self.before = None
        self._forget_mark()
        self.show_empty(why or self.EMPTY)

    def showEvent(self, event: QShowEvent) -> None:
        """Show what changed while nobody looked."""
        super().showEvent(event)
        self.came_into_sight.emit()

    def hideEvent(self, event: QHideEvent) -> None:
        """Tell that nobody looks."""
        super().hideEvent(event)
        self.went_out_of_sight.emit()

    def set_reasons(self, reason: str, help_text: str) -> None:
        """Why nothing can be priced now, "" when it can; who pressed a button with keys stays beside it."""
        buttons = (self.price_button, self.probe_button)
        if reason and any(button.hasFocus() for button in buttons):
            self.target.setFocus()
        for button in buttons:
            set_reason(button, reason, help_text)

    # The budget

    def _retarget(self) -> None:
        """Another layout has other formats: price those that are not known yet."""
        if self.planner is not None and self.price_button.isEnabled():
            self.price_wanted.emit()

    def _bits(self, nbytes: float) -> float:
        return 8 * nbytes / self._count

    def _range(self) -> tuple[int, int]:
        """Bytes at both ends of the slider: the largest single format is enough to lose next to nothing."""
        assert self.planner is not None
        return self.planner.least_nbytes, max(self._most, self.planner.least_nbytes + 1)

    def budget(self) -> int:
        """Bytes at the slider."""
        low, high = self._range()
        return low + round((high - low) * self.slider.value() / STEPS)

    def _go_to(self, bits: float) -> None:
        low, high = (self._bits(nbytes) for nbytes in self._range())
        self.slider.setValue(round(STEPS * (bits - low) / (high - low)))

    def _drag(self) -> None:
        if self.planner is None:
            return
        self.dragged.emit()
        self._follow()

    def _follow(self) -> None:
        """The best mix within the budget of now."""
        assert self.planner is not None
        planner, before, budget = self.planner, self.before, self.budget()
        found = planner.within_nbytes(budget, core.quick_states(len(planner.decisions.items)))
        better = before is not None and before.nbytes <= budget and before.damage <= found.damage
        self.mix = before if better else found
        self._show_mix()
        self.mix_shown.emit(self.mix)

    def _use(self) -> None:
        """Take the best mix there is, and not only the one that was found quickly."""
        if self.planner is not None:
            self.mix_wanted.emit(self.planner.within_nbytes(self.budget()))

    def _mark(self, marked: bool) -> None:
        self.marked = self.mix if marked else None
        self.mark_button.setText("Unmark" if marked else "Mark")
        if self.planner is not None:
            self._show_mix()

    def _forget_mark(self) -> None:
        self.marked = None
        if self.plotted:
            self.mark_button.setChecked(False)

    # Drawing

    def _spot(self, name: str, mix: core.Mix) -> Spot:
        return Spot(name, self._bits(mix.nbytes), mix.lost, mix.noise)

    @property
    def _knows_kl(self) -> bool:
        return self.planner is not None and self.planner.sensitivity.is_known

    @property
    def _unit(self) -> str:
        return "predicted KL" if self._knows_kl else "damage"

    def theme_changed(self) -> None:
        """Draw with `theme`."""
        self.plot.take_theme(self.theme)
        self.says.set_color(self.theme.text)
        if self.planner is not None:
            self._show_spots()

    def _take_curve(self) -> None:
        assert self.planner is not None
        nbytes, lost = self._curve
        self.plot.y_axis.setLabel(self._unit)
        self.plot.show_curve(self._bits(1) * nbytes, lost)
        sizes, kl, noise = self.planner.curve_noise()
        self.plot.show_noise(self._bits(1) * sizes, kl, noise)
        self._show_spots()

    def _show_spots(self) -> None:
        plan = self._spot("the plan of now", self.before) if self.before else None
        self.plot.show_spots(self._singles, self._measured if self._knows_kl else [], plan)
        self.show_filled(self._summary(), self.plot.entries())

    def _show_mix(self) -> None:
        """What moves with the budget."""
        assert self.mix is not None
        marked = self._bits(self.marked.nbytes) if self.marked else None
        self.plot.move(self._spot("the mix", self.mix), self._bits(self.budget()), marked)
        said = self.sentence()
        self.says.set_text(said)
        self.slider.setAccessibleDescription(said)
        self._show_numbers()

    def fit(self) -> None:
        """All single formats and what lies between them."""
        if self.planner is None:
            return
        low, high = (self._bits(nbytes) for nbytes in self._range())
        losses = [math.log10(spot.lost) for spot in self._singles if spot.lost > 0] or [0.0]
        floor = max(min(losses) - 0.5, max(losses) - DECADES)
        self.plot.show_range((low - 0.1, high + 0.1), (floor, max(losses) + 0.2))

    def sentence(self) -> str:
        """The mix at the slider in words."""
        mix = self.mix
        if mix is None:
            return ""
        size = f"{self._bits(mix.nbytes):.3f} bits per weight, {core.size_text(mix.nbytes)}"
        pins = f", {core.counted(self.pins, 'layer')} pinned" if self.pins else ""
        return f"{size}: {self._unit} {self._spot('', mix).text}, worst layer {mix.rel_err:.4f}{pins}"

    def _summary(self) -> str:
        if not self._knows_kl:
            return "damage: squared error of outputs over their squares, added up; Predict KL tells it in tokens"
        return "KL per token in nats, predicted from short runs of parts of the model; the band is one standard error"

    def tip_at(self, point: QPointF) -> list[str]:
        """What a tooltip says at a place in data coordinates."""
        if self.planner is None or (spot := self.plot.spot_at(point)) is None:
            return []
        unit = "measured KL" if spot in self._measured else self._unit
        return [core.printable(spot.name), f"{spot.bits:.3f} bits per weight", f"{unit} {spot.text}"]

    # Numbers

    def _show_numbers(self) -> None:
        """The table in front, and how much changes."""
        if self.mix is None or self.planner is None:
            return
        there, where = self.marked or self.before, "at the mark" if self.marked else "in the plan"
        if self.tables.currentWidget() is self.numbers:
            self.numbers.show_figure(parts(self.planner, self.mix, there, where), self.theme.font_px)
            return
        self._changes = self.planner.changes(there, self.mix) if there else []
        unit = "weighted damage" if self._knows_kl else "damage"
        told = what_changes(self._changes if there else None, where, unit)
        self.changed.show_figure(told, self.theme.font_px)
        self.changed.resizeColumnsToContents()

    def _pick_change(self, index: QModelIndex) -> None:
        if index.row() < len(self._changes):
            self.places_picked.emit(list(self._changes[index.row()].layers))

    def figure(self) -> Figure:
        """The curve, single formats, and what was measured."""
        if self.planner is None:
            return Figure(self.TITLE, ("plan",), [])
        nbytes, lost = self._curve
        rows: list[Sequence[object]] = [
            ("best mix", int(size), self._bits(size), float(y), "") for size, y in zip(nbytes, lost, strict=True)
        ]
        spots = [*self._singles, *(self._measured if self._knows_kl else [])]
        rows += [(s.name, round(s.bits * self._count / 8), s.bits, s.lost, s.noise or "") for s in spots]
        return Figure(self.TITLE, ("plan", "bytes", "bits per weight", self._unit, "standard error"), rows)


def _target_box() -> QComboBox:
    """Layouts and the runtimes that load them; what can be stored, and joined, depends on both."""
    box = QComboBox()
    targets: dict[str, core.Target] = {**core.LAYOUTS, core.GGUF.name: core.GGUF}
    for name, layout in targets.items():
        for reader in layout.readers:
            box.addItem(f"{name} for {core.RUNTIMES[reader].title}", (name, reader))
    box.setAccessibleName("Layout of the export that mixes are for, and the runtime that loads it")
    box.setToolTip("What can be stored depends on the layout and the runtime that loads it")
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(14)
    return box
