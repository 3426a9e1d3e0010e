"""Reading a stranger's files safely: regular files only, no waiting, no mapping, and noticing when they change."""

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from studio.core.errors import CheckpointError, UnreadableError
from studio.core.stores.byte_source import ByteSource, Fingerprint
from studio.core.stores.store_path import StorePath

LARGEST_TEXT = 64 << 20
"""Bytes of a text that models are run on."""

_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class SourceFile:
    """A regular file, or one behind a URL, to read at any offset, from several threads at once.

    It is opened anew for every read: a checkpoint of any number of shards needs as many descriptors as threads read
    from it, and a file that was modified or replaced is noticed at once. For many small reads it can be `held`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._closed = False
        self._bytes: ByteSource = path.byte_source() if isinstance(path, StorePath) else _LocalBytes(path)

    @property
    def fingerprint(self) -> Fingerprint:
        """What it was when it was first opened."""
        return self._bytes.fingerprint

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
        self._open().read_into(buffer, offset)

    def read_ahead(self, offset: int, count: int) -> None:
        """Tell that these bytes are needed soon, where it can be told."""
        self._open().read_ahead(offset, count)

    def held(self) -> AbstractContextManager[None]:
        """Reads of this thread within the block open it once. Raises CheckpointError when it was changed meanwhile."""
        found = self._open()
        return found.held() if isinstance(found, _LocalBytes) else nullcontext()

    def check_unchanged(self) -> None:
        """Raise CheckpointError when the file was modified or replaced since it was first opened."""
        self._open().check_unchanged()

    def _open(self) -> ByteSource:
        if self._closed:
            raise ValueError(f"[SourceFile] read after it was closed: {self.path}")
        return self._bytes

    def close(self) -> None:
        """Read no more from it; it may be closed twice."""
        self._closed = True

    def __enter__(self) -> "SourceFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _LocalBytes:
    """A file on this machine, as a ByteSource."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._here = threading.local()
        self.fingerprint = _first_seen(path)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        if (held := self._held) is not None:
            self._fill(buffer, held, offset)
            return
        with self._opened() as descriptor:
            self._fill(buffer, descriptor, offset)

    def _fill(self, buffer: memoryview, descriptor: int, offset: int) -> None:
        while buffer:
            try:
                got = os.preadv(descriptor, [buffer], offset)
            except OSError as error:
                raise unreadable(error, self._path) from None
            if not got:
                raise CheckpointError("truncated while it was read: it changed", file=self._path)
            buffer, offset = buffer[got:], offset + got

    def read_ahead(self, offset: int, count: int) -> None:
        if hasattr(os, "posix_fadvise"):
            with self._opened() as descriptor:
                os.posix_fadvise(descriptor, offset, count, os.POSIX_FADV_WILLNEED)

    def check_unchanged(self) -> None:
        with self._opened():
            pass

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._opened() as descriptor:
            before = self._held
            self._here.descriptor = descriptor
            try:
                yield
            finally:
                self._here.descriptor = before
            self._check(descriptor)

    @property
    def _held(self) -> int | None:
        """The descriptor that reads of this thread use, None where each opens the file."""
        found: int | None = getattr(self._here, "descriptor", None)
        return found

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """A descriptor of the file as it was first seen."""
        if (held := self._held) is not None:
            yield held
            return
        descriptor = _open(self._path)
        try:
            self._check(descriptor)
            yield descriptor
        finally:
            _close(descriptor)

    def _check(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        _check_regular(found, self._path)
        if _fingerprint(found) != self.fingerprint:
            raise CheckpointError("changed while it was in use", file=self._path, hint="run it again on a quiet folder")


def is_there(path: Path) -> bool:
    """True for anything of this name, a broken link too."""
    return path.exists() if isinstance(path, StorePath) else os.path.lexists(path)


def names_in(folder: Path) -> list[str]:
    """The names of everything in a folder, in no order."""
    if isinstance(folder, StorePath):
        return [path.name for path in folder.iterdir()]
    with os.scandir(folder) as found:
        return [entry.name for entry in found]


def _first_seen(path: Path) -> Fingerprint:
    """The fingerprint of a file that nothing is known of; it is looked at before it is opened."""
    try:
        before = path.stat()
    except OSError as error:
        raise unreadable(error, path) from None
    _check_regular(before, path)
    descriptor = _open(path)
    try:
        found = os.fstat(descriptor)
        _check_regular(found, path)
    finally:
        _close(descriptor)
    return _fingerprint(found)


def _open(path: Path) -> int:
    """A descriptor, without waiting."""
    try:
        return os.open(path, _OPEN_FLAGS)
    except OSError as error:
        raise unreadable(error, path) from None


def _close(descriptor: int) -> None:
    with suppress(OSError):  # nothing was written, so nothing can be lost
        os.close(descriptor)


def _check_regular(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError("not a regular file", file=path)


def _fingerprint(found: os.stat_result) -> Fingerprint:
    return Fingerprint(found.st_size, found.st_mtime_ns, found.st_dev, found.st_ino)


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
