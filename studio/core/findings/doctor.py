"""doctor: examine a folder, whoever wrote it, whole or broken."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from studio.core.errors import CheckpointError
from studio.core.events import Event, Examined, FindingMade, Progress, Started
from studio.core.findings import (
    activations,
    completeness,
    coverage,
    decoded,
    digests,
    documents,
    forms,
    heads,
    inputs,
    methods,
    order,
    other_scales,
    packing,
    plain,
    readers,
    scales,
    schemes,
    source,
)
from studio.core.findings.finding import Observation, Reading, Seen
from studio.core.findings.folder import Folder, open_broken
from studio.core.findings.kinds import Observed
from studio.core.model import Model
from studio.core.opening.checkpoint import open_model
from studio.core.running.engine import Engine
from studio.core.running.spread import Part, PartDone, Spread, cut, in_order

Check = Callable[[Folder], Iterator[Observation]]

CHECKS: tuple[Check, ...] = (
    documents.opening,
    documents.shards,
    documents.twice,
    documents.documents,
    documents.dtype,
    documents.metadata,
    forms.parts,
    forms.lone,
    forms.lacking,
    forms.unread,
    packing.claimed,
    schemes.described,
    schemes.targets,
    schemes.agreeing,
    coverage.coverage,
    completeness.blocks,
    completeness.sizes,
    completeness.shapes,
    readers.undeclared,
    methods.methods,
    readers.heads,
    readers.groups,
    inputs.inputs,
    readers.mlx,
    inputs.usable,
    scales.usable,
    scales.fused,
    digests.listed,
    digests.readable,
    digests.manifest,
)
"""What needs headers, documents and tensor scales alone."""

READINGS: tuple[Callable[[Folder], Iterator[Reading]], ...] = (
    scales.readings,
    scales.alike,
    other_scales.readings,
    decoded.readings,
    plain.readings,
    heads.readings,
    order.readings,
    digests.readings,
)
"""What reads whole tensors and files."""


def doctor(
    path: Path,
    *,
    quick: bool = False,
    against: Model | None = None,
    spread: Spread | None = None,
    statistics: Path | None = None,
) -> Iterator[Event]:
    """Examine a folder or a file: `FindingMade` at the first place of every kind, at the end `Examined`.

    `quick` reads no codes and no block scales. `against` is the checkpoint that it was made from, to compare with.
    `spread`, if there is one, has opened the same, and reads.
    `statistics` were gathered on that, or without it on what is examined.

    Raises CheckpointError only when there is nothing at `path`, PlanError for statistics of another model.
    """
    folder = open_broken(path)
    try:
        yield from _Examining(folder, quick, against, spread, statistics).events()
    finally:
        folder.close()


@dataclass(frozen=True, slots=True)
class Patient:
    """A folder that is examined, and what is to be read of it, in order."""

    folder: Folder
    readings: tuple[Reading, ...]


def opened_to_examine(path: Path) -> Patient:
    """What tasks of `doctor` work on. Raises CheckpointError when there is nothing at `path`."""
    folder = open_broken(path)
    return Patient(folder, tuple(_readings(folder)))


def _readings(folder: Folder) -> Iterator[Reading]:
    yield from chain.from_iterable(readings(folder) for readings in READINGS)


def _seen(check: Iterator[Seen], where: str) -> Iterator[Seen]:
    """What a check sees; what it can not read is an observation, too."""
    try:
        yield from check
    except CheckpointError as error:
        yield Observation("shard-unreadable", where, str(error))


@dataclass(slots=True)
class _Examining:
    folder: Folder
    quick: bool
    against: Model | None
    spread: Spread | None
    statistics: Path | None
    observed: Observed = field(default_factory=Observed)
    done: int = 0

    def events(self) -> Iterator[Event]:
        yield Started("examine", sum(reading.nbytes for reading in self._readings()), 0)
        for check in CHECKS:
            yield from self._taken(check(self.folder))
        if self.against:
            yield from self._taken(source.compared(self.folder, self.against))
            yield from self._taken(documents.beside(self.folder, self.against))
        if self.statistics:
            yield from self._taken(self._inputs(self.statistics))
        yield from self._elsewhere(self.spread) if self.spread else self._here()
        yield Examined(self.observed.examination())

    def _inputs(self, path: Path) -> Iterator[Observation]:
        if self.against:
            yield from activations.inputs(path, self.against)
            return
        with open_model(self.folder.path) as model:
            yield from activations.inputs(path, model)

    def _readings(self) -> Iterator[Reading]:
        return iter(()) if self.quick else _readings(self.folder)

    def _here(self) -> Iterator[Event]:
        for reading in self._readings():
            yield from self._taken(reading.seen(), reading.name)

    def _elsewhere(self, spread: Spread) -> Iterator[Event]:
        """The same by `spread`, in the same order."""
        sizes = [(reading.name, reading.nbytes) for reading in self._readings()]
        ranges = cut([nbytes for _, nbytes in sizes], spread.size)
        parts = [Part(sizes[r.start][0], sum(nbytes for _, nbytes in sizes[r.start : r.stop]), Read(r)) for r in ranges]
        for event in in_order(spread.run("examine", parts)):
            if isinstance(event, PartDone):
                yield from self._taken(iter(event.found))
            else:
                yield event

    def _taken(self, seen: Iterator[Seen], where: str = "") -> Iterator[Event]:
        """Gather what a check sees."""
        for one in _seen(seen, where or self.folder.path.name):
            if isinstance(one, int):
                self.done += one
                yield Progress("examine", self.done, where)
            elif found := self.observed.add(one):
                yield FindingMade(found)


@dataclass(frozen=True, slots=True)
class Read:
    """Reads what has these indexes, and gives what is seen in it."""

    indexes: range

    def steps(self, _engine: Engine, opened: Patient) -> Generator[Event, None, list[Observation]]:
        """See `studio.core.running.spread.Task`."""
        done, observed = 0, []
        for reading in opened.readings[self.indexes.start : self.indexes.stop]:
            for one in _seen(reading.seen(), reading.name):
                if isinstance(one, int):
                    done += one
                    yield Progress("examine", done, reading.name)
                else:
                    observed.append(one)
        return observed
