"""doctor: examine a folder, whoever wrote it, whole or broken."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from studio.core.errors import CheckpointError
from studio.core.events import Event, Examined, FindingMade, Progress, Started
from studio.core.findings import (
    activations,
    coverage,
    digests,
    documents,
    heads,
    order,
    other_scales,
    packing,
    plain,
    readers,
    scales,
    source,
)
from studio.core.findings.finding import Observation, Reading, Seen
from studio.core.findings.folder import Folder, open_broken
from studio.core.findings.kinds import Observed
from studio.core.model import Model
from studio.core.opening.checkpoint import open_model

Check = Callable[[Folder], Iterator[Observation]]

CHECKS: tuple[Check, ...] = (
    documents.opening,
    documents.shards,
    documents.twice,
    documents.documents,
    documents.dtype,
    documents.metadata,
    packing.parts,
    packing.claimed,
    coverage.coverage,
    readers.undeclared,
    readers.heads,
    readers.groups,
    readers.inputs,
    readers.mlx,
    scales.usable,
    scales.fused,
    digests.listed,
    digests.readable,
    digests.manifest,
)
"""What needs headers, documents and tensor scales alone."""

READINGS: tuple[Callable[[Folder], Iterator[Reading]], ...] = (
    scales.readings,
    other_scales.readings,
    plain.readings,
    heads.readings,
    order.readings,
    digests.readings,
)
"""What reads whole tensors and files."""


def doctor(
    path: Path, *, quick: bool = False, against: Model | None = None, statistics: Path | None = None
) -> Iterator[Event]:
    """Examine a folder or a file: `FindingMade` at the first place of every kind, at the end `Examined`.

    `quick` reads no codes and no block scales. `against` is the checkpoint that it was made from, to compare with.
    `statistics` were gathered on that, or without it on what is examined.

    Raises CheckpointError only when there is nothing at `path`, PlanError for statistics of another model.
    """
    folder = open_broken(path)
    try:
        yield from _Examining(folder, quick, against, statistics).events()
    finally:
        folder.close()


@dataclass(slots=True)
class _Examining:
    folder: Folder
    quick: bool
    against: Model | None
    statistics: Path | None
    observed: Observed = field(default_factory=Observed)
    done: int = 0

    def events(self) -> Iterator[Event]:
        yield Started("examine", sum(reading.nbytes for reading in self._readings()), 0)
        for check in CHECKS:
            yield from self._taken(check(self.folder))
        if self.against:
            yield from self._taken(source.compared(self.folder, self.against))
        if self.statistics:
            yield from self._taken(self._inputs(self.statistics))
        for reading in self._readings():
            yield from self._taken(reading.seen(), reading.name)
        yield Examined(self.observed.examination())

    def _inputs(self, path: Path) -> Iterator[Observation]:
        if self.against:
            yield from activations.inputs(path, self.against)
            return
        with open_model(self.folder.path) as model:
            yield from activations.inputs(path, model)

    def _readings(self) -> Iterator[Reading]:
        if not self.quick:
            yield from chain.from_iterable(readings(self.folder) for readings in READINGS)

    def _taken(self, seen: Iterator[Seen], where: str = "") -> Iterator[Event]:
        """Gather what a check sees; what it can not read is a finding, too."""
        try:
            for one in seen:
                yield from self._told(one, where)
        except CheckpointError as error:
            found = Observation("shard-unreadable", where or self.folder.path.name, str(error))
            yield from self._told(found, where)

    def _told(self, seen: Seen, where: str) -> Iterator[Event]:
        if isinstance(seen, int):
            self.done += seen
            yield Progress("examine", self.done, where)
        elif found := self.observed.add(seen):
            yield FindingMade(found)
