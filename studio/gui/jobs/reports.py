"""Reports: HTML, CSV and JSON of what is on the screen, written on the background thread."""

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from studio import core
from studio.gui.jobs import tasks
from studio.gui.jobs.compute import Compute
from studio.gui.jobs.turns import Ending, Steps, Task
from studio.gui.layers.document import Document
from studio.gui.shell.cards import Message
from studio.gui.shell.desktop import open_folder
from studio.gui.shell.faults import message_of


class Reports(QObject):
    """Writes reports and says where they are. `quality` gives what an evaluation found of the plan of now, if any.

    Signals:
        told(Message): something to show.
    """

    told = Signal(object)

    def __init__(self, document: Document, compute: Compute, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._document, self._compute = document, compute
        self._folders: dict[Task, Path] = {}
        self.quality: Callable[[], core.Quality | None] = lambda: None
        compute.ended.connect(self._ended)

    def write(self, folder: Path) -> None:
        """Write a report of the open checkpoint into `folder`."""
        model = self._document.model
        assert model is not None
        plan, outcome, quality = self._document.plan, self._document.outcome(), self.quality()
        self.run(lambda: tasks.reporting(folder, model, plan, outcome, quality), folder)

    def run(self, steps: Callable[[], Steps], folder: Path) -> None:
        """Write a report into `folder` by `steps`."""
        task = Task("report", "Report", steps)
        self._folders[task] = folder
        self._compute.submit(task)

    def _ended(self, task: Task, ending: Ending, error: object) -> None:
        if (folder := self._folders.pop(task, None)) is None:
            return
        if ending == "finished":
            fix = ("Open folder", lambda: open_folder(folder))
            self.told.emit(Message("good", "Report written", str(folder), fixes=(fix,)))
        elif ending == "failed":
            self.told.emit(message_of(error, "The report could not be written", "Choose another folder for it."))
        else:
            self.told.emit(Message("warning", "The report was not written: you cancelled", hint="Write it again."))
