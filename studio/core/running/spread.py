"""Spread: how a job hands parts of its work to other processes, of which it knows nothing, and hears of them."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from studio.core.events import Event, Phase, Progress, Warned, Working
from studio.core.planning.plan import Choice
from studio.core.running.engine import Engine
from studio.core.running.pipeline import scopes, work

PARTS_PER_WORKER = 8
"""Parts that a job is cut into for each worker, so that none of them waits long for the last."""

SMALLEST_PART = 64 << 20
"""Bytes of work that are worth handing over."""


class Task(Protocol):
    """What is to be done in another process: small, and pickled."""

    def steps(self, engine: Engine, opened: Any) -> Generator[Event, None, Any]:
        """Do it to what the process has opened: yields events, progress counted from zero, returns what came of it."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a job: its name for people, its work in bytes, and what does it."""

    name: str
    work: int
    task: Task


@dataclass(frozen=True, slots=True)
class PartDone:
    """The part of this index is done; `found` is what its task returned."""

    index: int
    found: Any


class Spread(Protocol):
    """Other processes that have opened what a job works on."""

    @property
    def size(self) -> int:
        """How many there are now."""
        ...

    def run(self, phase: Phase, parts: Sequence[Part]) -> Iterator[Progress | Warned | Working | PartDone]:
        """Have parts done, the largest first: progress over all of them, and each when it is done, in any order."""
        ...


def in_order(
    events: Iterator[Progress | Warned | Working | PartDone],
) -> Iterator[Progress | Warned | Working | PartDone]:
    """The events, with what is done in the order of the parts: what comes early waits."""
    waiting: dict[int, PartDone] = {}
    following = 0
    for event in events:
        if not isinstance(event, PartDone):
            yield event
            continue
        waiting[event.index] = event
        while following in waiting:
            yield waiting.pop(following)
            following += 1


def cut(works: Sequence[int], workers: int) -> Iterator[range]:
    """Ranges of what takes `works` bytes, in order, so that there is work for all."""
    room = max(sum(works) // (max(workers, 1) * PARTS_PER_WORKER), SMALLEST_PART)
    start, filled = 0, 0
    for index, nbytes in enumerate(works):
        if index > start and filled + nbytes > room:
            yield range(start, index)
            start, filled = index, 0
        filled += nbytes
    if works:
        yield range(start, len(works))


def layer_parts(choices: Sequence[Choice], workers: int, task: Callable[[tuple[str, ...]], Task]) -> list[Part]:
    """Layers in order, cut so that there is work for all; those that share a tensor scale stay together.

    `task` makes what works on layers of these names.
    """
    todo = scopes(choices)
    ranges = cut(list(map(work, todo)), workers)
    return [_layer_part([c for scope in todo[r.start : r.stop] for c in scope], task) for r in ranges]


def _layer_part(choices: Sequence[Choice], task: Callable[[tuple[str, ...]], Task]) -> Part:
    names = tuple(choice.layer.name for choice in choices)
    return Part(f"the part from {names[0]} on", work(choices), task(names))
