"""Writing files durably, and what the system says when it can not."""

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from studio.core.counting import amount_text
from studio.core.errors import ExportError
from studio.core.exporting.write_back import start_writing_back

AGAIN = "run the same command again; finished shards are kept"
_RESUME = f"free some disk space and {AGAIN}"
_WRITE_BACK_NBYTES = 32 << 20
"""Bytes after which the disk gets its share: a flush at the end would wait for all of them."""


_PIECE_NBYTES = 64 << 10
"""Bytes of a chunk that is worth a call to the system."""


class NoSpaceError(ExportError):
    """The disk is full."""

    def needing(self, nbytes: int) -> "NoSpaceError":
        """The same error, saying how much the whole export needs."""
        return NoSpaceError(f"{self.what}; the export needs {amount_text(nbytes)}", file=self.file, hint=self.hint)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says of a failed write into an ExportError."""
    try:
        yield
    except RuntimeError as error:
        raise ExportError(f"can not be written: {error}", file=path) from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what = "no disk space left" + (f": {reason}" if error.errno == errno.EDQUOT else "")
            raise NoSpaceError(what, file=path, hint=_RESUME) from None
        raise ExportError(f"can not be written: {reason}", file=path) from None


def check_writable(folder: Path, names: Iterable[str]) -> None:
    """Raise ExportError when files of these names can not be written into `folder`; leaves everything as it was."""
    with writing(folder):
        made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for name in names:
                _check_file(folder / name)
        finally:
            for parent in made:
                with contextlib.suppress(OSError):
                    parent.rmdir()


def _check_file(path: Path) -> None:
    there = os.path.lexists(path)
    if there and not path.is_file():
        raise ExportError("exists and is not a regular file", file=path)
    with writing(path), path.open("ab"):
        pass
    if not there:
        path.unlink()


class StagedFile:
    """A file written at any offset, from any thread, new unless it is to `keep` what it holds; a context manager."""

    def __init__(self, path: Path, nbytes: int = 0, *, keep: bool = False) -> None:
        self.path = path
        empty = 0 if keep else os.O_TRUNC
        with writing(path):
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | empty | os.O_CLOEXEC, 0o666)
        try:
            with writing(path):
                os.ftruncate(self._descriptor, nbytes)
        except ExportError:
            os.close(self._descriptor)
            raise
        self._waiting = 0

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of `data` at `offset`."""
        self._waiting += len(data)
        with writing(self.path):
            while data:
                count = os.pwrite(self._descriptor, data, offset)
                data, offset = data[count:], offset + count
        if self._waiting > _WRITE_BACK_NBYTES:
            self._waiting = 0
            start_writing_back(self._descriptor)

    def flush(self) -> None:
        """Flush the file to the disk; a failure ends the run."""
        with writing(self.path):
            os.fsync(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with writing(self.path):
            os.close(self._descriptor)


def pieces_of(chunks: Iterable[bytes | bytearray]) -> Iterator[bytes | bytearray]:
    """The same bytes, short chunks joined: a call to the system for each takes longer than writing them."""
    joined = bytearray()
    for chunk in chunks:
        if len(chunk) >= _PIECE_NBYTES and not joined:
            yield chunk
            continue
        joined += chunk
        if len(joined) >= _PIECE_NBYTES:
            yield joined
            joined = bytearray()
    if joined:
        yield joined


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
