"""Shelf: a folder of the user with one entry per checkpoint: where it is, its work, its results."""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from studio.gui.keeping.files import append, write_whole
from studio.gui.shell.places import is_address

IDENTITY, WORK, RESULTS, LOCK = "identity.json", "work.json", "results.jsonl", "lock"
LIMIT = 1_000_000_000
"""Bytes of all entries together; those not used for longest go first."""

RESULTS_SCHEMA = 1
_HEAD = b'{"schema":%d}' % RESULTS_SCHEMA


@dataclass
class Entry:
    """What is kept of one checkpoint. The window that holds its lock writes; others may read."""

    folder: Path
    _lock: int | None = None

    @property
    def is_held(self) -> bool:
        """True when this window may write."""
        return self._lock is not None

    def hold(self) -> bool:
        """Take the lock; False when another window has it. Raises OSError when nothing can be written here."""
        if self._lock is None:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            except OSError:  # a file system without locks
                pass
            self._lock = descriptor
        return True

    def release(self) -> None:
        """Let other windows write."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def identity(self) -> tuple[str, str]:
        """Path and fingerprint of the checkpoint; empty when they are not known."""
        try:
            said = json.loads((self.folder / IDENTITY).read_bytes())
            return str(said["path"]), str(said["fingerprint"])
        except (OSError, ValueError, KeyError, TypeError):
            return "", ""

    def identify(self, path: Path, fingerprint: str) -> None:
        """Note which checkpoint this is, and that it is in use now."""
        if self.identity() != (str(path), fingerprint):
            said = {"schema": 1, "path": str(path), "fingerprint": fingerprint}
            write_whole(self.folder / IDENTITY, json.dumps(said).encode())
        os.utime(self.folder / IDENTITY)

    def read_work(self) -> bytes | None:
        """The work as it was written last, None when there is none."""
        path = self.folder / WORK
        return path.read_bytes() if path.exists() else None

    def write_work(self, data: bytes) -> None:
        """Keep the work."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(self.folder / WORK, data)

    def lines(self) -> Iterator[bytes]:
        """The lines of results, the head too."""
        path = self.folder / RESULTS
        if path.exists():
            with path.open("rb") as file:
                yield from file

    def add_lines(self, lines: Sequence[str]) -> None:
        """Keep more results."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.folder / RESULTS
        head = () if path.exists() and path.stat().st_size else (_HEAD,)
        append(path, b"".join(line + b"\n" for line in (*head, *(line.encode() for line in lines))))

    def rewrite_lines(self, lines: Sequence[bytes]) -> None:
        """Keep these results instead of all."""
        write_whole(self.folder / RESULTS, b"".join(line + b"\n" for line in (_HEAD, *lines)))

    def set_aside(self, name: str) -> Path:
        """Rename a file that can not be used, and give its new place; nobody writes there."""
        aside = self.folder / f"{name}.{time.strftime('%Y%m%d-%H%M%S')}.unread"
        (self.folder / name).replace(aside)
        return aside

    def forget(self) -> None:
        """Remove work and results."""
        for name in (WORK, RESULTS):
            (self.folder / name).unlink(missing_ok=True)

    @property
    def nbytes(self) -> int:
        """Bytes of its files; 0 when another window removes it just now."""
        try:
            return sum(path.stat().st_size for path in self.folder.iterdir())
        except FileNotFoundError:
            return 0


class Shelf:
    """The entries of a user."""

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self.folder, self.limit = folder, limit

    def entry(self, path: Path, fingerprint: str) -> Entry:
        """The entry of the checkpoint at `path`; that of a folder that was moved here comes along."""
        absolute = path.absolute()
        found = self._at(absolute)
        empty = not any((found.folder / name).exists() for name in (WORK, RESULTS))
        if empty and (moved := self._moved(fingerprint)) is not None:
            with suppress(OSError):
                self._take_over(moved, found)
        return found

    def _at(self, path: Path) -> Entry:
        return Entry(self.folder / hashlib.sha256(os.fsencode(str(path))).hexdigest()[:24])

    def _moved(self, fingerprint: str) -> Entry | None:
        """An entry of the same files whose checkpoint is not where it was."""
        for entry in self.entries():
            path, known = entry.identity()
            if known == fingerprint and not is_address(path) and not Path(path).exists():
                return entry
        return None

    def _take_over(self, moved: Entry, found: Entry) -> None:
        if not moved.hold():
            return
        try:
            shutil.rmtree(found.folder, ignore_errors=True)
            moved.folder.rename(found.folder)
        finally:
            moved.release()

    def entries(self) -> list[Entry]:
        """All entries, the one not used for longest first."""
        if not self.folder.is_dir():
            return []
        found = [folder for folder in self.folder.iterdir() if (folder / IDENTITY).is_file()]
        return [Entry(folder) for folder in sorted(found, key=lambda folder: (folder / IDENTITY).stat().st_mtime_ns)]

    def size(self) -> tuple[int, int]:
        """How many checkpoints are remembered, and bytes of all."""
        entries = self.entries()
        return len(entries), sum(entry.nbytes for entry in entries)

    def trim(self, spared: Entry) -> None:
        """Let go of what was not used for longest, until all fits the limit; never of what a window holds."""
        sizes = [(entry, entry.nbytes) for entry in self.entries()]
        total = sum(nbytes for _, nbytes in sizes)
        for entry, nbytes in sizes:
            if total <= self.limit:
                return
            if entry.folder != spared.folder and entry.hold():
                shutil.rmtree(entry.folder, ignore_errors=True)
                entry.release()
                total -= nbytes

    def forget(self) -> int:
        """Forget every checkpoint but those that a window holds; gives how many those are."""
        held = 0
        for entry in self.entries():
            if entry.hold():
                shutil.rmtree(entry.folder, ignore_errors=True)
                entry.release()
            else:
                held += 1
        return held
