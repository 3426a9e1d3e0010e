"""Exports: what exported folders say of their layers, read on the background thread."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal

from studio import core
from studio.gui.jobs import tasks
from studio.gui.jobs.compute import Compute
from studio.gui.jobs.turns import Ending, Task
from studio.gui.shell.faults import message_of

Results = list[core.LayerResult]
NOT_AN_EXPORT = "Choose a folder that this program exported: it holds nvfp4_studio.json."


class Exports(QObject):
    """Reads exports; the newest question replaces an older one.

    Signals:
        told(Message): something to show.
    """

    told = Signal(object)

    def __init__(self, compute: Compute, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._compute = compute
        self._answers: dict[Task, Callable[[list[Results] | None, Ending], None]] = {}
        self._found: dict[Task, list[Results]] = {}
        compute.reported.connect(self._reported)
        compute.ended.connect(self._ended)

    def read(self, paths: Sequence[Path], answer: Callable[[list[Results] | None, str], None]) -> None:
        """Call `answer` with the results of each export, or None and why there are none."""

        def end(found: list[Results] | None, ending: Ending) -> None:
            why = {"stopped": "you cancelled", "failed": "an export can not be read"}
            answer(found if ending == "finished" else None, why.get(ending, ""))

        self._submit("exports", paths, end)

    def ask_whether_same(self, paths: Sequence[Path], answer: Callable[[bool], None]) -> None:
        """Call `answer` with whether all are folders exported from the same layers."""

        def end(found: list[Results] | None, _ending: Ending) -> None:
            layers = {frozenset((one.name, one.shape) for one in results) for results in found or ()}
            answer(len(found or ()) == len(paths) and len(layers) == 1)

        self._submit("same exports", paths, end)

    def _submit(self, key: str, paths: Sequence[Path], end: Callable[[list[Results] | None, Ending], None]) -> None:
        task = Task(key, "Reading exports", lambda: tasks.reading_exports(paths), preview=True, lasting=True)
        self._answers[task], self._found[task] = end, []
        self._compute.submit(task)

    def _reported(self, task: Task, found: list[Any]) -> None:
        if task in self._found:
            self._found[task] += found

    def _ended(self, task: Task, ending: Ending, error: object) -> None:
        if (answer := self._answers.pop(task, None)) is None:
            return
        if ending == "failed" and task.key == "exports":
            self.told.emit(message_of(error, "This folder can not be compared", NOT_AN_EXPORT))
        answer(self._found.pop(task), ending)
