"""Budgeting: from pricing all formats, and probing what damage means, to a plan that is the best mix for a budget."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from PySide6.QtCore import QObject, Signal

from studio import core
from studio.gui.jobs import tasks
from studio.gui.jobs.job import PRICE, PROBE, Job
from studio.gui.jobs.runs import Runs
from studio.gui.jobs.turns import Ending
from studio.gui.layers.document import Document
from studio.gui.layers.proposals import Proposals
from studio.gui.shell.cards import Message
from studio.gui.shell.faults import message_of

STOPPED = "Stopped. What was measured is kept: the same button goes on."
PRICING = "Measuring what every format would cost every layer …"
PROBING = "Running parts of the model, quantized alone, and the whole of it in each format, on a text …"

Measured = Sequence[tuple[str, float, float, float | None]]


class Budgeting(QObject):
    """Prices, shows, lets the table follow the budget, pins, and takes mixes into the plan.

    measured: gives the plans that were run (name, bits per weight, KL, its standard error).

    Signals:
        told(Message): something to show.
    """

    told = Signal(object)

    def __init__(self, document: Document, runs: Runs, view: Any, parent: QObject) -> None:
        super().__init__(parent)
        self._document, self._runs, self._view = document, runs, view
        self._planner: core.Planner | None = None
        self._proposals: Proposals | None = None
        self._late = self._dragging = False
        self._known: tuple[object, object] | None = None
        self.measured: Callable[[], Measured] = lambda: ()
        view.mix_wanted.connect(self.use)
        view.probe_wanted.connect(lambda: self.price(probe=True))
        view.came_into_sight.connect(self._catch_up)
        view.went_out_of_sight.connect(self._let_go)
        view.dragged.connect(self._begin_to_drag)
        view.mix_shown.connect(lambda _: self._propose())
        view.places_picked.connect(lambda places: document.select_at(np.array(places, np.int64)))
        document.opened.connect(self._start_anew)
        document.chosen.connect(lambda _: self._follow())
        document.measured.connect(lambda _: self._propose())

    def price(self, *, probe: bool = False) -> None:
        """Measure what every option costs every layer that the plan quantizes, and, with `probe`, what that means."""
        document, machine = self._document, self._runs.machine
        model = document.model
        assert model is not None
        target = core.target_for(*self._view.layout_and_reader)
        steps = partial(tasks.pricing, machine, model, document.state.plan.before_budget, *target, probe=probe)
        kind, title = (PROBE, "Predicting") if probe else (PRICE, "Pricing")
        job = Job(kind, title, steps, over=self._over, hear=self._hear)
        if self._runs.run(job):
            self._known = (model, document.statistics)
            self._let_go()
            self._view.show_nothing(PROBING if probe else PRICING)

    def _hear(self, event: object) -> None:
        if isinstance(event, tasks.Priced):
            self._planner, self._proposals = event.planner, event.proposals

    def _over(self, ending: Ending, job: Job) -> None:
        if ending == "finished":
            self._follow()
        elif ending == "stopped":
            self._view.show_nothing(STOPPED)
        else:
            message = message_of(job.error, "", job.kind.remedy)
            self._view.show_nothing("\n".join(filter(None, (f"Not priced: {message.text}", message.hint))))

    def _start_anew(self) -> None:
        self._planner = self._proposals = None
        self._let_go()
        self._view.show_nothing()

    def _catch_up(self) -> None:
        if self._late:
            self._follow()
        self.show_measured()

    def show_measured(self) -> None:
        """Show what an evaluation found beside what is predicted."""
        self._view.show_measured(self.measured())

    def _follow(self) -> None:
        """Show what is known, with formats chosen by hand as pins; later, while nobody looks."""
        document = self._document
        self._late = not self._view.isVisible()
        if self._planner is None or document.model is None or self._late:
            return
        if self._known != (document.model, document.statistics):
            self._start_anew()
            return
        try:
            narrowed = self._planner.pinned(document.hand_rules())
        except core.PlanError as error:
            self._let_go()
            self._view.show_nothing(f"No mix: {error}")
            return
        pins = int(document.state.edits.mask.sum())
        self._view.show_planner(narrowed, narrowed.mix_of(document.choices), pins)

    # the table beside it

    def _begin_to_drag(self) -> None:
        self._dragging = True

    def _propose(self) -> None:
        """Let the table show the mix at the slider, once it was moved."""
        document, mix = self._document, self._view.mix
        if self._dragging and self._proposals is not None and mix is not None:
            document.propose(self._proposals.of(mix, document.store, document.state.edits.mask))

    def _let_go(self) -> None:
        """Let the table show the plan again."""
        self._dragging = False
        self._document.propose(None)

    def pin(self) -> None:
        """Choose by hand, for the selected layers and those that go with them, what the table shows for them."""
        document = self._document
        shown, chosen = document.looked_at, document.selected_indices
        together = self._proposals.together(chosen) if self._proposals else chosen
        places = np.union1d(together, chosen)
        names = [document.store.names[place] for place in places.tolist()]
        said = [core.choice_text(shown.format_of(place), shown.method_of(place)) for place in places.tolist()]
        document.set_choices(dict(zip(names, said, strict=True)), f"pin {core.counted(len(names), 'layer')}")

    def use(self, mix: core.Mix) -> None:
        """Let the plan be a mix; one step of undo. Pins stay what they are."""
        document, planner, proposals = self._document, self._planner, self._proposals
        if planner is None or proposals is None or document.model is None:
            return
        title = core.budget_title(mix, document.model)
        plan, pins = planner.plan(mix, "mix", title), proposals.settled(mix, document.store, document.state.edits)
        self._let_go()
        document.set_plan(plan, title[0].lower() + title[1:], pins)
        self.told.emit(Message("info", f"The plan is {title[0].lower()}{title[1:]}"))
