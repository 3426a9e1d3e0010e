"""Aside: work that may wait for a network, on a thread of its own, so that whoever follows it can leave at any time."""

from collections.abc import Callable, Generator
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")

TURN = 0.1
"""Seconds after which the follower has its turn again, whatever the work does."""

Tell = Callable[[T], None]


def aside(work: Callable[[Tell[T], Event], None], name: str = "nvfp4-studio-aside") -> Generator[T | None, None, None]:
    """What `work` tells, in order, and None now and then while it tells nothing; raises what it raises.

    work: takes a function to tell with, and what is set once nobody follows any more: it is to end then. A closed
    generator does not wait for that, as a silent network could keep it for ever.
    """
    told, left = SimpleQueue[tuple[str, object]](), Event()

    def run() -> None:
        try:
            work(lambda what: told.put(("told", what)), left)
        except BaseException as error:
            told.put(("failed", error))
        else:
            told.put(("ended", None))

    Thread(target=run, name=name, daemon=True).start()
    try:
        yield from _followed(told)
    finally:
        left.set()


def _followed(told: "SimpleQueue[tuple[str, object]]") -> Generator[T | None, None, None]:
    while True:
        try:
            kind, what = told.get(timeout=TURN)
        except Empty:
            yield None
            continue
        if kind == "ended":
            return
        if isinstance(what, BaseException) and kind == "failed":
            raise what
        yield what  # type: ignore[misc]
