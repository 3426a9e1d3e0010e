"""Budgeting: from pricing all formats, and probing what damage means, to a plan that is the best mix for a budget."""

from functools import partial
from typing import Any

from PySide6.QtCore import QObject, Signal

from studio import core
from studio.gui.jobs import tasks
from studio.gui.jobs.job import PRICE, PROBE, Job
from studio.gui.jobs.runs import Runs
from studio.gui.jobs.turns import Ending
from studio.gui.layers.document import Document
from studio.gui.shell.cards import Message
from studio.gui.shell.faults import message_of

STOPPED = "Stopped. What was measured is kept: the same button goes on."
PRICING = "Measuring what every format would cost every layer …"
PROBING = "Running parts of the model, quantized alone, and the whole of it in each format, on a text …"


class Budgeting(QObject):
    """Prices, shows, and takes mixes into the plan.

    Signals:
        told(Message): something to show.
    """

    told = Signal(object)

    def __init__(self, document: Document, runs: Runs, view: Any, parent: QObject) -> None:
        super().__init__(parent)
        self._document, self._runs, self._view = document, runs, view
        self._planner: core.Planner | None = None
        self._used: tuple[core.Plan, core.Mix] | None = None
        self._late = False
        self._known: tuple[object, object] | None = None
        view.mix_wanted.connect(self.use)
        view.probe_wanted.connect(lambda: self.price(probe=True))
        view.came_into_sight.connect(self._catch_up)
        document.opened.connect(self._start_anew)
        document.chosen.connect(lambda _: self._follow())

    def price(self, *, probe: bool = False) -> None:
        """Measure what every option costs every layer that the plan quantizes, and, with `probe`, what that means."""
        document, machine = self._document, self._runs.machine
        model = document.model
        assert model is not None
        steps = partial(tasks.pricing, machine, model, document.state.plan.before_budget, probe)
        kind, title = (PROBE, "Predicting") if probe else (PRICE, "Pricing")
        job = Job(kind, title, steps, over=self._over, hear=self._hear)
        if self._runs.run(job):
            self._known = (model, document.statistics)
            self._view.show_nothing(PROBING if probe else PRICING)

    def _hear(self, event: object) -> None:
        if isinstance(event, tasks.Priced):
            self._planner, self._used = event.planner, None

    def _over(self, ending: Ending, job: Job) -> None:
        if ending == "finished":
            self._follow()
        elif ending == "stopped":
            self._view.show_nothing(STOPPED)
        else:
            message = message_of(job.error, "", job.kind.remedy)
            self._view.show_nothing("\n".join(filter(None, (f"Not priced: {message.text}", message.hint))))

    def _start_anew(self) -> None:
        self._planner = self._used = None
        self._view.show_nothing()

    def _catch_up(self) -> None:
        if self._late:
            self._follow()

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
            self._view.show_nothing(f"No mix: {error}")
            return
        before = self._used[1] if self._used and self._used[0] == document.state.plan else None
        self._view.show_planner(narrowed, before)

    def use(self, mix: core.Mix) -> None:
        """Let the plan be a mix; one step of undo."""
        document, planner = self._document, self._planner
        if planner is None or document.model is None:
            return
        title = core.budget_title(mix, document.model)
        plan = planner.plan(mix, "mix", title)
        self._used = plan, mix
        document.set_plan(plan, title[0].lower() + title[1:])
        self.told.emit(Message("info", f"The plan is {title[0].lower()}{title[1:]}"))
