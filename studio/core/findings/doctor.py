"""doctor: examine a folder, whoever wrote it, whole or broken."""

from collections.abc import Callable, Iterator
from pathlib import Path

from studio.core.errors import CheckpointError
from studio.core.events import Event, Examined, Progress, Started
from studio.core.findings import digests, documents, packing, readers, scales, source
from studio.core.findings.finding import Observation
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

WHOLE: tuple[Check, ...] = (digests.digests,)
"""What reads whole files."""


def doctor(path: Path, *, quick: bool = False, against: Model | None = None) -> Iterator[Event]:
    """Examine a folder or a file; the last event is `Examined`.

    `quick` reads no codes and no block scales. `against` is the checkpoint that it was made from, to compare with.

    Raises CheckpointError only when there is nothing at `path`.
    """
    folder = open_broken(path)
    try:
        observed = Observed()
        for check in CHECKS:
            _take(observed, check(folder), folder.path.name)
        modules = [module for module in folder.modules.values() if module.is_nvfp4]
        if against:
            _take(observed, source.compared(folder, against), folder.path.name)
        yield Started("examine", sum(module.codes.tensor.nbytes for module in modules), len(modules))
        done = 0
        for module in modules:
            _take(observed, scales.examine(module, quick=quick), module.name)
            done += module.codes.tensor.nbytes
            yield Progress("examine", done, module.name)
        for check in () if quick else WHOLE:
            _take(observed, check(folder), folder.path.name)
        yield Examined(observed.examination())
    finally:
        folder.close()


def _take(observed: Observed, seen: Iterator[Observation], where: str) -> None:
    """Gather what a check sees; what it can not read is a finding, too."""
    try:
        for one in seen:
            observed.add(one)
    except CheckpointError as error:
        observed.add(Observation("shard-unreadable", where, str(error)))
