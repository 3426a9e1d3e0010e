"""RemoteFolder: a folder behind a URL as it was when it was opened, its files read by way of the spool."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from threading import Lock
from weakref import WeakSet

from studio.core.errors import CheckpointError, StudioError
from studio.core.names import is_plain_path, printable
from studio.core.running.ending import Ending
from studio.core.stores.byte_source import Fingerprint
from studio.core.stores.patience import Patience
from studio.core.stores.spool import BLOCK, FETCH, Spool, Write
from studio.core.stores.store import BarredError, Object, Store, TryAgainError, changed

AHEAD = 8
"""Threads that fetch what will be needed soon."""
_SEGMENTS = 32
"""Pieces of a stream, each a file that is open."""


class RemoteFolder:
    """Close it when it is no longer read; requests are then broken off. `over`: the same, told by another."""

    def __init__(
        self, store: Store, patience: Patience | None = None, spool: Spool | None = None, over: Ending | None = None
    ) -> None:
        self.store, self._spool = store, spool or Spool()
        self._closed = over or Ending()
        self._closed.call(store.hang_up)
        self._patience = replace(patience or Patience(), over=self._closed)
        self._found: dict[str, Object | None] = {}
        self._lock = Lock()
        self._ahead: ThreadPoolExecutor | None = None
        self._asked: list[Future[None]] = []
        self._streams = False
        _OPEN.add(self)

    @property
    def patience(self) -> Patience:
        """How often requests are made again."""
        return self._patience

    @cached_property
    def files(self) -> Mapping[str, Object]:
        """What the store lists, or has of usual names. Raises CheckpointError."""
        if not self.store.usual:
            return self._patience.persist(self.store.url, self.store.listed)
        first, *others = self.store.usual  # a server that does not answer is asked for one, not for all
        answers = {first: self._tried(first)}
        with ThreadPoolExecutor(AHEAD, thread_name_prefix="nvfp4-studio-store") as pool:
            answers |= zip(others, pool.map(self._tried, others), strict=True)
        there = {name: found for name, found in answers.items() if isinstance(found, Object)}
        barred = {name: found for name, found in answers.items() if isinstance(found, BarredError)}
        if barred and not (there and "config.json" in there):
            raise next(iter(barred.values()))
        return there

    def _tried(self, name: str) -> Object | BarredError | None:
        """What is known of a file; a store may refuse to say that one is not there."""
        try:
            return self._now(name)
        except BarredError as error:
            return error

    @property
    def caution(self) -> str:
        """What can not be known of files of this store, "" where all is."""
        if not self.store.usual:
            return ""
        untagged = [name for name, found in self.files.items() if not found.tag]
        beside = f"{self.store.url} does not list its files: beside the weights only files of usual names are seen"
        unsure = "; it gives neither ETag nor date, so that a change that keeps the size of a file goes unnoticed"
        return beside + (unsure if untagged else "")

    def find(self, name: str) -> Object | None:
        """A file as it was first seen, None when there is none."""
        if not is_plain_path(name):
            raise CheckpointError(f"unsafe path: '{printable(name)}'", file=self.store.url)
        if name in self.files or not self.store.usual:
            return self.files.get(name)
        if name not in self._found:
            self._found[name] = self._now(name)
        return self._found[name]

    def bytes_of(self, name: str) -> "StoredBytes":
        """A file to read. Raises CheckpointError when it is not there."""
        found = self.find(name)
        if found is None:
            raise CheckpointError("missing", file=self._shown(name))
        return StoredBytes(self, name, found)

    def read_into(self, name: str, found: Object, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` from `offset` of a file; raises CheckpointError when that is no longer `found`."""
        if offset + len(buffer) > found.nbytes:
            raise CheckpointError("truncated: it ends before what is to be read", file=self._shown(name))
        self._spool.read_into(name, found.nbytes, buffer, offset, partial(self._fetch, name, found))

    def read_ahead(self, name: str, found: Object, start: int, stop: int) -> None:
        """Fetch these bytes beside what else is done; what fails is told when they are read."""
        with self._lock:
            if self._closed.is_set():
                return
            self._ahead = self._ahead or ThreadPoolExecutor(AHEAD, thread_name_prefix="nvfp4-studio-store")
            self._asked = [future for future in self._asked if not future.done()]
            for first in range(start, stop, FETCH):
                last = min(first + FETCH, stop)
                self._asked.append(self._ahead.submit(self._quietly, name, found, first, last))

    def _quietly(self, name: str, found: Object, start: int, stop: int) -> None:
        with suppress(StudioError):
            self._spool.ensure(name, found.nbytes, start, stop, partial(self._fetch, name, found))

    def stream(self, nbytes: int) -> None:
        """From now on hold about `nbytes` at most, and nothing after `forget`; nothing is being read."""
        segment = max(-(-nbytes // (_SEGMENTS * BLOCK)), 1) * BLOCK
        self._spool.close()
        self._spool, self._streams = Spool(2 * _SEGMENTS * segment, segment), True

    def forget(self) -> None:
        """Give back the disk of what was fetched and is not read now, where this folder is a stream."""
        if not self._streams:
            return
        with self._lock:
            for future in self._asked:
                future.cancel()
            wait(self._asked)
            self._asked.clear()
        self._spool.forget()

    def check_unchanged(self, name: str, found: Object) -> None:
        """Ask the store whether a file is what it was; raises CheckpointError."""
        if self._now(name) != found:
            raise changed(self._shown(name))

    def _now(self, name: str) -> Object | None:
        return self._patience.persist(self._shown(name), partial(self.store.find, name))

    def _fetch(self, name: str, found: Object, start: int, stop: int, write: Write) -> None:
        """Hand bytes on as they come; an attempt goes on where the last one broke."""
        position = start

        def attempt() -> None:
            nonlocal position
            if position == stop:  # it broke off after the last byte
                return
            for piece in self.store.read(name, found, position, stop):
                if position + len(piece) > stop:
                    raise TryAgainError("more bytes came than were asked for")
                write(piece, position)
                position += len(piece)
            if position < stop:
                raise TryAgainError(f"the answer ended {stop - position:,} bytes early")

        self._patience.persist(self._shown(name), attempt)

    def _shown(self, name: str) -> str:
        return f"{self.store.url}/{name}"

    def abandon(self) -> None:
        """Break off requests, and make none again; waits for nothing itself."""
        self._closed.set()

    def close(self) -> None:
        """Stop fetching, forget what was fetched; it may be closed twice."""
        with self._lock:
            self._closed.set()
        if self._ahead:
            self._ahead.shutdown(wait=True, cancel_futures=True)
        self._spool.close()
        self.store.close()


_OPEN: WeakSet[RemoteFolder] = WeakSet()


def abandon_all() -> None:
    """Abandon every folder of this process, which is to end: what waits for a store is woken, wherever that is."""
    for folder in list(_OPEN):
        folder.abandon()


class StoredBytes:
    """A file of a folder behind a URL, as a ByteSource."""

    def __init__(self, folder: RemoteFolder, name: str, found: Object) -> None:
        self._folder, self._name, self._found = folder, name, found
        self.fingerprint = Fingerprint(found.nbytes, found.tag)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """See `ByteSource.read_into`."""
        self._folder.read_into(self._name, self._found, buffer, offset)

    def read_ahead(self, offset: int, count: int) -> None:
        """See `ByteSource.read_ahead`."""
        self._folder.read_ahead(self._name, self._found, offset, offset + count)

    def check_unchanged(self) -> None:
        """See `ByteSource.check_unchanged`."""
        self._folder.check_unchanged(self._name, self._found)
