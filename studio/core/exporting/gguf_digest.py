"""The SHA-256 that a GGUF file of ours states of itself, as the first of its pairs, taken with zeros in its place."""

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from studio.core.containers.files import SourceFile
from studio.core.errors import CheckpointError
from studio.core.events import Progress
from studio.core.exporting.readback import hashing
from studio.core.exporting.writing import writing

KEY, BLANK = "nvfp4_studio.sha256", "0" * 64
_BEGIN, _TEXT = 24, 8
"""Where pairs begin in every GGUF file, and the number of the type of texts."""

_MARK = struct.pack("<Q", len(KEY)) + KEY.encode() + struct.pack("<IQ", _TEXT, len(BLANK))
_PLACE = _BEGIN + len(_MARK)
"""Where the digest lies."""

ZEROS = _PLACE, BLANK.encode()
"""What counts in its place, as `hashing` takes it."""


def stated(file: SourceFile) -> str:
    """The digest that a file states of itself, "" where it states none; one damaged byte does not hide it."""
    if file.size < _PLACE + len(BLANK):
        return ""
    mark = file.read(_BEGIN, len(_MARK))
    if sum(a != b for a, b in zip(mark, _MARK, strict=True)) > 1:
        return ""
    return file.read(_PLACE, len(BLANK)).decode("ascii", "replace")


def state(path: Path, done: int) -> Iterator[Progress]:
    """Write the digest of a finished file into it; progress counts on from `done`. Raises ExportError."""
    digest = hashlib.sha256()
    with SourceFile(path) as file:
        if not stated(file):
            raise CheckpointError("has no place for its digest: a fault of this program", file=path)
        for read in hashing(file, digest, ZEROS):
            yield Progress("verify", done + read, "")
    with writing(path), path.open("r+b") as changed:
        changed.seek(_PLACE)
        changed.write(digest.hexdigest().encode())
        changed.flush()
        os.fsync(changed.fileno())
