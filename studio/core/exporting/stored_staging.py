"""StoredStaging: an export that grows on a store, where nothing is renamed: it exists from its manifest on.

The journal says of what run it is, a lease keeps a second writer away, each shard appears whole, its record after it.
Publishing puts the other files, the manifest last; then what only the run needed goes.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from studio.core.errors import ExportError
from studio.core.events import Warned
from studio.core.exporting.contents import JOURNAL, LOCK, MANIFEST
from studio.core.exporting.lease import Lease
from studio.core.exporting.records import RECORD
from studio.core.exporting.scratch_space import is_left, scratch_space, sweep
from studio.core.exporting.staging import check_same_run
from studio.core.exporting.stored_folder import SCRATCH, StoredFolder, of_a_shard, outside_of_others, scratch_place
from studio.core.exporting.writing import AGAIN
from studio.core.stores.store import ConditionFailedError
from studio.core.stores.target_folder import TargetFolder


class StoredStaging(StoredFolder):
    """One writer, while this object lives, of an export at `store`."""

    def __init__(self, store: TargetFolder) -> None:
        self._ends = ExitStack()
        scratch = self._ends.enter_context(scratch_space(scratch_place(), SCRATCH, swept=False))
        super().__init__(store, scratch)
        found = scratch.stat()
        self._lease = Lease(store, json.dumps([scratch.name, found.st_dev, found.st_ino]), _is_gone)

    def claim(self) -> Iterator[Warned]:
        """Become the only writer; raises ExportError when there is another one."""
        yield from self._lease.take()
        sweep(scratch_place(), SCRATCH)

    def close(self) -> None:
        """Let others write; what is not finished here goes."""
        with self._ends:
            self._lease.close()

    def begin(self, identity: dict[str, Any], *, restart: bool) -> None:
        """See `Staging.begin`."""
        self.store.abandon_uploads(of_a_shard)
        old = self.journal()
        if old is None or restart:
            self._clear()
            self.store.put(JOURNAL, json.dumps({"identity": identity}).encode())
        else:
            check_same_run(old, identity, self.store.url)

    def _clear(self) -> None:
        """Remove what earlier runs put, the journal, which tells that it is ours, last."""
        names = outside_of_others(self.store.listed()) - {LOCK}
        for name in sorted(names, key=JOURNAL.__eq__):
            if (found := self.store.find(name)) and found.digest:
                self.store.remove(name)

    def give_up(self) -> bool:
        """See `Staging.give_up`."""
        with suppress(ExportError):  # what is there when the store is away stays
            if any(name.endswith(RECORD) for name in self.store.listed()):
                return True
            if self.journal() is not None:
                self._clear()
        return False

    def publish(self, *, overwrite: bool) -> Path | None:
        """Put the files beside the shards, the manifest last; nothing is ever replaced. See `Staging.publish`."""
        self._lease.check()
        records = [name for name in self.store.listed() if name.endswith(RECORD)]
        self._check_shards(name.removesuffix(".json") for name in records)
        documents = self._documents()
        for name in documents:
            self.store.upload(name, self.path / name)
        self._lease.check()
        try:
            self.store.upload(MANIFEST, self.path / MANIFEST, new=True)
        except ConditionFailedError:
            raise ExportError("something appeared there while the export was written", file=self.store.url) from None
        with suppress(ExportError):  # the export is whole with them, too
            self.store.abandon_uploads(lambda name: of_a_shard(name) or name in (*documents, MANIFEST))
            for name in [*records, JOURNAL]:
                self.store.remove(name)
        return None

    def _check_shards(self, shards: Iterable[str]) -> None:
        """Raise ExportError unless the store holds every shard as its record says."""
        for shard in shards:
            record = self.record(shard)
            if record is None or not self.holds(record):
                raise ExportError("was replaced while the export ran", file=self.store.shown(shard), hint=AGAIN)

    def _documents(self) -> list[str]:
        """The files beside the shards, but for the manifest."""
        names = (path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if path.is_file())
        return sorted(name for name in names if name != MANIFEST and not of_a_shard(name))


def _is_gone(mark: str) -> bool | None:
    """True for the mark of a writer on this machine that was killed: nothing holds its scratch folder any more.

    False when something does; None for a writer elsewhere.
    """
    try:
        name, device, inode = json.loads(mark)
        return is_left(scratch_place() / Path(name).name, (int(device), int(inode)))
    except (ValueError, TypeError):
        return None
