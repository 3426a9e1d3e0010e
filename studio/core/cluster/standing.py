"""Standing: how far the parts of a run are, and what each worker does, from what workers tell."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from studio.core.events import Warned, WorkerRate, Working
from studio.core.names import printable
from studio.core.running.spread import Part

SPAN = 10.0
"""Seconds over which the rate of a worker is taken."""


@dataclass(slots=True)
class Open:
    """A part that is not done: how far it is, which attempt that is, of which worker, and which were lost."""

    done: int = 0
    attempt: str = ""
    lost: set[str] = field(default_factory=set)
    worker: str = ""


@dataclass(slots=True)
class _Worker:
    """A worker: its name for people, the part that it holds, its bytes, and how many these were at which moments."""

    name: str
    part: int | None = None
    done: int = 0
    heard: float = 0.0
    seen: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, nbytes: int, now: float) -> None:
        """It worked through so many bytes since it was heard of last."""
        if not self.seen:
            self.seen.append((now, 0))
        self.done += nbytes
        self.heard = now
        self.seen.append((now, self.done))

    def rate(self, now: float) -> float:
        """Bytes a second over the last `SPAN`, or since it began; what it does not tell any more does not count."""
        while len(self.seen) > 1 and self.seen[1][0] < now - SPAN:
            self.seen.popleft()
        (start, before) = self.seen[0]
        return (self.done - before) / max(now - start, 1.0)


class Standing:
    """Takes messages of workers; gives the sum of what is done, and what each worker does."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._workers: dict[str, _Worker] = {}
        self._finished = 0
        self.open = {index: Open() for index in range(len(parts))}

    @property
    def done(self) -> int:
        """Bytes of all parts that are worked through."""
        return self._finished + sum(one.done for one in self.open.values())

    def take(self, message: dict[str, Any]) -> Iterator[Warned]:
        """What a worker tells of a part; yields what someone should know of it."""
        one, index = self.open.get(message["index"]), message["index"]
        if one is None or message["attempt"] in one.lost:
            return
        if one.attempt and one.attempt != message["attempt"]:
            yield self._lost(index, one)
        one.attempt, one.worker = message["attempt"], message["worker"]
        self._credit(index, one, message.get("done", one.done))
        if warning := message.get("warning"):
            yield Warned(warning)

    def _lost(self, index: int, one: Open) -> Warned:
        one.lost.add(one.attempt)
        self._gone(one)
        one.done = 0
        return Warned(f"{printable(self._parts[index].name)} begins again: its worker {_name(one.attempt)} was lost")

    def _gone(self, one: Open) -> None:
        worker = self._workers.get(one.worker)
        if worker is not None and worker.name == _name(one.attempt):
            del self._workers[one.worker]

    def _credit(self, index: int, one: Open, done: int) -> None:
        """The worker that holds a part has come so far with it."""
        worker = self._workers.setdefault(one.worker, _Worker(_name(one.attempt)))
        if worker.name != _name(one.attempt):  # another process at the same address
            worker = self._workers[one.worker] = _Worker(_name(one.attempt))
        worker.part = index
        worker.add(max(done - one.done, 0), time.monotonic())
        one.done = done

    def finish(self, index: int) -> None:
        """A part is done."""
        one = self.open.pop(index)
        work = self._parts[index].work
        self._finished += work
        if one.worker in self._workers:
            worker = self._workers[one.worker]
            worker.add(max(work - one.done, 0), time.monotonic())
            worker.part = None if worker.part == index else worker.part

    def working(self, there: set[str]) -> Working:
        """What the workers do that are there, by name."""
        now = time.monotonic()
        rows = [self._row(worker, now) for address, worker in self._workers.items() if address in there]
        return Working(tuple(sorted(rows, key=lambda row: row.name)))

    def _row(self, worker: _Worker, now: float) -> WorkerRate:
        return WorkerRate(worker.name, self._held(worker), worker.done, worker.rate(now), now - worker.heard)

    def _held(self, worker: _Worker) -> str:
        return printable(self._parts[worker.part].name) if worker.part is not None else ""

    def heard(self, address: str) -> float:
        """When the worker at an address was heard of."""
        return self._workers[address].heard if address in self._workers else 0.0

    def name(self, address: str) -> str:
        """The worker at an address, and what it holds, for people."""
        if (worker := self._workers.get(address)) is None:
            return f"at {printable(address)}"
        return f"{worker.name}, which holds {self._held(worker)}," if worker.part is not None else worker.name


def _name(attempt: str) -> str:
    """A worker as people find it: host and process."""
    host, process, _ = attempt.rsplit(":", 2)
    return printable(f"{host}:{process}")
