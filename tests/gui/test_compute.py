"""The background thread: tasks take turns, the newest preview counts, and nothing waits for it."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pytestqt.qtbot import QtBot

from studio.gui.jobs.compute import Compute
from studio.gui.jobs.turns import Task
from studio.gui.shell.faults import Bug
from tests.gui.conftest import PATIENCE


class Heard:
    """What the thread told."""

    def __init__(self, compute: Compute) -> None:
        self.ended: dict[Task, str] = {}
        self.errors: dict[Task, object] = {}
        self.found: dict[Task, list[Any]] = {}
        compute.ended.connect(self._end)
        compute.reported.connect(lambda task, found: self.found.setdefault(task, []).extend(found))

    def _end(self, task: Task, ending: str, error: object) -> None:
        assert task not in self.ended, "a task ends once"
        self.ended[task], self.errors[task] = ending, error


@pytest.fixture
def compute() -> Iterator[Compute]:
    made = Compute()
    yield made
    made.close()


@pytest.fixture
def heard(compute: Compute) -> Heard:
    return Heard(compute)


def counting(steps: int, closed: list[str] | None = None, seconds: float = 0.002) -> Callable[[], Iterator[int]]:
    def run() -> Iterator[int]:
        try:
            for step in range(steps):
                time.sleep(seconds)
                yield step
        finally:
            if closed is not None:
                closed.append("closed")

    return run


def test_a_preview_and_the_run_take_turns(compute: Compute, heard: Heard, qtbot: QtBot) -> None:
    order: list[str] = []

    def noting(word: str) -> Callable[[], Iterator[str]]:
        def run() -> Iterator[str]:
            for _ in range(60):
                time.sleep(0.002)
                order.append(word)
                yield word

        return run

    run, look = Task("run", "Run", noting("run")), Task("look", "Look", noting("look"), preview=True)
    compute.submit(run)
    compute.submit(look)
    qtbot.waitUntil(lambda: len(heard.ended) == 2)
    assert set(heard.ended.values()) == {"finished"}
    first = order[:60]
    assert first.count("run") > 10
    assert first.count("look") > 10
    assert heard.found[look] == ["look"] * 60


def test_a_newer_preview_of_the_same_kind_ends_an_older_one_and_no_other(
    compute: Compute, heard: Heard, qtbot: QtBot
) -> None:
    closed: list[str] = []
    old, new = (Task("look", name, counting(n, closed), preview=True) for name, n in (("old", 5000), ("new", 3)))
    other = Task("checks", "other", counting(40), preview=True)
    compute.submit(old)
    compute.submit(other)
    qtbot.waitUntil(lambda: old in heard.found)
    compute.submit(new)
    qtbot.waitUntil(lambda: len(heard.ended) == 3, timeout=PATIENCE)
    assert heard.ended == {old: "stopped", new: "finished", other: "finished"}
    assert len(closed) == 2


@pytest.mark.proof
def test_a_preview_that_never_began_ends_too(compute: Compute, heard: Heard, qtbot: QtBot) -> None:
    gate = threading.Event()
    held = Task("held", "Held", lambda: iter([gate.wait(5)] if gate.wait(5) else []))
    compute.submit(held)
    dropped = [Task("look", str(number), counting(1), preview=True) for number in range(5)]
    for task in dropped:
        compute.submit(task)
    assert [heard.ended.get(task) for task in dropped] == ["stopped"] * 4 + [None]
    gate.set()
    qtbot.waitUntil(lambda: dropped[-1] in heard.ended)


def test_stop_ends_previews_and_drops_what_waits(compute: Compute, heard: Heard, qtbot: QtBot) -> None:
    run, waits = (Task("run", name, counting(5000)) for name in ("run", "waits"))
    look = Task("look", "look", counting(5000), preview=True)
    for task in (run, waits, look):
        compute.submit(task)
    qtbot.waitUntil(lambda: run in heard.found and look in heard.found)
    began = time.monotonic()
    compute.stop()
    qtbot.waitUntil(lambda: len(heard.ended) == 3)
    assert time.monotonic() - began < 3, "three tasks of 5,000 steps would take longer"
    assert set(heard.ended.values()) == {"stopped"}


def test_a_preview_goes_on_while_the_run_is_paused(compute: Compute, heard: Heard, qtbot: QtBot) -> None:
    run, look = Task("run", "run", counting(5000)), Task("look", "look", counting(5), preview=True)
    compute.submit(run)
    qtbot.waitUntil(lambda: run in heard.found)
    compute.pause(True)
    compute.submit(look)
    qtbot.waitUntil(lambda: look in heard.ended)
    seen = len(heard.found[run])
    qtbot.wait(250)
    assert len(heard.found[run]) <= seen + 20
    assert run not in heard.ended
    compute.stop()
    qtbot.waitUntil(lambda: run in heard.ended)


def test_what_a_preview_reads_is_closed_after_the_preview(compute: Compute, heard: Heard, qtbot: QtBot) -> None:
    events: list[str] = []
    look = Task("look", "look", counting(5000, events), preview=True)
    lasting = Task("export", "export", counting(5000), preview=True, lasting=True)
    compute.submit(look)
    compute.submit(lasting)
    qtbot.waitUntil(lambda: look in heard.found)
    compute.release(lambda: events.append("files closed"))
    qtbot.waitUntil(lambda: len(events) == 2)
    assert events == ["closed", "files closed"]
    assert heard.ended.get(lasting) is None
    compute.stop()
    qtbot.waitUntil(lambda: lasting in heard.ended)


def test_an_error_in_a_step_and_one_in_closing_are_told(compute: Compute, heard: Heard, qtbot: QtBot) -> None:
    def fails() -> Iterator[int]:
        yield 1
        raise ValueError("in a step")

    def sticks() -> Iterator[int]:
        try:
            for step in range(5000):
                time.sleep(0.001)
                yield step
        finally:
            raise OSError("while closing")

    first, second = Task("a", "a", fails), Task("b", "b", sticks)
    compute.submit(first)
    compute.submit(second)
    qtbot.waitUntil(lambda: second in heard.found)
    compute.cancel(second)
    qtbot.waitUntil(lambda: second in heard.ended)
    assert heard.ended == {first: "failed", second: "failed"}
    for task, words in ((first, "in a step"), (second, "while closing")):
        error = heard.errors[task]
        assert isinstance(error, Bug)
        assert words in error.what
        assert "Traceback" in error.details


def test_closing_does_not_wait_for_a_long_step(qtbot: QtBot) -> None:
    compute, gate, closed = Compute(), threading.Event(), threading.Event()
    heard = Heard(compute)

    def long() -> Iterator[int]:
        try:
            yield 0
            gate.wait(10)
            yield 1
        finally:
            closed.set()

    compute.submit(Task("run", "run", long))
    qtbot.waitUntil(lambda: bool(heard.found))
    qtbot.wait(20)
    began = time.monotonic()
    compute.close()
    assert time.monotonic() - began < 3, "the step would last ten seconds"
    compute.deleteLater()
    qtbot.wait(20)
    gate.set()
    assert closed.wait(5), "the work ends in order, without the window"


def until(done: Callable[[], object]) -> None:
    """Wait without letting the event loop have its turn."""
    ends = time.monotonic() + 5
    while not done():
        assert time.monotonic() < ends
        time.sleep(0.001)


def test_what_nobody_heard_of_is_discarded_before_the_next_task_begins(
    compute: Compute, heard: Heard, qtbot: QtBot
) -> None:
    order: list[str] = []
    first = Task("open", "Open", lambda: iter(["found"]), discard=lambda found: order.append(f"{found} discarded"))

    def following() -> Iterator[str]:
        order.append("next begins")
        yield "next"

    compute.submit(first)
    until(lambda: compute._turns.reports and not compute._turns.live)  # it is over, and the event loop does not know
    compute.cancel(first)
    compute.submit(Task("open", "Open", following))
    qtbot.waitUntil(lambda: len(heard.ended) == 2)
    assert order == ["found discarded", "next begins"]
    assert first not in heard.found


def test_what_is_found_in_the_step_that_was_to_be_the_last_is_discarded(
    compute: Compute, heard: Heard, qtbot: QtBot
) -> None:
    began, goes_on, discarded = threading.Event(), threading.Event(), []

    def slow() -> Iterator[str]:
        began.set()
        goes_on.wait(5)
        yield "found"

    task = Task("open", "Open", slow, discard=discarded.append)
    compute.submit(task)
    began.wait(5)
    compute.cancel(task)
    goes_on.set()
    qtbot.waitUntil(lambda: len(heard.ended) == 1)
    assert discarded == ["found"]
    assert task not in heard.found


def test_what_was_found_in_the_instant_of_closing_is_discarded() -> None:
    compute, discarded = Compute(), []
    heard = Heard(compute)
    compute.submit(Task("open", "Open", lambda: iter(["found"]), discard=discarded.append))
    until(lambda: compute._turns.reports)
    compute.close()
    until(lambda: discarded)
    assert heard.found == {}


def test_what_was_done_before_a_stop_is_reported(compute: Compute, heard: Heard, qtbot: QtBot) -> None:
    task = Task("run", "Run", counting(1000))
    compute.submit(task)
    until(lambda: len(compute._turns.reports) > 3)
    compute.cancel(task)
    qtbot.waitUntil(lambda: task in heard.ended)
    assert heard.found[task][:4] == [0, 1, 2, 3]
