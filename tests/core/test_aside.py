"""Work aside: what it tells comes in order, nobody waits for it, nothing that it made is lost."""

import threading
import time
from collections.abc import Callable
from threading import Event

import pytest

from studio.core.running.aside import aside


def test_what_is_told_comes_in_order_and_none_while_nothing_is_told() -> None:
    go_on = Event()

    def work(tell: Callable[[int], None], _left: Event) -> None:
        tell(1)
        go_on.wait(10)
        tell(2)

    found = aside(work, "test")
    assert next(found) == 1
    assert next(found) is None
    go_on.set()
    assert [item for item in found if item is not None] == [2]


def test_what_is_raised_is_raised_where_it_is_followed() -> None:
    def work(tell: Callable[[int], None], _left: Event) -> None:
        tell(1)
        raise KeyError("x")

    found = aside(work, "test")
    with pytest.raises(KeyError):
        list(found)


def test_leaving_waits_for_nothing_and_discards_what_comes_late() -> None:
    go_on, dropped = Event(), list[str]()
    over = Event()

    def work(tell: Callable[[str], None], left: Event) -> None:
        go_on.wait(10)
        assert left.is_set()
        tell("late")
        over.set()

    found = aside(work, "test-aside", dropped.append)
    assert next(found) is None
    found.close()
    assert any(thread.name == "test-aside" for thread in threading.enumerate())
    go_on.set()
    assert over.wait(10)
    assert dropped == ["late"]
    while any(thread.name == "test-aside" for thread in threading.enumerate()):
        time.sleep(0.001)
