"""Checks of digests: whether files are those that SHA256SUMS and the manifest of an export list."""

import hashlib
from collections.abc import Iterator
from functools import partial

from studio.core.containers.files import SourceFile, read_small
from studio.core.containers.links import check_link
from studio.core.errors import CheckpointError
from studio.core.exporting.contents import MANIFEST, SUMS, read_sums
from studio.core.exporting.gguf_digest import ZEROS, stated
from studio.core.exporting.manifest import Manifest
from studio.core.exporting.readback import hashing
from studio.core.findings.finding import Observation, Reading, Seen
from studio.core.findings.folder import Folder

_LARGEST = 64 << 20


def listed(folder: Folder) -> Iterator[Observation]:
    """Files that SHA256SUMS lists and that are not here; reads none of them."""
    for name in _sums(folder, []):
        if not (folder.place / name).exists():
            yield Observation("digest-missing", name)


def readable(folder: Folder) -> Iterator[Observation]:
    """A list of digests that can not be read."""
    faults: list[Observation] = []
    _sums(folder, faults)
    yield from faults


def readings(folder: Folder) -> Iterator[Reading]:
    """The files that SHA256SUMS lists, and GGUF files of ours, to be compared with what is said of them."""
    for name, wanted in _sums(folder, []).items():
        path = folder.place / name
        if path.is_file():
            yield Reading(name, path.stat().st_size, partial(_listed, folder, name, wanted))
    for file in folder.model.files if folder.model else ():
        if wanted := stated(file):
            yield Reading(file.path.name, file.size, partial(_compared, file, file.path.name, wanted, ZEROS))


def _listed(folder: Folder, name: str, wanted: str) -> Iterator[Seen]:
    check_link(folder.place / name, folder.place)
    with SourceFile(folder.place / name) as file:
        yield from _compared(file, name, wanted, None)


def _compared(file: SourceFile, name: str, wanted: str, instead: tuple[int, bytes] | None) -> Iterator[Seen]:
    digest, done = hashlib.sha256(), 0
    for read in hashing(file, digest, instead):
        yield read - done
        done = read
    if digest.hexdigest() != wanted:
        evidence = f"SHA-256 {digest.hexdigest()[:16]}..., {'stated' if instead else 'listed'} as {wanted[:16]}..."
        yield Observation("digest", name, evidence)


def manifest(folder: Folder) -> Iterator[Observation]:
    """Tensors that the manifest of an export of ours places elsewhere, in another dtype or shape, or not at all."""
    if not folder.path.is_dir() or not (folder.place / MANIFEST).is_file():
        return
    try:
        for entry in Manifest(folder.place).entries():
            parts = [*entry.kept, *(part for matrix in entry.matrices for part in matrix.parts)]
            for part in parts:
                item = folder.stored.get(part.name)
                told = item and (item.file.path.name, item.tensor.dtype, item.tensor.shape)
                if told != (entry.shard, part.dtype, part.shape):
                    here = f"{told[1]} {list(told[2])} in {told[0]}" if told else "not here"
                    yield Observation(
                        "manifest", part.name, f"{part.dtype} {list(part.shape)} in {entry.shard}: {here}"
                    )
    except CheckpointError as error:
        yield Observation("manifest", MANIFEST, str(error))


def _sums(folder: Folder, faults: list[Observation]) -> dict[str, str]:
    path = folder.place / SUMS
    if not folder.path.is_dir() or not path.is_file():
        return {}
    try:
        return read_sums(path, read_small(path, _LARGEST))
    except CheckpointError as error:
        faults.append(Observation("digests-unreadable", SUMS, error.what))
        return {}
