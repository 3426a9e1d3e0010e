"""Staging: a folder beside the target where an export grows; the target appears whole, by one rename.

Every file is written aside, flushed to the disk and renamed; the journal notes what is finished, so that the same
command continues after a kill. A lock keeps a second export to the same place away.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from studio.core.containers.strict_json import read_object
from studio.core.errors import CheckpointError, ExportError
from studio.core.names import printable

SUFFIX = ".partial"
JOURNAL = "journal.json"
MANIFEST = "nvfp4_studio.json"
_TEMPORARY = ".tmp"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says of a failed write into an ExportError."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "free some disk space and run the same command again; finished shards are kept"
            raise ExportError(f"no disk space left: {reason}", file=path, hint=hint) from None
        raise ExportError(f"can not be written: {reason}", file=path) from None


def check_target(target: Path, source: Path, *, overwrite: bool) -> None:
    """Raise ExportError when `target` can not become the export of `source`."""
    with writing(target):
        there, home = target.resolve(), source.resolve()
        if os.path.lexists(target) and not target.is_dir():
            raise ExportError("exists and is not a folder", file=target)
        folder = home if home.is_dir() else home.parent
        if there == folder or home == there or (home.is_dir() and there.is_relative_to(folder)):
            what = "the same folder as the source, or inside it" if there != folder else "the same folder as the source"
            raise ExportError(what, file=target, hint="choose another target")
        if home.is_relative_to(there):
            raise ExportError("the same folder as the source, or one that holds it", file=target)
        if target.is_symlink():
            raise ExportError("is a link; an export replaces folders, not links", file=target)
        if target.is_dir() and any(target.iterdir()) and not overwrite:
            raise ExportError("exists and is not empty", file=target, hint="choose another target, or --overwrite")


def check_space(target: Path, needed: int) -> None:
    """Raise ExportError when the disk of `target` has less than `needed` bytes free."""
    parent = next(folder for folder in target.absolute().parents if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        what = f"not enough disk space: {needed:,} bytes are needed, {free:,} are free"
        raise ExportError(what, file=target, hint="free some space or choose another disk")


class Staging:
    """The folder `<target>.partial`, locked while this object lives."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(target.name + SUFFIX)
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(exist_ok=True)
            self._lock = os.open(self.path, os.O_RDONLY)
        if not self._is_mine():
            os.close(self._lock)
            raise ExportError("another export to this target is running", file=target)
        self.journal: dict[str, Any] = {}

    def _is_mine(self) -> bool:
        """True when the lock is ours and still that of the folder at this path."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.path.samestat(os.fstat(self._lock), self.path.stat())
        except OSError:
            return False

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._lock)

    def begin(self, identity: dict[str, Any], *, restart: bool) -> None:
        """Take over what an earlier run of the same identity finished, or start empty.

        Raises ExportError when the folder holds a run of another identity, naming what differs.
        """
        old = self._read_journal()
        if old is None or restart:
            self.clear()
            self.journal = {"identity": identity, "shards": {}}
            self.save_journal()
            return
        changed = [key for key in identity if old.get("identity", {}).get(key) != identity[key]]
        if changed:
            what = f"holds a stopped export with another {' and another '.join(changed)}"
            raise ExportError(what, file=self.path, hint="--restart discards it; the source or the plan changed since")
        self.journal = old

    def _read_journal(self) -> dict[str, Any] | None:
        if not (self.path / JOURNAL).exists():
            names = {entry.name for entry in self.path.iterdir()}
            strangers = names and MANIFEST not in names and names != {JOURNAL + _TEMPORARY}
            if strangers:
                what = f"exists and was not made by this program: it holds {printable(min(names))}"
                raise ExportError(what, file=self.path, hint="move it away or choose another target")
            return None
        try:
            journal = read_object(self.path / JOURNAL)
        except CheckpointError:
            return None
        return journal if isinstance(journal.get("shards"), dict) else None

    def clear(self) -> None:
        """Remove everything in the folder."""
        with writing(self.path):
            for entry in self.path.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()

    def discard(self) -> None:
        """Remove the folder; the lock stays until `close`."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self.path)

    def save_journal(self) -> None:
        """Write the journal durably."""
        self.write_file(JOURNAL, json.dumps(self.journal).encode())

    def temporary(self, name: str) -> Path:
        """The path under which the file `name` is written before it is renamed."""
        return self.path / (name + _TEMPORARY)

    def write_file(self, name: str, content: bytes) -> None:
        """Write a small file aside, flush it, rename it."""
        path = self.temporary(name)
        with writing(path), path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self.settle(name)

    def settle(self, name: str) -> None:
        """Give a flushed temporary file its final name, durably."""
        with writing(self.path / name):
            self.temporary(name).rename(self.path / name)
            os.fsync(self._lock)

    def publish(self, *, overwrite: bool) -> None:
        """Rename the folder to the target, which is absent or empty, or is replaced when `overwrite` says so."""
        replaced = self.target.with_name(self.target.name + ".replaced")
        with writing(self.target):
            (self.path / JOURNAL).unlink()
            os.fsync(self._lock)
            if overwrite and self.target.is_dir() and any(self.target.iterdir()):
                shutil.rmtree(replaced, ignore_errors=True)
                self.target.rename(replaced)
            self.path.rename(self.target)
            sync_folder(self.target.parent)
        if replaced.is_dir():
            shutil.rmtree(replaced, ignore_errors=True)


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
