"""Runs: quantize, pause, cancel, retry, export and verify on the background thread, told by the activity strip."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal

from studio import core
from studio.gui.jobs import tasks
from studio.gui.jobs.activity import Activity, Estimate, duration
from studio.gui.jobs.compute import Bug, Compute, Task
from studio.gui.layers.document import Document, Order
from studio.gui.layers.store import FAILED
from studio.gui.shell.actions import keys_of
from studio.gui.shell.cards import Message
from studio.gui.shell.settings import Settings


class Runs(QObject):
    """What is running, and what it found.

    Signals:
        changed(): a run began, paused, went on or ended.
        told(Message): something to show.
        exported(Export, Outcome): an export is written and verified.
        backend_known(str): the title of what computes.
        progressed(float): share of the run that is done; -1 when none is.
    """

    changed = Signal()
    told = Signal(object)
    exported = Signal(object, object)
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
        self._orders: dict[Task, Order] = {}
        self._reports: dict[Task, Callable[[Any], None]] = {}
        self._ends: dict[Task, Callable[[], None]] = {}
        self._estimate: Estimate | None = None
        self._counts: dict[str, int] = {}
        self._titles: dict[Task, str] = {}
        self._began = 0.0
        compute.started.connect(self._started)
        compute.reported.connect(self._reported)
        compute.ended.connect(self._ended)

    @property
    def machine(self) -> core.Machine:
        """What the settings allow a job to use."""
        setting = self._settings
        return core.Machine(setting["backend"], setting["threads"], setting["memory_limit"] * 1_000_000)

    @property
    def active(self) -> bool:
        """True while something runs or waits to."""
        return bool(self._titles)

    # what can be run

    def quantize(self, names: Sequence[str] | None = None) -> None:
        """Quantize what is not done: of all layers, or of `names`."""
        order = self._document.order(names)
        if order.choices:
            self._document.begin(order)
            self.survey(order, "Quantizing")

    def survey(self, order: Order, title: str, done: Callable[[], None] | None = None) -> None:
        """Quantize in memory what `order` says, and remember the results; `done` is called when nothing failed."""
        model = self._document.model
        assert model is not None
        choices, machine = list(order.choices.values()), self.machine
        task = Task("measure", title, lambda: tasks.surveying(machine, model, choices))
        self._orders[task] = order
        if done is not None:
            self._ends[task] = done
        self._submit(task, self._take_event)

    def retry(self) -> None:
        """Quantize the layers that failed once more."""
        store = self._document.store
        self.quantize([store.names[i] for i in (store.state == FAILED).nonzero()[0].tolist()])

    def export(self, job: core.Export) -> None:
        """Write and verify an export."""
        machine = self.machine
        found: list[core.Outcome] = []

        def take(event: Any) -> None:
            if isinstance(event, core.Finished):
                found.append(event.outcome)
            self._take_export_event(event)

        task = Task("export", "Exporting", lambda: tasks.exporting(machine, job))
        self._ends[task] = lambda: self.exported.emit(job, found[0])
        self._submit(task, take)

    def verify(self, folder: Path) -> None:
        """Check an export that was written earlier, against the open checkpoint when there is one."""
        machine, source = self.machine, self._document.model
        task = Task("verify", "Verifying", lambda: tasks.verifying(machine, folder, source))
        layers: list[int] = []

        def take(event: Any) -> None:
            if isinstance(event, core.Finished):
                layers.append(len(event.outcome.layers))
            self._take_export_event(event)

        def end() -> None:
            title = f"{core.printable(folder.name)} is whole"
            count = core.counted(layers[0], "layer decodes", "layers decode")
            self.told.emit(Message("good", title, f"{count}, and every byte is as it was written."))

        self._ends[task] = end
        self._submit(task, take)

    def _submit(self, task: Task, take: Callable[[Any], None]) -> None:
        self._reports[task] = take
        self._titles[task] = task.title
        self._compute.submit(task)
        self.changed.emit()

    def toggle_pause(self) -> None:
        """Pause, or go on; of no effect while nothing runs."""
        if not self.active:
            return
        paused = not self._compute.paused
        self._compute.pause(paused)
        self._activity.show_paused(paused)
        if self._estimate is not None:
            (self._estimate.hold if paused else self._estimate.go_on)(time.monotonic())
        self.changed.emit()

    def stop(self) -> None:
        """Stop; seen at once, over at the next step."""
        if self.active:
            self._activity.show_stopping()
            self._compute.stop()

    # what the thread tells

    def _started(self, task: Task) -> None:
        if task not in self._titles:
            return
        self._counts = {"done": 0, "failed": 0, "total": 0}
        self._estimate, self._began = None, time.monotonic()
        self._activity.begin(task.title)
        self.changed.emit()

    def _reported(self, task: Task, events: list[Any]) -> None:
        take = self._reports.get(task)
        if take is None:
            return
        order = self._orders.get(task)
        if order is not None:
            self._document.take(order, [event.result for event in events if isinstance(event, core.LayerDone)])
        for event in events:
            take(event)
        self._show_progress(task, events)

    def _take_event(self, event: Any) -> None:
        if isinstance(event, str):
            self.backend_known.emit(event)
        elif isinstance(event, core.Started):
            self._estimate = Estimate(event.total, started=self._began)
            self._counts["total"] = event.layers
        elif isinstance(event, core.LayerDone):
            self._counts["done"] += 1
        elif isinstance(event, core.LayerFailed):
            self._counts["failed"] += 1
            self._tell_failure(event)
        elif isinstance(event, core.Warned):
            self.told.emit(Message("warning", "Look at this layer", event.message))

    def _take_export_event(self, event: Any) -> None:
        if isinstance(event, core.Resumed):
            self.told.emit(Message("info", f"{event.shard} was finished by an earlier run and is taken over"))
        elif isinstance(event, core.Warned):
            self.told.emit(Message("warning", "Look at this folder", event.message))
        else:
            self._take_event(event)

    def _tell_failure(self, event: core.LayerFailed) -> None:
        self._document.take_failure(event.name, str(event.error))
        name = core.printable(event.name)
        keep = ("Keep it as it is", lambda: self._document.set_format([event.name], core.KEEP))
        hint = "The other layers go on. Keep this one as it is, or mend the source."
        self.told.emit(
            Message("error", f"{name} can not be quantized", str(event.error), hint, "", event.name, (keep,))
        )

    def _show_progress(self, task: Task, events: list[Any]) -> None:
        last = next((event for event in reversed(events) if isinstance(event, core.Progress)), None)
        estimate = self._estimate
        if last is None or estimate is None:
            return
        estimate.update(last.done, time.monotonic())
        if task in self._orders and last.layer in self._document.store.index:
            self._document.take_running(last.layer)
        word = "verifying" if last.phase == "verify" and task.key == "export" else ""
        detail = " ".join(part for part in (word, core.printable(last.layer)) if part)
        done = f"{core.size_text(estimate.done)} of {core.size_text(estimate.total)} read"
        rate = f"{core.size_text(estimate.rate)}/s" if estimate.left is not None else ""
        self._activity.show_progress(estimate, detail, done, rate)
        if task.key == "measure":
            self._activity.show_above(self.above_line())
        self.progressed.emit(estimate.share)

    def above_line(self) -> int:
        """How many layers lost more than the warning line allows."""
        return int((self._document.store.rel_err > self._document.warning_line).sum())

    def _ended(self, task: Task, ending: str, error: object) -> None:
        title = self._titles.pop(task, "")
        if not title:
            return
        self._reports.pop(task)
        end = self._ends.pop(task, None)
        if (order := self._orders.pop(task, None)) is not None:
            self._document.end(order)
        seconds = time.monotonic() - self._began - (self._estimate.waited if self._estimate else 0.0)
        getattr(self, f"_end_{ending}")(task, seconds, error)
        if ending == "finished" and end is not None:
            end()
        if not self.active:
            self._compute.pause(False)
        self.progressed.emit(-1.0)
        self.changed.emit()

    def _end_finished(self, task: Task, seconds: float, error: object) -> None:
        total = self._estimate.total if self._estimate else 0
        rate = f" at {core.size_text(total / seconds)}/s" if seconds > 0 else ""
        figures = (
            f"{core.size_text(total)} read in {duration(seconds)}{rate}"
            if seconds >= 1
            else f"{core.size_text(total)} read in {seconds:.1f} s"
        )
        past = {"measure": "Quantized", "export": "Exported", "verify": "Verified"}[task.key]
        count, failed = self._counts["done"], self._counts["failed"]
        what = f"{past} {core.counted(count, 'layer')}" if count else past
        self._activity.end(what + (f", {failed} failed" if failed else ""), "warning" if failed else "good", figures)
        if task.key == "measure":
            self._activity.show_above(self.above_line())

    def _end_stopped(self, task: Task, seconds: float, error: object) -> None:
        kept = "finished shards are kept: export again to go on" if task.key == "export" else "what is done is kept"
        self._activity.end(f"Stopped after {duration(seconds)}", "warning", kept)

    def _end_failed(self, task: Task, seconds: float, error: object) -> None:
        self._activity.end(f"{task.title} failed", "error")
        self.told.emit(message_of(error, f"{task.title} failed", _REMEDIES[task.key]))


_REMEDIES = {
    "measure": f"What is done is kept: mend the cause and quantize again ({keys_of('quantize')}).",
    "export": "The target is as it was. Mend the cause and export again "
    f"({keys_of('export')}): finished shards are taken over.",
    "verify": f"Do not use this export: write it again ({keys_of('export')}).",
}


def message_of(error: object, title: str, otherwise: str = "") -> Message:
    """The card for an error: what happened and what to do (`otherwise`, where it does not say), or to report a bug."""
    if isinstance(error, core.StudioError):
        return Message("error", title, str(error), for_window(error.hint) or otherwise)
    if isinstance(error, Bug):
        hint = "This is a fault of the program. Copy it into a report; your checkpoint is unchanged."
        return Message("error", title, error.what, hint, error.details)
    return Message("error", title, str(error))


_HINTS = {
    "--overwrite": "tick Replace",
    "--restart": "tick Discard what a stopped run left",
    "--skip-nonfinite keeps such tensors as they are": "keep such layers as they are (key 0)",
    "--backend auto": "the setting Computes on: auto",
    "list the names with: nvfp4-studio inspect": "the names are in the table",
    "run the same command again": "export again",
}


def for_window(hint: str) -> str:
    """A hint that was written for the command line, in the words of the window."""
    for option, words in _HINTS.items():
        hint = hint.replace(option, words)
    return hint[:1].upper() + hint[1:] + ("." if hint and not hint.endswith(".") else "")
