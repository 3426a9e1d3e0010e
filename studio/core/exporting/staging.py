"""Staging: a folder beside the target where an export grows; the target appears whole, by one rename.

Every file is written aside, flushed to the disk and renamed. The journal says of what run it is, the record of a
shard that it is finished, so that the same command continues after a kill. A lock keeps a second export away.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from studio.core.errors import CheckpointError, ExportError
from studio.core.events import Event
from studio.core.exporting.contents import JOURNAL, MANIFEST, SUMS, contents, left_over, read_journal, remove
from studio.core.exporting.exchange import exchange
from studio.core.exporting.records import RECORD
from studio.core.exporting.staged_folder import TEMPORARY, StagedFolder
from studio.core.exporting.writing import AGAIN, sync_folder, writing
from studio.core.names import printable

SUFFIX = ".partial"
_OF_A_RUN = re.compile(
    r"model(-\d+-of-\d+)?\.safetensors((\.[0-9a-f]{32})?\.tmp|\.json)?|.*\.json(\.[0-9a-f]{32})?\.tmp"
)


def staging_path(target: Path) -> Path:
    """The folder beside `target` where its export grows."""
    return target.with_name(target.name + SUFFIX)


def check_same_run(old: Mapping[str, Any], identity: Mapping[str, Any], place: str | Path) -> None:
    """Raise ExportError, naming what differs, when what a stopped run left at `place` is of another one."""
    if changed := [key for key in identity if old.get(key) != identity[key]]:
        what = f"holds a stopped export with another {' and another '.join(changed)}"
        raise ExportError(what, file=place, hint="--restart discards it; the source or the plan changed since")


def running(target: Path | str, where: str = "") -> ExportError:
    """Another run writes there."""
    what = f"another export to this target is running{where}"
    return ExportError(what, file=target, hint="wait until it ends, or stop it: this one then takes over its shards")


class Staging(StagedFolder):
    """The folder `<target>.partial`, locked while this object lives."""

    def __init__(self, target: Path) -> None:
        super().__init__(staging_path(target))
        self.target = target
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(exist_ok=True)
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if not self._is_mine():
            os.close(self._lock)
            raise running(target)

    def _is_mine(self) -> bool:
        """True when the lock is ours and still that of the folder at this path."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.path.samestat(os.fstat(self._lock), self.path.stat())
        except OSError:
            return False

    def close(self) -> None:
        """Give the lock back; a folder in which nothing was written goes."""
        try:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(self._lock), self.path.lstat()):
                    self.path.rmdir()
        finally:
            with contextlib.suppress(OSError):
                os.close(self._lock)

    def claim(self) -> Iterator[Event]:
        """Become the only writer, which it is already."""
        yield from ()

    def begin(self, identity: dict[str, Any], *, restart: bool) -> None:
        """Take over what an earlier run of the same identity finished, or start empty.

        Raises ExportError when the folder holds a run of another identity, naming what differs.
        """
        old = self._read_journal()
        if old is None or restart:
            self.clear()
            self.write_file(JOURNAL, [json.dumps({"identity": identity}).encode()])
            return
        check_same_run(old, identity, self.path)

    def _read_journal(self) -> dict[str, Any] | None:
        try:
            journal = read_journal(self.path / JOURNAL)
        except OSError as error:  # no reason to discard what it tells of
            what = f"can not be read: {os.strerror(error.errno) if error.errno else error}"
            raise ExportError(what, file=self.path / JOURNAL, hint=AGAIN) from None
        if journal is None and (strangers := self._strangers()):
            what = f"exists and was not made by this program: it holds {printable(min(strangers))}"
            raise ExportError(what, file=self.path, hint="move it away or choose another target")
        return journal

    def _strangers(self) -> set[str]:
        """What in a folder without a journal is neither of a run nor of an export that a kill kept from going."""
        names = {entry.name for entry in self.path.iterdir()} - {JOURNAL + TEMPORARY}
        if JOURNAL in names:  # damaged
            return {name for name in names if name != JOURNAL and not _OF_A_RUN.fullmatch(name)}
        try:
            return set(contents(self.path).strangers) - {JOURNAL + TEMPORARY} if names else names
        except (CheckpointError, OSError):
            return names

    def clear(self) -> None:
        """Remove everything in the folder; what marks it as ours goes last, so that a kill leaves it recognizable."""
        last = {SUMS: 1, MANIFEST: 2, JOURNAL: 3}
        with writing(self.path):
            for entry in sorted(self.path.iterdir(), key=lambda entry: last.get(entry.name, 0)):
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()

    def give_up(self) -> bool:
        """Remove the folder when no shard in it is finished; True when some are, which stay for the next run."""
        finished = any(self.path.glob("*" + RECORD))
        with contextlib.suppress(OSError):
            if not finished and read_journal(self.path / JOURNAL) is not None:
                self.discard()
        return finished

    def discard(self) -> None:
        """Remove the folder; the lock stays until `close`."""
        with contextlib.suppress(ExportError, OSError):
            self.clear()
            self.path.rmdir()

    def publish(self, *, overwrite: bool) -> Path | None:
        """Rename the folder to the target, which is absent or empty, or is replaced when `overwrite` says so.

        Journal and records go when nothing can be lost any more. Returns the folder that holds what was replaced and
        could not be removed, None when there is no such. A process whose current folder is replaced goes on in the new
        one: without a current folder, imports can fail.
        """
        with writing(self.target):
            for unfinished in self.path.glob(f"*{TEMPORARY}"):  # of a worker that was lost
                unfinished.unlink()
            current = self.target.is_dir() and self.target.samefile(os.curdir)
            replaced = self._take_place(overwrite=overwrite)
            if current:
                os.chdir(self.target)
            sync_folder(self.target.parent)
        with contextlib.suppress(CheckpointError, OSError):  # the export is whole with them, too
            for name in sorted(left_over(self.target), key=JOURNAL.__eq__):
                (self.target / name).unlink()
            os.fsync(self._lock)
        return self._remove(replaced) if replaced else None

    def _take_place(self, *, overwrite: bool) -> Path | None:
        """Give the folder the name of the target; returns where the folder that had it is now."""
        if overwrite and self.target.is_dir() and any(self.target.iterdir()):
            if exchange(self.path, self.target):
                return self.path
            replaced = self.target.rename(self._free_name())
            try:
                self.path.rename(self.target)
            except OSError:
                replaced.rename(self.target)
                raise
            return replaced
        try:
            self.path.rename(self.target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            what = "something appeared there while the export was written"
            raise ExportError(what, file=self.target, hint=f"move it away and {AGAIN}") from None
        return None

    def _free_name(self) -> Path:
        names = (f"{self.target.name}.replaced{number or ''}" for number in range(1000))
        return next(path for name in names if not os.path.lexists(path := self.target.with_name(name)))

    def _remove(self, replaced: Path) -> Path | None:
        """Remove what an export wrote that was replaced; what else is there stays, under a name that says so."""
        with contextlib.suppress(CheckpointError, OSError):
            if remove(replaced):
                return None
        with contextlib.suppress(OSError):
            replaced = replaced.rename(self._free_name()) if replaced == self.path else replaced
        return replaced
