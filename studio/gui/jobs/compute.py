"""Compute: the one background thread of the window; it runs tasks and relays what they yield as signals."""

import contextlib
import os
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from PySide6.QtCore import QObject, QThread, QTimer, Signal

RELAY_MS = 100
NICENESS = 10

Ending = Literal["finished", "stopped", "failed"]
Steps = Iterator[Any]


@dataclass(frozen=True, eq=False)
class Task:
    """Work for the thread: `steps` makes a generator there; what it yields is reported, closing it stops the work.

    A preview is short: it runs between the steps of a longer task, and a newer one of the same key replaces it.
    """

    key: str
    title: str
    steps: Callable[[], Steps]
    preview: bool = False


@dataclass(frozen=True, slots=True)
class Bug:
    """An exception that nobody expected, with its traceback as text."""

    what: str
    details: str


class _Stopped(Exception):  # noqa: N818 - not an error: the user asked for it
    pass


class _Thread(QThread):
    """Takes tasks until it is told to leave.

    Signals:
        began(object): the task that runs now.
        ended(object, str, object): the task, how it ended, and the error if it failed.
    """

    began = Signal(object)
    ended = Signal(object, str, object)

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.condition = threading.Condition()
        self.tasks: deque[Task] = deque()
        self.previews: deque[Task] = deque()
        self.reports: deque[tuple[Task, Any]] = deque()
        self.running: Task | None = None
        self.stopping: set[Task] = set()
        self.paused = False
        self.leaving = False

    def run(self) -> None:
        """Work until `leaving`; at a lower priority than the window."""
        with contextlib.suppress(AttributeError, OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while (task := self._next()) is not None:
            self._work(task, self._work_through)

    def _next(self) -> Task | None:
        with self.condition:
            self.condition.wait_for(lambda: self.leaving or self.tasks or self.previews)
            if self.leaving:
                return None
            return self.previews.popleft() if self.previews else self.tasks.popleft()

    def _work(self, task: Task, through: Callable[[Task], None]) -> None:
        ending: Ending = "finished"
        error: object = None
        if not task.preview:
            self.running = task
        self.began.emit(task)
        try:
            through(task)
        except _Stopped:
            ending = "stopped"
        except MemoryError:
            ending, error = "failed", Bug("There is not enough memory for this.", "")
        except Exception as caught:
            ending, error = "failed", _error(caught)
        if not task.preview:
            self.running = None
        self.stopping.discard(task)
        self.ended.emit(task, ending, error)

    def _work_through(self, task: Task) -> None:
        steps = task.steps()
        try:
            for report in steps:
                self.reports.append((task, report))
                self._between(task)
        finally:
            if isinstance(steps, Generator):
                steps.close()

    def _between(self, task: Task) -> None:
        """Between two steps: previews have their turn, a pause waits here, a stop ends the task."""
        while True:
            with self.condition:
                if not task.preview:
                    self.condition.wait_for(lambda: not self.paused or self.previews or self._must_end(task))
                if self._must_end(task):
                    raise _Stopped
                preview = self.previews.popleft() if self.previews and not task.preview else None
            if preview is None:
                return
            self._work(preview, self._work_through)

    def _must_end(self, task: Task) -> bool:
        return self.leaving or task in self.stopping


def _error(caught: Exception) -> object:
    from studio import core

    if isinstance(caught, core.StudioError):
        return caught.with_traceback(None)
    return Bug(f"{type(caught).__name__}: {caught}", "".join(traceback.format_exception(caught)))


class Compute(QObject):
    """The background thread, as the window sees it: submit tasks, pause, stop.

    Signals:
        started(Task): a task begins.
        reported(Task, list): what it yielded since the last report, at most ten times a second.
        ended(Task, str, object): it is "finished", "stopped", or "failed" with an error.
    """

    started = Signal(object)
    reported = Signal(object, list)
    ended = Signal(object, str, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._thread = _Thread(self)
        self._thread.began.connect(self._begin)
        self._thread.ended.connect(self._end)
        self._timer = QTimer(self, interval=RELAY_MS)
        self._timer.timeout.connect(self._relay)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """True while a task that is no preview runs or waits."""
        return self._thread.running is not None or bool(self._thread.tasks)

    @property
    def paused(self) -> bool:
        """True while the running task waits."""
        return self._thread.paused

    @property
    def running(self) -> Task | None:
        """The task that runs, previews left out."""
        return self._thread.running

    def submit(self, task: Task) -> None:
        """Run `task` when its turn comes; a newer preview replaces an older one of the same key."""
        thread = self._thread
        with thread.condition:
            if task.preview:
                thread.previews = deque(other for other in thread.previews if other.key != task.key)
                thread.previews.append(task)
            else:
                thread.tasks.append(task)
            thread.condition.notify_all()

    def pause(self, paused: bool) -> None:
        """Let the running task wait, or go on."""
        with self._thread.condition:
            self._thread.paused = paused
            self._thread.condition.notify_all()

    def stop(self) -> None:
        """Stop the running task and drop those that wait; it ends at its next step."""
        thread = self._thread
        with thread.condition:
            dropped, thread.tasks = list(thread.tasks), deque()
            if thread.running is not None:
                thread.stopping.add(thread.running)
            thread.paused = False
            thread.condition.notify_all()
        for task in dropped:
            self.ended.emit(task, "stopped", None)

    def close(self) -> None:
        """Stop everything and end the thread; returns when it is gone."""
        with self._thread.condition:
            self._thread.leaving = True
            self._thread.condition.notify_all()
        self._thread.wait()
        self._timer.stop()

    def _begin(self, task: Task) -> None:
        self._timer.start()
        self.started.emit(task)

    def _end(self, task: Task, ending: Ending, error: object) -> None:
        self._relay()
        if not self.busy:
            self._timer.stop()
        self.ended.emit(task, ending, error)

    def _relay(self) -> None:
        reports = self._thread.reports
        batch: dict[Task, list[Any]] = {}
        for _ in range(len(reports)):
            task, report = reports.popleft()
            batch.setdefault(task, []).append(report)
        for task, found in batch.items():
            self.reported.emit(task, found)
