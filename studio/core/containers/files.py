"""Opening a stranger's files safely: regular files only, no waiting, no mapping, and noticing when they change."""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from studio.core.errors import CheckpointError

_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What tells that a file is still the same one: device, inode, size in bytes, modification time in ns."""

    device: int
    inode: int
    size: int
    mtime_ns: int


class SourceFile:
    """A regular file open for reading at any offset, from several threads at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise CheckpointError("not a regular file", file=path)
            self._descriptor = os.open(path, _OPEN_FLAGS)
        except OSError as error:
            raise _unreadable(error, path) from None
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            self.close()
            raise CheckpointError("not a regular file", file=path)
        self.fingerprint = self._fingerprint()

    def _fingerprint(self) -> Fingerprint:
        found = os.fstat(self._descriptor)
        return Fingerprint(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    @property
    def size(self) -> int:
        """Size in bytes when it was opened."""
        return self.fingerprint.size

    def read(self, offset: int, count: int) -> bytearray:
        """`count` bytes from `offset`; raises CheckpointError when the file ends before."""
        buffer = bytearray(count)
        self.read_into(memoryview(buffer), offset)
        return buffer

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` from `offset`; raises CheckpointError when the file ends before."""
        done = 0
        while done < len(buffer):
            try:
                got = os.preadv(self._descriptor, [buffer[done:]], offset + done)
            except OSError as error:
                raise _unreadable(error, self.path) from None
            if not got:
                raise CheckpointError("truncated while it was read: it changed", file=self.path)
            done += got

    def read_ahead(self, offset: int, count: int) -> None:
        """Tell the system that these bytes are needed soon, where it can be told."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor, offset, count, os.POSIX_FADV_WILLNEED)

    def check_unchanged(self) -> None:
        """Raise CheckpointError when the file was modified or replaced since it was opened."""
        try:
            there = self.path.stat()
        except OSError as error:
            raise _unreadable(error, self.path) from None
        now = Fingerprint(there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns)
        if not self.fingerprint == self._fingerprint() == now:
            raise CheckpointError("changed while it was in use", file=self.path, hint="run it again on a quiet folder")

    def close(self) -> None:
        """Close the file; it may be closed twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> "SourceFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_small(path: Path, limit: int) -> bytes:
    """The whole of a small regular file; raises CheckpointError when it is larger than `limit` bytes."""
    with SourceFile(path) as file:
        if file.size > limit:
            raise CheckpointError(f"too large: {file.size:,} bytes, at most {limit:,} are accepted", file=path)
        return bytes(file.read(0, file.size))


def _unreadable(error: OSError, path: Path) -> CheckpointError:
    if error.errno == errno.ENOENT:
        return CheckpointError("missing", file=path)
    if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
        return CheckpointError(f"not a regular file ({os.strerror(error.errno)})", file=path)
    reason = os.strerror(error.errno) if error.errno else str(error)
    return CheckpointError(f"can not be read: {reason}", file=path)
