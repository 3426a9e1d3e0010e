"""Turns: the background thread of the window; on it tasks go on step by step, so that none keeps another waiting."""

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from PySide6.QtCore import QObject, Signal, SignalInstance

from studio.gui.shell.faults import Bug, fault_of

NICENESS = 10
TURN_SECONDS = 0.01

Ending = Literal["finished", "stopped", "failed"]
Steps = Iterator[Any]


@dataclass(frozen=True, eq=False)
class Task:
    """Work for the thread: `steps` makes a generator there; what it yields is reported, closing it stops the work.

    One task runs at a time. A preview is short: it takes turns with the task that runs, and a newer one of the same key
    replaces it. It ends when another checkpoint is opened, unless it is `lasting`: then it reads none.

    discard: called on the thread with what was yielded and nobody takes any more, as the task or the window is gone,
    before another task begins; without it, what a task that is stopped has yielded is reported all the same.
    """

    key: str
    title: str
    steps: Callable[[], Steps]
    preview: bool = False
    lasting: bool = False
    discard: Callable[[Any], object] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Live:
    """A task that was begun."""

    task: Task
    steps: Steps


class Turns(QObject):
    """What the thread works on. Attributes are read and written under `condition`, which is notified of changes.

    Signals:
        began(Task): a task begins.
        ended(Task, str, object): how it ended, and the error if it failed.
    """

    began = Signal(object)
    ended = Signal(object, str, object)

    def __init__(self) -> None:
        super().__init__()
        self.condition = threading.Condition()
        self.waiting: list[Task] = []
        self.live: deque[_Live] = deque()
        self.dropped: set[Task] = set()
        self.chores: deque[Callable[[], object]] = deque()
        self.reports: deque[tuple[Task, Any]] = deque()
        self.paused = self.changed = self.leaving = False

    def run(self) -> None:
        """Work until `leaving`, at a lower priority than the window; then close what was begun, and do the chores."""
        with contextlib.suppress(AttributeError, OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while (due := self._next()) is not None:
            due()
        for live in self.live:
            _close(live.steps)
        self.discard(lambda _: True)
        while self.chores:
            self.chores.popleft()()

    def take_reports(self) -> deque[tuple[Task, Any]]:
        """What was yielded since the last time; nothing once it is time to leave."""
        with self.condition:
            if self.leaving:
                return deque()
            taken, self.reports = self.reports, deque()
            return taken

    def discard(self, which: Callable[[Task], bool]) -> None:
        """Take back what such tasks yielded and nobody heard of; the tasks say what is to be done with it."""
        with self.condition:
            unheard, self.reports = self.reports, deque()
            for task, report in unheard:
                if task.discard is not None and which(task):
                    self.chores.append(partial(task.discard, report))
                else:
                    self.reports.append((task, report))

    def _next(self) -> Callable[[], object] | None:
        with self.condition:
            while not self.leaving and (due := self._due()) is None:
                self.condition.wait()
            self.changed = False
            return None if self.leaving else due

    def _due(self) -> Callable[[], object] | None:
        """What is to be done next: end what is dropped, then chores, then begin tasks, then go on with the next one."""
        for live in self.live:
            if live.task in self.dropped:
                return partial(self._end, live, "stopped", None)
        if self.chores:
            return self.chores.popleft()
        taken = not all(live.task.preview for live in self.live)
        for task in self.waiting:
            if task.preview or not taken:
                self.waiting.remove(task)
                self.live.append(_Live(task, task.steps()))
                return partial(self._tell, self.began, task)
        return self._turn()

    def _turn(self) -> Callable[[], object] | None:
        for _ in range(len(self.live)):
            self.live.rotate(-1)
            live = self.live[-1]
            if live.task.preview or not self.paused:
                return partial(self._go_on, live)
        return None

    def _go_on(self, live: _Live) -> None:
        """Some steps of a task: until its time is over, or something else has to be done."""
        until = time.monotonic() + TURN_SECONDS
        try:
            while not self.changed:
                report = next(live.steps)
                with self.condition:
                    self.reports.append((live.task, report))
                if time.monotonic() > until:
                    return
        except StopIteration:
            self._end(live, "finished", None)
        except MemoryError:
            self._end(live, "failed", Bug("There is not enough memory for this.", ""))
        except Exception as caught:
            self._end(live, "failed", fault_of(caught))

    def _end(self, live: _Live, ending: Ending, error: object) -> None:
        fault = _close(live.steps)
        with self.condition:
            self.live.remove(live)
            if live.task in self.dropped:
                self.dropped.remove(live.task)
                self.discard(lambda task: task is live.task)
        if fault is not None:
            ending, error = "failed", fault
        self._tell(self.ended, live.task, ending, error)

    def _tell(self, signal: SignalInstance, *facts: object) -> None:
        with self.condition:
            if not self.leaving:  # nobody listens any more
                signal.emit(*facts)


def _close(steps: Steps) -> object:
    """Close a generator; the error, if it can not be closed."""
    try:
        if isinstance(steps, Generator):
            steps.close()
    except Exception as caught:
        return fault_of(caught)
    return None
