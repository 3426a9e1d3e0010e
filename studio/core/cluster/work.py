"""Work: what runs in the processes of a cluster. Everything is known from the order; what comes back is small."""

import os
import platform
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import kernels
from kernels.machines import choose, self_test
from studio.core.cluster.order import Order, opened
from studio.core.errors import StudioError
from studio.core.events import Event, Progress, Warned
from studio.core.jobs import start
from studio.core.running.spread import Task
from studio.core.stores.remote_folder import abandon_all

BEAT = 0.5
"""Seconds between two messages on how far a part is."""

PARTS = ("studio/core", "kernels")
"""Folders of the program whose text decides what bytes are written."""


class StoppedError(StudioError):
    """Nobody waits for this part any more."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a worker says of itself: version and digest of the program, what its backend gets wrong, what of the order.

    `trouble` is what keeps it from the order, "" for nothing; `identity` a digest of what the order is to it.
    """

    host: str
    version: str
    program: str
    backend: str
    self_test: str
    identity: str = ""
    trouble: str = ""


def examine(order: Order, known: Any = None, *, tested: bool = False) -> Seen:
    """What this process is, and what it sees of an order, or of `known`, which it has opened for it.

    `tested`: its backend computes right. The worst that can happen is told, not raised.
    """
    try:
        backend = choose(order.machine.backend)
    except ValueError as error:
        return Seen(platform.node(), kernels.__version__, program_digest(), order.machine.backend, str(error))
    wrong = "" if tested else _wrong(order.machine.backend)
    seen = Seen(platform.node(), kernels.__version__, program_digest(), backend.title, wrong)
    try:
        there = opened(order) if known is None else known
    except StudioError as error:
        return replace(seen, trouble=f"{error}; {error.hint}" if error.hint else str(error))
    return replace(seen, identity=sha256(repr(order.identity(there)).encode("utf-8", "surrogatepass")).hexdigest())


@lru_cache
def _wrong(backend: str) -> str:
    """What a backend gets wrong, "" for nothing."""
    return self_test(choose(backend)) or ""


@lru_cache(1)
def program_digest() -> str:
    """A digest of the text of this program as far as it decides what bytes are written."""
    root, digest = Path(__file__).resolve().parents[3], sha256()
    for path in sorted(path for part in PARTS for path in (root / part).rglob("*") if path.suffix in _TEXT):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


_TEXT = (".py", ".cpp", ".h")


def do(order: Order, task: Task, index: int, topic: str) -> Any:
    """Do a part of a run. Raises StudioError."""
    with _explained():
        told = _Told(topic, index)
        there = opened(order)
        with start(order.machine, order.model(there)) as engine:
            return told.follow(task.steps(engine, there))


@contextmanager
def _explained() -> Iterator[None]:
    """Errors go over the wire: places as text, and on which machine."""
    try:
        yield
    except StudioError as error:
        error.file = str(error.file) if error.file is not None else None
        error.what = f"{error.what} (on {platform.node()})"
        raise


def dask_teardown(_worker: Any) -> None:
    """Called by Dask when a worker of this machine is to end: a silent store does not keep it."""
    abandon_all()


class _Told:
    """Tells the coordinator that a part is begun, and how far it is, and notices when it does not want it any more."""

    def __init__(self, topic: str, index: int) -> None:
        from distributed import get_worker

        self._worker, self._topic, self._index = get_worker(), topic, index
        self._key = self._worker.get_current_task()
        self._attempt = attempt()
        self._tell(done=0, layer="")

    def follow(self, steps: Generator[Event, None, Any]) -> Any:
        """What the steps return; how far they are is told every `BEAT`, warnings at once."""
        found: list[Any] = []
        for event in kept(steps, found):
            match event:
                case Progress(_, done, layer) if time.monotonic() - self._last > BEAT:
                    self._check()
                    self._tell(done=done, layer=layer)
                case Warned(message):
                    self._tell(warning=message)
        return found[0]

    def _check(self) -> None:
        task = self._worker.state.tasks.get(self._key)
        if task is None or task.state == "cancelled":
            raise StoppedError("nobody waits for it any more")

    def _tell(self, **message: Any) -> None:
        self._last = time.monotonic()
        head = {"index": self._index, "attempt": self._attempt, "worker": self._worker.address}
        self._worker.log_event(self._topic, {**head, **message})


def attempt() -> str:
    """A name of what this process begins now: host, process, and what no other attempt has."""
    return f"{platform.node()}:{os.getpid()}:{uuid4().hex[:8]}"


def kept(steps: Generator[Event, None, Any], found: list[Any]) -> Iterator[Event]:
    """The events of steps; what they return is added to `found`."""
    found.append((yield from steps))
