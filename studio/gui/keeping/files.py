"""Files that survive a crash: written whole aside and renamed, or grown line by line; each flushed to the disk."""

import os
from contextlib import suppress
from pathlib import Path

_FLAGS = os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_MODE = 0o600


def write_whole(path: Path, data: bytes) -> None:
    """Put `data` in the place of a file at once; the old one stays whole until then. Raises OSError."""
    aside = path.with_name(f"{path.name}.part")
    try:
        _fill(aside, data)
        aside.replace(path)
    except OSError:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _fill(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | _FLAGS, _MODE)
    try:
        _write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append(path: Path, data: bytes) -> None:
    """Add whole lines to a file; after an OSError it is as long as before. A line that a crash cut short is ended."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | _FLAGS, _MODE)
    try:
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        try:
            _write(descriptor, b"\n" + data if torn else data)
            os.fsync(descriptor)
        except OSError:
            with suppress(OSError):
                os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _flush_folder(folder: Path) -> None:
    """Make a rename last; where folders can not be flushed, the system sees to it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
