"""Tasks on the worker threads: few are under way at once, and none outlives the block that started it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

BUNDLE_NBYTES = 512 << 10
"""Bytes of small pieces of work that one task takes together: less costs more to hand over than to do."""

BUNDLE_STEPS = 64


class Tasks:
    """Submits to a pool; leaving the block cancels what waits and waits for what runs, so files may be closed then.

    `window` is how many of the jobs of `in_order` are under way or wait to be gathered.
    """

    def __init__(self, pool: ThreadPoolExecutor, window: int = 8) -> None:
        self._pool = pool
        self._window = window
        self._open: set[Future[object]] = set()

    def submit(self, job: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> Future[T]:
        """Run `job` on a worker thread."""
        future = self._pool.submit(job, *arguments, **named)
        self._open.add(future)  # type: ignore[arg-type]
        future.add_done_callback(self._open.discard)
        return future

    def in_order(self, jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
        """The results of `jobs` in order. A window of them starts at once, each of the others when one is gathered."""
        left = iter(jobs)
        return self._gathered(left, deque(map(self.submit, islice(left, self._window))))

    def _gathered(self, left: Iterator[Callable[[], T]], waiting: deque[Future[T]]) -> Iterator[T]:
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(map(self.submit, islice(left, 1)))
            yield result
            del result  # what was gathered must not stay while the next is waited for

    def __enter__(self) -> "Tasks":
        return self

    def __exit__(self, *_: object) -> None:
        left = list(self._open)
        for future in left:
            future.cancel()
        wait(left)


class Sized(Protocol):
    """A piece of work that reads `nbytes`."""

    @property
    def nbytes(self) -> int:
        """Bytes that it reads."""
        ...


S = TypeVar("S", bound=Sized)


def bundles(steps: Iterable[S]) -> Iterator[list[S]]:
    """The steps in order, small ones together, so that a task is worth handing over."""
    bundle: list[S] = []
    room = BUNDLE_NBYTES
    for step in steps:
        if bundle and (step.nbytes > room or len(bundle) == BUNDLE_STEPS):
            yield bundle
            bundle, room = [], BUNDLE_NBYTES
        bundle.append(step)
        room -= step.nbytes
    if bundle:
        yield bundle
