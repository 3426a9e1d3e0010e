"""Streaming: an export larger than the disk. One shard of the source and one of the export lie here at a time.

What a shard needs of the source is fetched once, kept until the shard is verified, and then forgotten; on a store the
shard itself is put and forgotten, too. Which shards are finished is known from their records, as ever.
"""

import shutil
from collections.abc import Sequence

from studio.core.counting import amount_text
from studio.core.errors import ExportError, PlanError
from studio.core.events import Occupies
from studio.core.exporting.export import Export
from studio.core.exporting.scratch_space import left_nbytes
from studio.core.exporting.shards import ShardPlan
from studio.core.exporting.stored_folder import SCRATCH, scratch_place
from studio.core.exporting.writing import writing
from studio.core.model import Model
from studio.core.stores.spool import BLOCK
from studio.core.stores.store_path import StorePath

_LARGEST_PASS = 256 << 20
"""Bytes that are held of a source while all of it is read once."""


def stream_source(model: Model, shard_nbytes: int) -> Model:
    """The model, of which little is held from now on, where it lies behind a URL."""
    if isinstance(model.path, StorePath):
        model.path.folder.stream(min(_LARGEST_PASS, max(shard_nbytes // 2, 16 * BLOCK)))
    return model


def stream(job: Export, workers: int = 1) -> Occupies:
    """Hold one shard of its source at a time, in each of so many workers here; tells the disk that this takes.

    Raises PlanError where source and target lie on this machine, ExportError when the disk is too small.
    """
    source, stored = isinstance(job.model.path, StorePath), isinstance(job.target, StorePath)
    if not (source or stored):
        raise PlanError("source and target lie on this machine: there is nothing to stream", hint="leave --stream out")
    fetched = max(map(fetched_nbytes, job.shards)) if source else 0
    if isinstance(job.model.path, StorePath):
        job.model.path.folder.stream(fetched)
    nbytes = workers * (fetched + (scratch_nbytes(job) if stored else 0))
    check_scratch(nbytes)
    return Occupies(scratch_place(), nbytes)


def fetched_nbytes(shard: ShardPlan) -> int:
    """Bytes that are fetched for a shard: all that its layers read, in whole blocks."""
    runs: list[tuple[str, int, int]] = []
    for file, start, stop in sorted(_places(shard)):
        if runs and runs[-1][0] == file and start - runs[-1][2] < BLOCK:
            runs[-1] = (file, runs[-1][1], max(stop, runs[-1][2]))
        else:
            runs.append((file, start, stop))
    beside = sum(choice.layer.nbytes - choice.layer.tensor.nbytes for choice in shard.choices)
    return beside + sum((-(-stop // BLOCK) - start // BLOCK) * BLOCK for _, start, stop in runs)


def _places(shard: ShardPlan) -> Sequence[tuple[str, int, int]]:
    tensors = ((choice.layer.stored.file, choice.layer.tensor) for choice in shard.choices)
    return [(str(file.path), tensor.start, tensor.start + tensor.nbytes) for file, tensor in tensors]


def scratch_nbytes(job: Export) -> int:
    """Bytes that lie here at once of an export that is put on a store: its largest shard, and what is no shard."""
    beside = job.nbytes - sum(shard.nbytes for shard in job.shards)
    return max(shard.nbytes for shard in job.shards) + beside + _RECORD * len(job.choices)


_RECORD = 4096
"""Bytes of the record of a layer, about."""


def check_scratch(nbytes: int) -> None:
    """Raise ExportError when the folder for temporary files has no room for `nbytes`; what killed runs left will go."""
    place = scratch_place()
    with writing(place):
        free = shutil.disk_usage(place).free + left_nbytes(place, SCRATCH)
    if free < nbytes:
        sizes = f"{amount_text(nbytes)} are needed, {amount_text(free)} are free"
        what = f"not enough disk space for a shard at a time: {sizes}"
        raise ExportError(what, file=place, hint="a smaller --shard-size needs less; TMPDIR names another folder")
