"""Opening: a checkpoint is read on the background thread; meanwhile nothing else starts, and it can be cancelled."""

from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal

from studio import core
from studio.gui.jobs import tasks
from studio.gui.jobs.compute import Compute
from studio.gui.jobs.turns import Ending, Task
from studio.gui.layers.document import Document
from studio.gui.shell.cards import Message
from studio.gui.shell.faults import message_of

HINT = "Choose a folder with config.json and .safetensors, or one .safetensors file, downloaded in full."
SEALED = "Look around; to quantize, start from the checkpoint before it was quantized."
MOST_WARNINGS = 3


class Opening(QObject):
    """Opens one checkpoint at a time; the one asked for last is the one that opens.

    Signals:
        changed(): something is being opened, or no longer is.
        opened(Path): the document shows what was opened from there.
        told(Message): something to show.
    """

    changed = Signal()
    opened = Signal(object)
    told = Signal(object)

    def __init__(self, document: Document, compute: Compute, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._document, self._compute = document, compute
        self._task: Task | None = None
        self._asked: dict[Task, tuple[Path, core.Plan]] = {}
        compute.reported.connect(self._reported)
        compute.ended.connect(self._ended)

    @property
    def path(self) -> Path | None:
        """What is being opened."""
        return self._asked[self._task][0] if self._task is not None else None

    @property
    def reason(self) -> str:
        """Why nothing else can start, "" when nothing is being opened."""
        return "a checkpoint is being opened" if self._task is not None else ""

    def open(self, path: Path, plan: core.Plan) -> None:
        """Open a checkpoint, instead of the one that is being opened."""
        self._drop()
        task = Task("open", "Opening", lambda: tasks.opening(path, plan))
        self._task, self._asked[task] = task, (path, plan)
        self._compute.submit(task)
        self.changed.emit()

    def cancel(self) -> None:
        """Open nothing; what is open stays."""
        if (path := self.path) is not None:
            self._drop()
            self.told.emit(Message("info", f"{core.printable(path.name, 60)} is not opened: you cancelled"))
            self.changed.emit()

    def close(self) -> None:
        """Open nothing any more: the window closes."""
        self._drop()
        self.changed.emit()

    def _drop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            self._compute.cancel(task)

    def _reported(self, task: Task, reports: list[Any]) -> None:
        if task not in self._asked:
            return
        model, choices, groups = reports[-1]
        if task is not self._task:
            self._compute.release(model.close)
            return
        path, plan = self._asked[task]
        self._task = None
        self._show(model, choices, groups, plan)
        self.opened.emit(path)
        self.changed.emit()
        self._warn(model)

    def _show(
        self, model: core.Model, choices: tuple[core.Choice, ...], groups: core.ScaleGroups, plan: core.Plan
    ) -> None:
        """Put it into the document; read again, choices by hand stay where their layers still are."""
        document = self._document
        again = document.model is not None and document.model.path == model.path
        edits = dict(document.state.edits) if again else {}
        saved = document.is_saved or not again
        document.open(model, choices, groups, plan)
        kept = {name: value for name, value in edits.items() if name in document.store.index}
        if kept:
            document.set_formats(kept, "choices from before")
        (document.undo.setClean if saved else document.undo.resetClean)()

    def _warn(self, model: core.Model) -> None:
        for warning in model.warnings[:MOST_WARNINGS]:
            self.told.emit(Message("warning", "Odd in this checkpoint", core.printable(warning, 400)))
        if model.quantized_by:
            title = f"Already quantized: {core.printable(model.quantized_by)}"
            self.told.emit(Message("warning", title, hint=SEALED))

    def _ended(self, task: Task, ending: Ending, error: object) -> None:
        if self._asked.pop(task, None) is None or task is not self._task:
            return
        self._task = None
        if ending == "failed":
            self.told.emit(message_of(error, "This can not be opened", HINT))
        self.changed.emit()
