"""StoredFolder: shards of an export that appear on a store; each is written and verified here, put, and forgotten."""

import json
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from studio.core.errors import ExportError
from studio.core.exporting.contents import JOURNAL, MANIFEST, journal_of
from studio.core.exporting.records import RECORD, Record
from studio.core.exporting.staged_folder import StagedFolder
from studio.core.stores.target_folder import TargetFolder

SCRATCH = "nvfp4-studio-out-"


def scratch_place() -> Path:
    """The folder in which shards lie until they are put: that for temporary files."""
    return Path(tempfile.gettempdir())


class StoredFolder(StagedFolder):
    """`scratch` holds the shard at hand and the records; `run`, where given, is that of which shards are taken."""

    def __init__(self, store: TargetFolder, scratch: Path, run: Mapping[str, Any] | None = None) -> None:
        super().__init__(scratch)
        self.store, self._run = store, json.loads(json.dumps(run))

    def record(self, shard: str) -> Record | None:
        """See `StagedFolder.record`; it is fetched anew."""
        data = self.store.read(f"{shard}.json")
        if data is None:
            return None
        (self.path / f"{shard}.json").write_bytes(data)
        return super().record(shard)

    def holds(self, record: Record) -> bool:
        """See `StagedFolder.holds`: by the digest that was noted beside what was put and read back."""
        found = self.store.find(record.shard)
        return found is not None and (found.nbytes, found.digest) == (record.nbytes, record.sha256)

    def settle(self, name: str) -> None:
        """See `StagedFolder.settle`; what is of a shard is put. Raises ExportError when another run is there."""
        super().settle(name)
        if not of_a_shard(name):
            return
        if self._run is not None and self.journal() != self._run:
            raise ExportError("another run has taken this folder", file=self.store.url)
        self.store.upload(name, self.path / name)
        if not name.endswith(RECORD):
            with suppress(OSError):
                (self.path / name).unlink()

    def journal(self) -> dict[str, Any] | None:
        """The identity of the run whose shards are there, None for none."""
        return journal_of(self.store.read(JOURNAL) or b"")


def of_a_shard(name: str) -> bool:
    """True for the names of shards and of their records, in the folder itself."""
    return name.endswith((".safetensors", RECORD)) and "/" not in name


def outside_of_others(names: Iterable[str]) -> set[str]:
    """The names that do not lie in another export below the folder."""
    found = set(names)
    others = {path.parent for path in map(PurePosixPath, found) if path.name in (JOURNAL, MANIFEST)} - {_HERE}
    return {name for name in found if others.isdisjoint(PurePosixPath(name).parents)}


_HERE = PurePosixPath()
