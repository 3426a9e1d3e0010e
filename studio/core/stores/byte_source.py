"""ByteSource: what is below every reader of files, and what tells that it is still the same file."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What tells that a file is still the same one.

    Its size in bytes and its version: the modification time in ns on a disk, the tag that a store gave it. Device and
    inode on a disk.
    """

    size: int
    version: int | str
    device: int = 0
    inode: int = 0


class ByteSource(Protocol):
    """A file to read at any offset, from several threads at once."""

    @property
    def fingerprint(self) -> Fingerprint:
        """What it was when it was first seen."""
        ...

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` from `offset`; raises CheckpointError when the file ends before or was changed."""
        ...

    def read_ahead(self, offset: int, count: int) -> None:
        """These bytes are needed soon."""
        ...

    def check_unchanged(self) -> None:
        """Raise CheckpointError when the file was modified or replaced since it was first seen."""
        ...
