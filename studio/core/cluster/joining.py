"""Joining: this process begins by itself, at once; workers of this machine join where what they save pays for them.

Processes that import the program and are compared take seconds. Until then the threads of this process, as many as all
workers may use together, do parts by the same path.
"""

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import islice
from threading import Thread
from typing import Any, Protocol

from studio.core.cluster import work
from studio.core.cluster.crew import TELL, Crew, crew, not_installed
from studio.core.cluster.order import ConversionOrder, Order, PlanOrder
from studio.core.cluster.standing import Standing
from studio.core.errors import BackendError
from studio.core.events import Phase, Progress, Warned, Working
from studio.core.jobs import Machine, start
from studio.core.running.engine import Engine
from studio.core.running.spread import Part, PartDone, Spread

STARTING = 2.0
"""Seconds that starting workers takes of the work of all processors."""

PAYS = 10.0
"""Workers are begun when what is left takes this many times as long: they never cost more than a tenth."""

TRIAL = 2.0
"""Seconds of work after which its rate tells how long the rest takes."""

Happened = Progress | Warned | Working | PartDone


class Workforce(Protocol):
    """Those that do the parts of jobs."""

    @property
    def size(self) -> int:
        """How many workers there are, or may be."""
        ...

    def spread(self, order: Order, known: Any = None) -> Spread:
        """See `Crew.spread`."""
        ...


@contextmanager
def workforce(address: str = "", workers: int = 0) -> Iterator[Workforce]:
    """The workers of a running scheduler at `address`, or up to so many processes on this machine, gone afterwards.

    Raises BackendError.
    """
    if address:
        with crew(address) as there:
            yield there
        return
    if missing := next((name for name in ("dask", "distributed") if find_spec(name) is None), ""):
        raise not_installed(missing)
    joining = Joining(workers)
    try:
        yield joining
    finally:
        joining.close()


class Joining:
    """Up to `size` workers of this machine, and this process until they are there."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._stack = ExitStack()
        self._starting: Thread | None = None
        self._there: Crew | None = None
        self._trouble: BaseException | None = None
        self._told = False

    def spread(self, order: Order, known: Any = None) -> Spread:
        """See `Crew.spread`; workers that hold a shard at a time begin at once, as this process would hold another."""
        opened = order.open() if known is None else known
        if isinstance(order, PlanOrder | ConversionOrder) and order.stream:
            self.begin()
        return _Joined(self, order, opened)

    def begin(self) -> None:
        """Begin to start workers, once."""
        if self._starting is None:
            self._starting = Thread(target=self._start, name="nvfp4-studio-crew")
            self._starting.start()

    def _start(self) -> None:
        try:
            self._there = self._stack.enter_context(crew(workers=self.size))
        except BaseException as error:
            self._trouble = error

    @property
    def begun(self) -> bool:
        """True once workers were begun."""
        return self._starting is not None

    def there(self, *, wait: bool = False) -> Crew | None:
        """The workers, None while they start, or where none were begun. Raises BackendError when they can not."""
        if self._starting is None or (self._starting.is_alive() and not wait):
            return None
        self._starting.join()
        if self._trouble:
            raise self._trouble
        return self._there

    def warned(self, error: BackendError) -> Iterator[Warned]:
        """Says, once, that this process goes on alone."""
        if not self._told:
            self._told = True
            yield Warned(f"{error.what}; this process goes on alone")

    def close(self) -> None:
        """End the workers."""
        if self._starting:
            self._starting.join()
        self._stack.close()


@dataclass(frozen=True, slots=True)
class _Joined:
    """An order, and what this process has opened of it."""

    joining: Joining
    order: Order
    known: Any

    @property
    def size(self) -> int:
        """See `Spread.size`."""
        return self.joining.size

    def run(self, phase: Phase, parts: Sequence[Part]) -> Iterator[Happened]:
        """See `Spread.run`."""
        return _Run(self, phase, parts).events()


class _Run:
    """The parts of one run: some are done by this process, and from when workers are there the rest is theirs."""

    def __init__(self, joined: _Joined, phase: Phase, parts: Sequence[Part]) -> None:
        self._joined, self._phase, self._parts = joined, phase, parts
        self._standing = Standing(parts)
        self._left = sorted(range(len(parts)), key=lambda index: -parts[index].work)
        self._given: list[int] = []
        self._theirs: Generator[Happened, None, None] | None = None
        self._began = self._told = time.monotonic()

    def events(self) -> Iterator[Happened]:
        """All parts done, the largest first."""
        try:
            if self._joined.joining.begun:
                yield from self._hand_over(wait=True)
            if self._left:
                order = self._joined.order
                machine = _together(order.machine, self._joined.size)
                with start(machine, order.model(self._joined.known)) as engine:
                    yield from self._mine(engine)
            yield from self._rest()
        finally:
            if self._theirs:
                self._theirs.close()

    def _mine(self, engine: Engine) -> Iterator[Happened]:
        """What this process does: part after part, until workers have what is left."""
        attempt = work.attempt()
        while self._left:
            index, found = self._left.pop(0), list[Any]()
            for event in work.kept(self._parts[index].task.steps(engine, self._joined.known), found):
                if isinstance(event, Progress):
                    here = {"index": index, "attempt": attempt, "worker": "", "done": event.done}
                    yield from self._standing.take(here)
                    yield Progress(self._phase, self._standing.done, event.layer)
                elif isinstance(event, Warned):
                    yield event
                yield from self._look()
            self._standing.finish(index)
            yield PartDone(index, found[0])
            yield Progress(self._phase, self._standing.done, "")

    def _look(self) -> Iterator[Happened]:
        """What this process does, told now and then; begins workers where they pay, and gives them what is left."""
        now, joining = time.monotonic(), self._joined.joining
        if now - self._told >= TELL:
            self._told = now
            yield self._standing.working({""})
        if self._theirs is None and self._left:
            if joining.begun:
                yield from self._hand_over()
            elif now - self._began >= TRIAL and self._left_seconds(now) > PAYS * STARTING:
                joining.begin()

    def _left_seconds(self, now: float) -> float:
        """How long this process would take for what nobody has begun."""
        done = max(self._standing.done, 1)
        return (now - self._began) / done * sum(self._parts[index].work for index in self._left)

    def _hand_over(self, *, wait: bool = False) -> Iterator[Happened]:
        """Give workers what is left, if they are there."""
        joining = self._joined.joining
        try:
            crew = joining.there(wait=wait)
        except BackendError as error:
            yield from joining.warned(error)
            return
        if crew is None:
            return
        self._given, self._left = self._left, []
        theirs = crew.spread(self._joined.order, self._joined.known)
        self._theirs = theirs.run(self._phase, [self._parts[index] for index in self._given])
        yield from self._mapped(islice(self._theirs, 1))

    def _rest(self) -> Iterator[Happened]:
        """What workers do, to the end."""
        yield from self._mapped(self._theirs or iter(()))

    def _mapped(self, events: Iterable[Happened]) -> Iterator[Happened]:
        """Events of what was given to workers, as they are of the whole run."""
        for event in events:
            match event:
                case PartDone(index, found):
                    yield PartDone(self._given[index], found)
                case Progress():
                    yield replace(event, done=self._standing.done + event.done)
                case _:
                    yield event


def _together(machine: Machine, workers: int) -> Machine:
    """What so many workers may use together, as far as there are processors; memory: what one of them may."""
    most = max(machine.workers, Machine().workers)
    return replace(machine, threads=min(machine.workers * workers, most))
