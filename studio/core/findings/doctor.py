"""doctor: examine a folder, whoever wrote it, whole or broken."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from studio.core.errors import CheckpointError
from studio.core.events import Event, Examined, FindingMade, Progress, Started
from studio.core.findings import digests, documents, packing, readers, scales, source
from studio.core.findings.finding import Observation, Seen
from studio.core.findings.folder import Folder, open_broken
from studio.core.findings.kinds import Observed
from studio.core.model import Model

Check = Callable[[Folder], Iterator[Observation]]

CHECKS: tuple[Check, ...] = (
    documents.opening,
    documents.shards,
    documents.twice,
    documents.documents,
    documents.dtype,
    packing.parts,
    packing.claimed,
    readers.undeclared,
    readers.heads,
    readers.groups,
    readers.inputs,
    readers.mlx,
    scales.fused,
    digests.listed,
    digests.manifest,
)
"""What needs headers, documents and tensor scales alone."""


def doctor(path: Path, *, quick: bool = False, against: Model | None = None) -> Iterator[Event]:
    """Examine a folder or a file: `FindingMade` at the first place of every kind, at the end `Examined`.

    `quick` reads no codes and no block scales. `against` is the checkpoint that it was made from, to compare with.

    Raises CheckpointError only when there is nothing at `path`.
    """
    folder = open_broken(path)
    try:
        yield from _Examining(folder, quick, against).events()
    finally:
        folder.close()


@dataclass(slots=True)
class _Examining:
    folder: Folder
    quick: bool
    against: Model | None
    observed: Observed = field(default_factory=Observed)
    done: int = 0

    def events(self) -> Iterator[Event]:
        modules = [module for module in self.folder.modules.values() if module.is_nvfp4]
        codes = sum(module.codes.tensor.nbytes for module in modules)
        yield Started("examine", 0 if self.quick else codes + digests.work(self.folder), len(modules))
        for check in CHECKS:
            yield from self._taken(check(self.folder))
        if self.against:
            yield from self._taken(source.compared(self.folder, self.against))
        for module in modules:
            yield from self._taken(scales.examine(module, quick=self.quick), module.name)
        if not self.quick:
            yield from self._taken(digests.digests(self.folder))
        yield Examined(self.observed.examination())

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
