"""Answers: short questions that are worked out on the background thread, each answered once whatever happens."""

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QObject

from studio.gui.jobs.compute import Compute
from studio.gui.jobs.turns import Ending, Steps, Task

Answer = Callable[[list[Any], Ending, object], None]
"""Takes what was found, how the work ended, and the error if it failed."""


class Answers(QObject):
    """Asks the thread, and calls back with everything that it found. A newer question of a key ends the older one."""

    def __init__(self, compute: Compute, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._compute = compute
        self._asked: dict[Task, tuple[Answer, list[Any]]] = {}
        compute.reported.connect(self._reported)
        compute.ended.connect(self._ended)

    def ask(self, key: str, steps: Callable[[], Steps], answer: Answer, *, lasting: bool = False) -> None:
        """Work through `steps`, then call `answer`; `lasting`: also when another checkpoint is opened meanwhile."""
        task = Task(key, "Looking up", steps, preview=True, lasting=lasting)
        self._asked[task] = answer, []
        self._compute.submit(task)

    def _reported(self, task: Task, found: list[Any]) -> None:
        if task in self._asked:
            self._asked[task][1].extend(found)

    def _ended(self, task: Task, ending: Ending, error: object) -> None:
        if task in self._asked:
            answer, found = self._asked.pop(task)
            answer(found, ending, error)
