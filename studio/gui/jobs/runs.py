"""Runs: quantize, pause, cancel, retry, export and verify on the background thread, told by the activity strip."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal

from studio import core
from studio.gui.jobs import tasks
from studio.gui.jobs.activity import Activity
from studio.gui.jobs.compute import Compute
from studio.gui.jobs.estimate import duration
from studio.gui.jobs.job import CALIBRATE, CONVERT, EXPORT, MEASURE, VERIFY, Job, Kind
from studio.gui.jobs.turns import Ending, Task
from studio.gui.layers.document import Document, Order
from studio.gui.layers.store import FAILED
from studio.gui.shell.cards import Message
from studio.gui.shell.faults import message_of
from studio.gui.shell.settings import Settings
from studio.gui.shell.specs import keys_of
from studio.gui.shell.text import sentence

WORDS = {
    "verify": "verifying",
    "lift": "looking for powers of two",
    "feedback": "error feedback",
    "examine": "examining",
}
"""Of phases that are a part of a job."""


class Runs(QObject):
    """What is running, and what it found. `hindrance` says why nothing can be started now, "" when something can.

    Signals:
        changed(): a run began, paused, went on or ended.
        began(str): a run of this kind starts.
        ended(str): a run is over: "finished", "stopped" or "failed".
        over(Job, str): the same, and which.
        told(Message): something to show.
        exported(Export, Outcome): an export is written and verified.
        converted(Export | GgufExport, Outcome): so is a conversion.
        calibrated(Calibrated): statistics are gathered.
        backend_known(str): the title of what computes.
        progressed(float): share of the run that is done; -1 when none is.
    """

    changed = Signal()
    began = Signal(str)
    ended = Signal(str)
    over = Signal(object, str)
    told = Signal(object)
    exported = Signal(object, object)
    converted = Signal(object, object)
    calibrated = Signal(object)
    backend_known = Signal(str)
    progressed = Signal(float)

    def __init__(
        self,
        document: Document,
        compute: Compute,
        settings: Settings,
        activity: Activity,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._document, self._compute, self._settings, self._activity = document, compute, settings, activity
        self._jobs: dict[Task, Job] = {}
        self._current: Job | None = None
        self.hindrance: Callable[[], str] = lambda: ""
        compute.started.connect(self._started)
        compute.reported.connect(self._reported)
        compute.ended.connect(self._ended)

    @property
    def machine(self) -> core.Machine:
        """What the settings allow a job to use."""
        setting = self._settings
        return core.Machine(setting["backend"], setting["threads"], setting["memory_limit"] * 1_000_000)

    @property
    def workers(self) -> tasks.Workers:
        """Who quantizes and exports, by the settings."""
        return tasks.Workers(self._settings["cluster"].strip(), self._settings["workers"], self._document.statistics)

    def _shared(self, kind: Kind) -> Kind:
        """A kind of job that workers may do, which can not wait then: they go on."""
        return replace(kind, pausable=False) if self.workers else kind

    @property
    def active(self) -> bool:
        """True while something runs or waits to."""
        return bool(self._jobs)

    @property
    def kept(self) -> str:
        """What is left of the work that goes on when it is stopped now."""
        return next((job.kind.kept for job in self._jobs.values()), "")

    @property
    def paused(self) -> bool:
        """True while what runs waits."""
        return self._compute.paused

    @property
    def pausable(self) -> bool:
        """False while something runs that can not wait."""
        return self._current is None or self._current.kind.pausable

    # what can be run

    def quantize(self, names: Sequence[str] | None = None) -> None:
        """Quantize what is not done: of all layers, or of `names`."""
        if self._document.model is None:
            return
        order = self._document.order(names)
        if order.choices and self.survey(order, "Quantizing"):
            self._document.begin(order)

    def survey(self, order: Order, title: str, over: Callable[[Ending], None] = lambda _: None) -> bool:
        """Quantize in memory what `order` says, and remember the results; `over` is told how it ended."""
        model = self._document.model
        assert model is not None
        how = (self.machine, model, order.choices.values(), self.workers)
        steps = partial(tasks.surveying, *how)
        return self.run(Job(self._shared(MEASURE), title, steps, order, lambda ending, _: over(ending)))

    def retry(self) -> None:
        """Quantize the layers that failed once more."""
        store = self._document.store
        self.quantize([store.names[i] for i in (store.state == FAILED).nonzero()[0].tolist()])

    def export(self, export: core.Export, lifted: dict[str, Any] | None = None) -> None:
        """Write and verify an export; `lifted`: what `core.prepare` needs to prepare it lifted.

        What is measured of lifted layers is not what they lose as they are, so it is not taken over.
        """
        machine, kind, workers = self.machine, self._shared(EXPORT), self.workers

        def over(ending: Ending, job: Job) -> None:
            if ending == "finished":
                self.exported.emit(export, job.outcome)

        if lifted:
            steps = partial(tasks.exporting_lifted, machine, export, lifted, workers)
            self.run(Job(kind, "Exporting", steps, over=over))
            return
        order = self._document.order_of(export.choices)
        if self.run(Job(kind, "Exporting", partial(tasks.exporting, machine, export, workers), order, over)):
            self._document.begin(order)

    def convert(self, export: core.Export | core.GgufExport) -> None:
        """Write and verify a conversion; rows know nothing of it."""
        whole = isinstance(export, core.GgufExport)  # which is one file, by one process
        kind, workers = (CONVERT, tasks.ALONE) if whole else (self._shared(CONVERT), self.workers)

        def over(ending: Ending, job: Job) -> None:
            if ending == "finished":
                self.converted.emit(export, job.outcome)

        self.run(Job(kind, "Converting", partial(tasks.converting, self.machine, export, workers), over=over))

    def verify(self, folder: Path) -> None:
        """Check an export that was written earlier, against the open checkpoint when that may be its source."""
        machine, source = self.machine, None if self._document.exported else self._document.model

        def over(ending: Ending, job: Job) -> None:
            if ending == "finished" and job.outcome is not None:
                count = core.counted(len(job.outcome.layers), "layer decodes", "layers decode")
                odd = "; ".join(job.outcome.cautions)  # of a checkpoint of others
                told = "decodes" if odd else "is whole"
                text = f"{count}, {odd or 'and every byte is as it was written'}."
                self.told.emit(Message("good", f"{core.printable(folder.name)} {told}", text))

        self.run(Job(VERIFY, "Verifying", lambda: tasks.verifying(machine, folder, source), over=over))

    def calibrate(self, calibration: core.Calibration) -> None:
        """Gather statistics, in a process of its own."""

        def over(ending: Ending, job: Job) -> None:
            if ending == "finished" and job.calibrated is not None:
                self.calibrated.emit(job.calibrated)

        self.run(Job(CALIBRATE, "Calibrating", lambda: core.calibrate(calibration), over=over))

    def run(self, job: Job) -> bool:
        """Run a job when its turn comes; False where it can not start now, which is told."""
        if reason := self.hindrance():
            hint = f"Wait a moment and ask again, or cancel what goes on ({keys_of('stop')})."
            self.told.emit(Message("warning", f"{job.title} can not start now: {reason}", hint=hint, run=job.kind.key))
            return False
        task = Task(job.kind.key, job.title, job.steps)
        self._jobs[task] = job
        self._compute.submit(task)
        self.changed.emit()
        return True

    def toggle_pause(self) -> None:
        """Pause, or go on; of no effect while nothing runs that can wait."""
        if not self.active or not self.pausable:
            return
        paused = not self._compute.paused
        self._compute.pause(paused)
        self._activity.show_paused(paused)
        if self._current is not None:
            estimate = self._current.estimate
            (estimate.hold if paused else estimate.go_on)(time.monotonic())
        self.changed.emit()

    def stop(self) -> None:
        """Stop; seen at once, over at the next step."""
        if self.active:
            self._activity.show_stopping()
            self._compute.stop()

    # what the thread tells

    def _started(self, task: Task) -> None:
        if (job := self._jobs.get(task)) is None:
            return
        self._current = job
        job.begin(time.monotonic())
        self._activity.begin(job.title, pausable=job.kind.pausable)
        self.began.emit(job.kind.key)
        self.changed.emit()

    def _reported(self, task: Task, events: list[Any]) -> None:
        if (job := self._jobs.get(task)) is None:
            return
        if job.order is not None:
            self._document.take(job.order, [event.result for event in events if isinstance(event, core.LayerDone)])
        for event in events:
            job.take(event)
            self._tell(job, event)
        self._show_progress(job, events)

    def _tell(self, job: Job, event: Any) -> None:
        if isinstance(event, str):
            self.backend_known.emit(event)
        elif isinstance(event, core.LayerFailed):
            self._tell_failure(event)
        elif isinstance(event, tasks.Joining):
            self._activity.detail.set_text(str(event))
        elif isinstance(event, core.Working):
            self._activity.show_workers(event.workers)
        elif isinstance(event, core.Warned):
            self.told.emit(Message("warning", job.kind.warned, event.message, run=job.kind.key))
        elif isinstance(event, core.Lifted):
            told = "\n".join(map(sentence, event.lifting.sentences()))
            hint = " ".join(map(sentence, event.lifting.cautions))
            self.told.emit(Message("info", "Lifted by powers of two", told, hint, run=job.kind.key))
        elif isinstance(event, core.Resumed):
            text = f"{core.size_text(event.nbytes)} of {event.shard} were finished by an earlier run and are taken over"
            self.told.emit(Message("info", text))

    def _tell_failure(self, event: core.LayerFailed) -> None:
        self._document.take_failure(event.name, str(event.error))
        name = core.printable(event.name)
        keep = ("Keep it as it is", lambda: self._document.set_format([event.name], core.KEEP))
        hint = "The other layers go on. Keep this one as it is, or mend the source."
        self.told.emit(
            Message("error", f"{name} can not be quantized", str(event.error), hint, layer=event.name, fixes=(keep,))
        )

    def _show_progress(self, job: Job, events: list[Any]) -> None:
        last = next((event for event in reversed(events) if isinstance(event, core.Progress)), None)
        estimate = job.estimate
        if last is None:
            return
        if not estimate.total:
            self._activity.detail.set_text("The model is being loaded …")
            return
        job.follow(last.done, time.monotonic())
        if job.order is not None and last.layer in self._document.store.index:
            self._document.take_running(last.layer)
        word = WORDS.get(last.phase, "") if last.phase != job.kind.key else ""
        detail = " ".join(part for part in (word, core.printable(last.layer)) if part)
        amount = job.kind.amount
        done = f"{amount(estimate.done)} of {amount(estimate.total)} {job.kind.worked}"
        rate = f"{amount(estimate.rate)}/s" if estimate.left is not None else ""
        self._activity.show_progress(estimate, detail, done, rate)
        self._show_above(job)
        self.progressed.emit(estimate.share)

    def _show_above(self, job: Job) -> None:
        if job.kind.key == MEASURE.key:
            self._activity.show_above(self.above_line())

    def above_line(self) -> int:
        """How many layers lost more than the warning line allows."""
        return int((self._document.store.rel_err > self._document.warning_line).sum())

    def _ended(self, task: Task, ending: Ending, error: object) -> None:
        if (job := self._jobs.pop(task, None)) is None:
            return
        self._current, job.error = None, error
        if job.order is not None:
            self._document.end(job.order)
        self._show_end(job, ending, error)
        self.over.emit(job, ending)
        job.over(ending, job)
        if not self.active:
            self._compute.pause(False)
        self.progressed.emit(-1.0)
        self.changed.emit()
        self.ended.emit(ending)

    def _show_end(self, job: Job, ending: Ending, error: object) -> None:
        if ending == "finished":
            self._activity.end(job.summary(), "warning" if job.failed else "good", job.figures())
            self._show_above(job)
        elif ending == "stopped":
            self._activity.end(f"Stopped after {duration(job.seconds)}", "warning", job.kind.kept)
        else:
            self._activity.end(f"{job.title} failed", "error")
            self.told.emit(replace(message_of(error, f"{job.title} failed", job.kind.remedy), run=job.kind.key))
