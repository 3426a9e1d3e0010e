"""Tasks on the worker threads: none outlives the block that started it."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Tasks:
    """Submits to a pool; leaving the block cancels what waits and waits for what runs, so files may be closed then."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._open: set[Future[object]] = set()

    def submit(self, job: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> Future[T]:
        """Run `job` on a worker thread."""
        future = self._pool.submit(job, *arguments, **named)
        self._open.add(future)  # type: ignore[arg-type]
        future.add_done_callback(self._open.discard)
        return future

    def __enter__(self) -> "Tasks":
        return self

    def __exit__(self, *_: object) -> None:
        left = list(self._open)
        for future in left:
            future.cancel()
        wait(left)
