"""Compute: the background thread as the window sees it; what its tasks yield comes back as signals."""

import threading
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal

from studio.gui.jobs.turns import Ending, Task, Turns

RELAY_MS = 100
LAST_SECONDS = 0.05
"""How long closing the window waits for the thread to end; a step that takes longer ends without the window."""


class Compute(QObject):
    """Submit tasks, pause, stop. Nothing here waits for the thread.

    Signals:
        started(Task): a task begins.
        reported(Task, list): what it yielded since the last report, at most ten times a second.
        ended(Task, str, object): it is "finished", "stopped", or "failed" with an error. Every task that was submitted
            ends, also one that never began or that a newer one replaced.
    """

    started = Signal(object)
    reported = Signal(object, list)
    ended = Signal(object, str, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._turns = Turns()
        self._turns.began.connect(self._begin)
        self._turns.ended.connect(self._end)
        self._begun: set[Task] = set()
        self._timer = QTimer(self, interval=RELAY_MS)
        self._timer.timeout.connect(self._relay)
        self._thread = threading.Thread(target=self._turns.run, name="compute")
        self._thread.start()

    @property
    def paused(self) -> bool:
        """True while the running task waits."""
        return self._turns.paused

    def submit(self, task: Task) -> None:
        """Run `task` when its turn comes; a newer preview replaces an older one of the same key."""
        if task.preview:
            self._drop(lambda other: other.preview and other.key == task.key)
        with self._turns.condition:
            self._turns.waiting.append(task)
            self._notify()

    def pause(self, paused: bool) -> None:
        """Let the running task wait, or go on; previews do not wait."""
        with self._turns.condition:
            self._turns.paused = paused
            self._notify()

    def stop(self) -> None:
        """Stop everything, at the next step, and drop what waits."""
        self.pause(False)
        self._drop(lambda _: True)

    def cancel(self, task: Task) -> None:
        """Stop one task, at its next step."""
        self._drop(lambda other: other is task)

    def release(self, close: Callable[[], object]) -> None:
        """Call `close` on the thread once no preview can use any more what it closes."""
        self._drop(lambda task: task.preview and not task.lasting)
        self.do(close)

    def do(self, chore: Callable[[], object]) -> None:
        """Call `chore` on the thread, between two steps; when the window closes, after the last one."""
        with self._turns.condition:
            self._turns.chores.append(chore)
            self._notify()

    def close(self) -> None:
        """Stop everything for good. A step that takes long ends on its own, and tells nobody."""
        with self._turns.condition:
            self._turns.leaving = True
            self._notify()
        self._timer.stop()
        self._thread.join(LAST_SECONDS)

    def _drop(self, which: Callable[[Task], bool]) -> None:
        turns = self._turns
        with turns.condition:
            gone = [task for task in turns.waiting if which(task)]
            turns.waiting = [task for task in turns.waiting if not which(task)]
            turns.dropped.update(live.task for live in turns.live if which(live.task))
            turns.discard(which)
            self._notify()
        for task in gone:
            self.ended.emit(task, "stopped", None)

    def _notify(self) -> None:
        self._turns.changed = True
        self._turns.condition.notify_all()

    def _begin(self, task: Task) -> None:
        self._begun.add(task)
        self._timer.start()
        self.started.emit(task)

    def _end(self, task: Task, ending: Ending, error: object) -> None:
        self._relay()
        self._begun.discard(task)
        if not self._begun:
            self._timer.stop()
        self.ended.emit(task, ending, error)

    def _relay(self) -> None:
        batch: dict[Task, list[Any]] = {}
        for task, report in self._turns.take_reports():
            batch.setdefault(task, []).append(report)
        for task, found in batch.items():
            self.reported.emit(task, found)
