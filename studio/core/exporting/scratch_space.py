"""Scratch space: folders for temporary files that are gone afterwards, after a kill with the next of their kind."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from studio.core.exporting.writing import writing


@contextmanager
def scratch_space(folder: Path, prefix: str, *, swept: bool = True) -> Iterator[Path]:
    """A new folder below `folder` that is gone afterwards; those that killed programs left go before, if `swept`."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if swept:
            sweep(folder, prefix)
        path, lock = _made(folder, prefix)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def sweep(folder: Path, prefix: str) -> None:
    """Remove the scratch folders of this user that no living program holds."""
    for path in folder.glob(prefix + "*"):
        with contextlib.suppress(OSError):
            _remove_unless_held(path)


def left_nbytes(folder: Path, prefix: str) -> int:
    """Bytes of disk that `sweep` gives back."""
    nbytes = 0
    for path in folder.glob(prefix + "*"):
        with contextlib.suppress(OSError), _held(path) as lock:
            if os.fstat(lock).st_uid == os.getuid():
                nbytes += sum(file.lstat().st_blocks * 512 for file in path.rglob("*"))
    return nbytes


def is_left(path: Path, inode: tuple[int, int]) -> bool | None:
    """True when the scratch folder (device, inode) at `path` is of a program that is gone, None when not there."""
    try:
        found = path.lstat()
        if (found.st_dev, found.st_ino) != inode:
            return None
        with _held(path):
            return True
    except BlockingIOError:
        return False
    except OSError:
        return None


def _made(folder: Path, prefix: str) -> tuple[Path, int]:
    """A new folder and its lock; one that another program swept before it was locked is made again."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), path.lstat()):
                    return path, lock
            os.close(lock)


def _remove_unless_held(path: Path) -> None:
    with _held(path) as lock:
        if os.fstat(lock).st_uid == os.getuid():
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _held(path: Path) -> Iterator[int]:
    """The lock of a folder that nobody holds; raises OSError when somebody does."""
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield lock
    finally:
        os.close(lock)
