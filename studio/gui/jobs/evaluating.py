"""Evaluating: from the question what to run on which text, to the bars that say what quantizing costs in tokens."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QWidget

from studio import core
from studio.gui.jobs import tasks
from studio.gui.jobs.evaluate_dialog import DEFAULTS, EvaluateDialog
from studio.gui.jobs.evaluation import Evaluation, command_of, files_of, kept, plan_file, rate, restored, sentence
from studio.gui.jobs.job import EVALUATE, Job
from studio.gui.jobs.reports import Reports
from studio.gui.jobs.runs import Runs
from studio.gui.jobs.turns import Ending
from studio.gui.jobs.wanted import Wanted
from studio.gui.layers.document import Document
from studio.gui.shell.ask import ask_folder
from studio.gui.shell.cards import Message
from studio.gui.shell.faults import message_of

STOPPED = "Stopped. The windows that were run are kept: evaluate the same again to go on."
CHANGED = "The plan or the statistics have changed since."


class Evaluating(QObject):
    """Asks, runs, shows and saves evaluations.

    Signals:
        told(Message): something to show.
        changed(): another evaluation is known.
    """

    told = Signal(object)
    changed = Signal()

    def __init__(
        self, document: Document, runs: Runs, reports: Reports, view: Any, window: QWidget, parent: QObject
    ) -> None:
        super().__init__(parent)
        self._document, self._runs, self._reports, self._view, self._window = document, runs, reports, view, window
        self.dialog: EvaluateDialog | None = None
        self.evaluation: Evaluation | None = None
        self._running: Job | None = None
        self._outdated = False
        self._cost = ""
        view.report_wanted.connect(self.ask_report)
        view.command_wanted.connect(self.copy_command)
        document.opened.connect(self._start_anew)
        document.chosen.connect(lambda _: self._follow_plan())

    # asking and running

    def ask(self) -> None:
        """Show the dialog."""
        document, known = self._document, self.evaluation
        assert document.model is not None
        plan = None if document.exported else document.plan
        before = known.wanted if known else None
        self.dialog = EvaluateDialog(document.model, plan, before, rate(known) if known else 0.0, self._window)
        self.dialog.evaluation_wanted.connect(self.evaluate)
        self.dialog.open()

    def evaluate(self, wanted: Wanted) -> None:
        """Run models on a text."""
        document, machine = self._document, self._runs.machine
        model = document.model
        assert model is not None
        plans = {} if document.exported else dict(wanted.plans(document.plan))
        compared = bool(plans or wanted.source)
        state = None if document.exported else document.state
        statistics = document.statistics if plans else None
        found = Evaluation(wanted, plans, state, compared, statistics, names=list(plans) or [model.name])
        steps = partial(tasks.evaluating, machine, model, list(plans.items()), wanted.source, wanted.reading)
        job = Job(EVALUATE, "Evaluating", steps, over=self._over, hear=partial(self._hear, found))
        if self._runs.run(job):
            self._take(found)
            self._running = job

    def _hear(self, found: Evaluation, event: object) -> None:
        match event:
            case tasks.Distinct(names):
                found.names = list(names)
                found.plans = {name: plan for name, plan in found.plans.items() if name in names}
            case core.Occupies(_, nbytes):
                found.notes = [f"It takes up to {core.size_text(nbytes)} of disk."]
            case core.ModelDone(row):
                found.rows.append(row)
            case core.EvaluationDone(quality):
                found.quality = quality
            case _:
                return
        if found is self.evaluation:
            self._show()

    def _over(self, ending: Ending, job: Job) -> None:
        self._running = None
        found = self.evaluation
        if found is None:
            return
        if ending == "stopped":
            found.notes = [STOPPED]
        elif ending == "failed":
            message = message_of(job.error, "", EVALUATE.remedy)
            found.notes = [f"Not evaluated: {message.text}", message.hint]
        self._show()
        self.changed.emit()

    # showing

    def _start_anew(self) -> None:
        model = self._document.model
        self._cost = _cost(model) if model is not None else ""
        self._take(None)

    def _take(self, found: Evaluation | None) -> None:
        self.evaluation = found
        self._show()

    def _show(self) -> None:
        found = self.evaluation
        if found is None or (self._running is None and not found.rows):
            self._view.show_nothing("\n".join(found.notes) if found else self._cost)
            return
        waiting = found.names[len(found.models) :] if self._running else []
        self._view.show_evaluated(found.source, found.models, self._about(found), waiting)

    def _about(self, found: Evaluation) -> str:
        """On what it was found, or what goes on."""
        if found.quality is None:
            at_hand = [*(["the source"] if found.compared else []), *found.names][len(found.rows) :]
            now = f"Running {core.printable(at_hand[0], 60)} …" if self._running and at_hand else ""
            return " ".join(part for part in (now, *found.notes) if part)
        self._outdated = self._is_outdated(found)
        return " ".join((sentence(found.quality), *([CHANGED] if self._outdated else [])))

    def _follow_plan(self) -> None:
        """Say so once the plan is another one, and no longer when it is that one again."""
        found = self.evaluation
        if found is not None and found.quality is not None and self._is_outdated(found) != self._outdated:
            self._show()

    def _is_outdated(self, found: Evaluation) -> bool:
        """Whether the first of its plans stands for other choices than those of now."""
        document = self._document
        same = found.state is not None and found.state.same(document.state) and found.statistics == document.statistics
        return bool(found.plans) and not same

    def quality_of_plan(self) -> core.Quality | None:
        """What was found of the plan of now and its variants; None where it is another one, or of an export."""
        found = self.evaluation
        return found.quality if found and found.plans and not self._is_outdated(found) else None

    def measured(self) -> list[tuple[str, float, float, float | None]]:
        """(name, bits per weight, KL, its standard error) of the plans that were run."""
        rows = self.evaluation.models if self.evaluation else ()
        known = ((row.name, row.bits_per_weight, row.kl) for row in rows)
        return [(name, bits, kl.value, kl.noise) for name, bits, kl in known if kl and bits]

    # saving and copying

    def ask_report(self) -> None:
        """Write report and plans into a folder."""
        ask_folder(self._window, "Folder for the report", self.write_report, self._document.near)

    def write_report(self, folder: Path) -> None:
        """Write quality.html, quality.json, and the plans that were evaluated, into `folder`."""
        found = self.evaluation
        if found is None or found.quality is None:
            self.told.emit(Message("warning", NOT_YET))
            return
        found.report = folder
        files = {plan_file(folder, name): plan for name, plan in found.plans.items()}
        self._reports.run(partial(tasks.reporting_quality, folder, found.quality, files), folder)

    def copy_command(self) -> None:
        """Copy the command line that does the same."""
        if (text := self.command) is None:
            hint = "Save the report (menu of Quality), then copy again: it holds the plans, which the command names."
            self.told.emit(Message("warning", "The plans that were evaluated are in no file", hint=hint))
            return
        QGuiApplication.clipboard().setText(text)
        self.told.emit(Message("info", "Copied the command"))

    @property
    def command(self) -> str | None:
        """The command line that does the same; None where it would name plans that are in no file."""
        found, model = self.evaluation, self._document.model
        return command_of(found, model, self._runs.machine) if found and model else None

    # between sessions

    def kept(self) -> dict[str, Any]:
        """What `restore` takes: the evaluation of the open checkpoint, if one is through."""
        found, model = self.evaluation, self._document.model
        return kept(found, model) if found and found.quality and model else {}

    def restore(self, kept: object) -> None:
        """Show what `kept` gave; what makes no sense, or is of other bytes, is left."""
        model = self._document.model
        if model is None or not isinstance(kept, Mapping) or kept.get("files") != files_of(model):
            return
        try:
            self._take(restored(kept, self._document))
        except (KeyError, TypeError, ValueError, AttributeError, core.StudioError):
            self._take(None)


def _cost(model: core.Model) -> str:
    """What comes next, and what it takes."""
    read = f"{DEFAULTS.windows} × {DEFAULTS.length} tokens, unless you choose otherwise"
    disk = core.size_text(core.evaluation_nbytes(model, DEFAULTS))
    return f"{NOTHING}\nIt runs {read}, in a process of its own; up to {disk} of disk are taken meanwhile. {TIME}"


NOTHING = (
    "Nothing is evaluated yet.\nEvaluate runs the model, and what is made of it, on a text, and tells what quantizing "
    "costs in tokens: perplexity, KL to the source, agreement."
)
TIME = "How long that takes is known after the first windows."
NOT_YET = "There is nothing to save: the evaluation is not through"
