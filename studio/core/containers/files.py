"""Reading a stranger's files safely: regular files only, no waiting, no mapping, and noticing when they change."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from studio.core.errors import CheckpointError

_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class UnreadableError(CheckpointError):
    """A file is there and the system does not give its bytes; it may do so another time."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What tells that a file is still the same one: device, inode, size in bytes, modification time in ns."""

    device: int
    inode: int
    size: int
    mtime_ns: int


class SourceFile:
    """A regular file to read at any offset, from several threads at once.

    It is opened anew for every read: a checkpoint of any number of shards needs as many descriptors as threads read
    from it, and a file that was modified or replaced is noticed at once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._closed = False
        with _opened(path) as descriptor:
            self.fingerprint = _fingerprint(os.fstat(descriptor))

    @contextmanager
    def _same(self) -> Iterator[int]:
        """A descriptor of the file as it was first seen."""
        if self._closed:
            raise ValueError(f"[SourceFile] read after it was closed: {self.path}")
        with _opened(self.path, known=True) as descriptor:
            if _fingerprint(os.fstat(descriptor)) != self.fingerprint:
                raise self._changed()
            yield descriptor

    def _changed(self) -> CheckpointError:
        return CheckpointError("changed while it was in use", file=self.path, hint="run it again on a quiet folder")

    @property
    def size(self) -> int:
        """Size in bytes when it was first opened."""
        return self.fingerprint.size

    def read(self, offset: int, count: int) -> bytearray:
        """`count` bytes from `offset`; raises CheckpointError when the file ends before or was changed."""
        buffer = bytearray(count)
        self.read_into(memoryview(buffer), offset)
        return buffer

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` from `offset`; raises CheckpointError when the file ends before or was changed."""
        with self._same() as descriptor:
            done = 0
            while done < len(buffer):
                try:
                    got = os.preadv(descriptor, [buffer[done:]], offset + done)
                except OSError as error:
                    raise unreadable(error, self.path) from None
                if not got:
                    raise CheckpointError("truncated while it was read: it changed", file=self.path)
                done += got

    def read_ahead(self, offset: int, count: int) -> None:
        """Tell the system that these bytes are needed soon, where it can be told."""
        if hasattr(os, "posix_fadvise"):
            with self._same() as descriptor:
                os.posix_fadvise(descriptor, offset, count, os.POSIX_FADV_WILLNEED)

    def check_unchanged(self) -> None:
        """Raise CheckpointError when the file was modified or replaced since it was first opened."""
        with self._same():
            pass

    def close(self) -> None:
        """Read no more from it; it may be closed twice."""
        self._closed = True

    def __enter__(self) -> "SourceFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def _opened(path: Path, *, known: bool = False) -> Iterator[int]:
    """A descriptor of a regular file, opened without waiting; what is not `known` is looked at before."""
    try:
        if not known and not stat.S_ISREG(path.stat().st_mode):
            raise CheckpointError("not a regular file", file=path)
        descriptor = os.open(path, _OPEN_FLAGS)
    except OSError as error:
        raise unreadable(error, path) from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise CheckpointError("not a regular file", file=path)
        yield descriptor
    finally:
        with suppress(OSError):  # nothing was written, so nothing can be lost
            os.close(descriptor)


def _fingerprint(found: os.stat_result) -> Fingerprint:
    return Fingerprint(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def read_small(path: Path, limit: int) -> bytes:
    """The whole of a small regular file; raises CheckpointError when it is larger than `limit` bytes."""
    with SourceFile(path) as file:
        if file.size > limit:
            raise CheckpointError(f"too large: {file.size:,} bytes, at most {limit:,} are accepted", file=path)
        return bytes(file.read(0, file.size))


def unreadable(error: Exception, path: Path) -> CheckpointError:
    """What the system said of `path`, as an error of the checkpoint."""
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOENT:
        return CheckpointError("missing", file=path)
    if number in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
        return CheckpointError(f"not a regular file ({os.strerror(number)})", file=path)
    return UnreadableError(f"can not be read: {os.strerror(number) if number else error}", file=path)
