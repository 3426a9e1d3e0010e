"""StagedFolder: where the shards of an export appear, each whole, whoever writes it."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from studio.core.containers.files import SourceFile
from studio.core.errors import ExportError
from studio.core.exporting.contents import JOURNAL, read_journal
from studio.core.exporting.readback import sha256
from studio.core.exporting.records import Record, read_record
from studio.core.exporting.writing import StagedFile, pieces_of, sync_folder, writing

TEMPORARY = ".tmp"


class StagedFolder:
    """A folder into which files are written aside, flushed and renamed.

    `mark` is part of the names of files while they are written, so that two that write the same one are not in each
    other's way.
    """

    def __init__(self, path: Path, mark: str = "") -> None:
        self.path, self._suffix = path, f"{mark}{TEMPORARY}"

    def record(self, shard: str) -> Record | None:
        """The record of a shard, None while it is not finished."""
        return read_record(self.path / f"{shard}.json")

    def holds(self, record: Record) -> bool:
        """True when the shard is there with the bytes that its record noted."""
        path = self.path / record.shard
        if not path.exists():
            return False
        with SourceFile(path) as file:
            return file.size == record.nbytes and sha256(file) == record.sha256

    def write_record(self, shard: str, lines: Iterable[bytes]) -> None:
        """Note durably that a shard is finished."""
        self.write_file(f"{shard}.json", lines)

    def temporary(self, name: str) -> Path:
        """The path under which the file `name` is written before it is renamed."""
        return self.path / (name + self._suffix)

    def write_file(self, name: str, chunks: Iterable[bytes | bytearray]) -> None:
        """Write a file aside piece by piece, flush it, rename it; "/" in its name makes the folders that it lies in."""
        for _ in self.write_pieces(name, chunks):
            pass

    def write_pieces(self, name: str, chunks: Iterable[bytes | bytearray]) -> Iterator[int]:
        """`write_file`, telling the bytes of every piece that it has written."""
        if "/" in name:
            with writing(self.path / name):
                self.temporary(name).parent.mkdir(parents=True, exist_ok=True)
        with StagedFile(self.temporary(name)) as file:
            position = 0
            for chunk in pieces_of(chunks):
                file.write(memoryview(chunk), position)
                position += len(chunk)
                yield len(chunk)
            file.flush()
        self.settle(name)

    def settle(self, name: str) -> None:
        """Give a flushed temporary file its final name, durably."""
        with writing(self.path / name):
            self.temporary(name).rename(self.path / name)
            for folder in Path(name).parents:
                sync_folder(self.path / folder)


class SharedFolder(StagedFolder):
    """The staging folder of a run, in another process: nothing is settled once the folder is that of another run."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        super().__init__(path, f".{uuid4().hex}")
        self._identity = json.loads(json.dumps(identity))

    def settle(self, name: str) -> None:
        """See `StagedFolder.settle`; raises ExportError when another run has taken the folder."""
        journal = read_journal(self.path / JOURNAL) if self.path.is_dir() else None
        if journal is None or journal != self._identity:
            raise ExportError("another run has taken this folder", file=self.path)
        super().settle(name)

    @contextmanager
    def swept(self) -> "Iterator[SharedFolder]":
        """The folder; what was not settled at the end is removed."""
        try:
            yield self
        finally:
            for path in self.path.glob(f"*{self._suffix}"):
                path.unlink(missing_ok=True)
