"""Aside: work that may wait for a network, on a thread of its own, so that whoever follows it can leave at any time."""

from collections.abc import Callable, Generator
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from studio.core.running.ending import Ending

T = TypeVar("T")

TOLD, ENDED, FAILED = "told", "ended", "failed"
TURN = 0.02
"""Seconds after which the follower has its turn again, whatever the work does."""

Tell = Callable[[T], None]


def aside(
    work: Callable[[Tell[T], Ending], None], name: str, discard: Callable[[T], object] = lambda _: None
) -> Generator[T | None, None, None]:
    """What `work` tells, in order, and None now and then while it tells nothing; raises what it raises.

    work: takes a function to tell with, and what is set once nobody follows any more: it is to end then. A closed
    generator does not wait for that, as a silent network could keep it for ever; what is told and not taken any more
    goes to `discard`.
    """
    told, left = SimpleQueue[tuple[str, Any]](), Ending()

    def drop() -> None:
        with suppress(Empty):
            while True:
                kind, what = told.get_nowait()
                if kind == TOLD:
                    discard(what)

    def tell(what: T) -> None:
        told.put((TOLD, what))
        if left.is_set():
            drop()

    def run() -> None:
        try:
            work(tell, left)
        except BaseException as error:
            told.put((FAILED, error))
        else:
            told.put((ENDED, None))

    Thread(target=run, name=name, daemon=True).start()
    try:
        yield from _followed(told)
    finally:
        left.set()
        drop()


def _followed(told: "SimpleQueue[tuple[str, Any]]") -> Generator[Any, None, None]:
    while True:
        try:
            kind, what = told.get(timeout=TURN)
        except Empty:
            yield None
            continue
        if kind == ENDED:
            return
        if kind == FAILED:
            raise what
        yield what
