"""Evaluating: from the question what to run on which text, to the bars that say what quantizing costs in tokens."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QWidget

from studio import core
from studio.gui.jobs import tasks
from studio.gui.jobs.estimate import duration
from studio.gui.jobs.evaluate_dialog import DEFAULTS, EvaluateDialog, Wanted
from studio.gui.jobs.job import EVALUATE, Job
from studio.gui.jobs.reports import Reports
from studio.gui.jobs.runs import Runs
from studio.gui.jobs.turns import Ending
from studio.gui.layers.choices import PlanState
from studio.gui.layers.document import Document
from studio.gui.shell.ask import ask_folder
from studio.gui.shell.cards import Message
from studio.gui.shell.faults import message_of

STOPPED = "Stopped. The windows that were run are kept: evaluate the same again to go on."
CHANGED = "The plan or the statistics have changed since."


@dataclass(eq=False)
class Evaluation:
    """What was wanted, and what is known of it so far.

    plans: name -> plan, the plan of then first; none for an export. state: the choices that the first of them stands
    for, None where the plan is another one by now. statistics: the file that told of inputs. rows: of the models that
    are through, the source first if there is one. names: of the others, all of them. notes: what is to be said of it
    while there is no quality. report: the folder where its report and its plans are.
    """

    wanted: Wanted
    plans: dict[str, core.Plan]
    state: PlanState | None
    compared: bool
    statistics: Path | None = None
    rows: list[core.Evaluated] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    quality: core.Quality | None = None
    report: Path | None = None

    @property
    def source(self) -> core.Evaluated | None:
        """The row of the source."""
        return self.rows[0] if self.compared and self.rows else None

    @property
    def models(self) -> list[core.Evaluated]:
        """The rows of the others."""
        return self.rows[int(self.compared) :]


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
        self.dialog = EvaluateDialog(document.model, plan, before, _rate(known), self._window)
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
        return " ".join((_sentence(found.quality), *([CHANGED] if self._outdated else [])))

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

    # saving and copying

    def ask_report(self) -> None:
        """Write report and plans into a folder."""
        ask_folder(self._window, "Folder for the report", self.write_report)

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
        if (text := self.command()) is None:
            hint = "Save the report (menu of Quality), then copy again: it holds the plans, which the command names."
            self.told.emit(Message("warning", "The plans that were evaluated are in no file", hint=hint))
            return
        QGuiApplication.clipboard().setText(text)
        self.told.emit(Message("info", "Copied the command"))

    def command(self) -> str | None:
        """The command line that does the same; None where it would name plans that are in no file."""
        found, model = self.evaluation, self._document.model
        if found is None or model is None:
            return None
        files = [plan_file(found.report, name) for name in found.plans] if found.report else []
        if found.plans and not (files and all(file.is_file() for file in files)):
            return None
        words = ["nvfp4-studio", "evaluate", str(model.path.absolute())]
        words += ["--plans", *map(str, files)] if files else []
        for name, value in (("against", found.wanted.source), ("statistics", found.statistics)):
            words += [f"--{name}", str(value)] if value else []
        return shlex.join([*words, *_reading_options(found.wanted.reading), *_machine_options(self._runs.machine)])

    # between sessions

    def kept(self) -> dict[str, Any]:
        """What `restore` takes: the evaluation of the open checkpoint, if one is through."""
        found, model = self.evaluation, self._document.model
        if found is None or found.quality is None or model is None:
            return {}
        reading = found.wanted.reading
        said = {
            "quality": found.quality.to_json(),
            "plans": [[name, plan.to_json()] for name, plan in found.plans.items()],
            "files": _files(model),
            "windows": reading.windows,
            "length": reading.length,
            "texts": list(map(str, reading.texts)),
            "formats": list(found.wanted.formats),
            "methods": list(found.wanted.methods),
            "source": str(found.wanted.source or ""),
            "statistics": str(found.statistics or ""),
        }
        kept: dict[str, Any] = json.loads(json.dumps(said))  # lists, as they are read again
        return kept

    def restore(self, kept: object) -> None:
        """Show what `kept` gave; what makes no sense, or is of other bytes, is left."""
        model = self._document.model
        if model is None or not isinstance(kept, Mapping) or kept.get("files") != _files(model):
            return
        try:
            self._take(_restored(kept, self._document))
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


def plan_file(folder: Path, name: str) -> Path:
    """Where the plan of a model is beside its report."""
    return folder / f"{name.lower().replace(' ', '-')}.json"


def _restored(kept: Mapping[str, Any], document: Document) -> Evaluation:
    quality = core.Quality.from_json(kept["quality"])
    reading = core.Reading(tuple(map(Path, kept["texts"])), int(kept["windows"]), int(kept["length"]))
    source, statistics = (Path(kept[key]) if kept[key] else None for key in ("source", "statistics"))
    wanted = Wanted(reading, tuple(kept["formats"]), tuple(kept["methods"]), source)
    plans = {str(name): core.plan_from_json(plan) for name, plan in kept["plans"]}
    same = next(iter(plans.values()), None) == document.plan
    rows = [*filter(None, [quality.source]), *quality.models]
    state = document.state if same else None
    return Evaluation(wanted, plans, state, bool(quality.source), statistics, rows, quality=quality)


def _files(model: core.Model) -> list[list[Any]]:
    """What tells the bytes of a checkpoint from others."""
    stats = [(file.path.name, file.path.stat()) for file in model.files]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def _sentence(quality: core.Quality) -> str:
    """On what, by what, how long."""
    text, source = quality.text, quality.source
    tokens = next((row.tokens for row in quality.models), 0)
    read = f"{text.windows:,} × {text.length:,} tokens of {core.printable(text.name, 60)} ({tokens:,} predicted)"
    noise = source.perplexity.noise if source else None
    plain = f"the source's perplexity is {source.perplexity.value:.2f}" if source else ""
    said = f"{plain} ± {noise:.2f}" if noise is not None else plain
    runtime = f"{quality.runtime} {quality.version}, {duration(quality.seconds)}"
    return "; ".join(filter(None, (read, said, runtime))) + "."


def _rate(known: Evaluation | None) -> float:
    """Tokens per second that were run last."""
    seconds = sum(row.seconds for row in known.rows) if known else 0.0
    return sum(row.tokens for row in known.rows) / seconds if known and seconds else 0.0


def _reading_options(reading: core.Reading) -> Sequence[str]:
    texts = ["--text", *(str(path) for path in reading.texts)] if reading.texts else []
    return ["--windows", str(reading.windows), "--length", str(reading.length), *texts]


def _machine_options(machine: core.Machine) -> Sequence[str]:
    values = {
        "--backend": "" if machine.backend == "auto" else machine.backend,
        "--threads": str(machine.threads or ""),
        "--max-memory": str(machine.max_memory or ""),
    }
    return [word for name, value in values.items() if value for word in (name, value)]
