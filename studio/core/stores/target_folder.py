"""TargetFolder: a folder on a store as a place to write, with patience; what is put is read back."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from studio.core.errors import CheckpointError, ExportError, UnreadableError
from studio.core.stores.patience import Patience
from studio.core.stores.s3_target import S3Target
from studio.core.stores.store import ConditionFailedError, Object, TryAgainError

T = TypeVar("T")

PART = 8 << 20
"""Bytes of a part of an upload, where its file does not need larger ones, and of a range that is read back."""
MOST_PARTS = 10_000
PARALLEL = 4
LARGEST_SMALL = 1 << 30
LAST_WORD = 3.0
"""Seconds for a request of a run that was stopped."""


class TargetFolder:
    """Every call raises ExportError; one with a condition raises ConditionFailedError when that does not hold."""

    def __init__(self, store: S3Target, patience: Patience | None = None) -> None:
        self.store, self._patience = store, patience or Patience()

    @property
    def url(self) -> str:
        """Where it is."""
        return self.store.url

    def at_last(self) -> "TargetFolder":
        """It, for what is left to say: when nobody waits any more each request has one attempt of a few seconds."""
        over = self._patience.over
        if over is None or not over.is_set():
            return self
        return TargetFolder(self.store.once_more(LAST_WORD), Patience(attempts=1))

    def listed(self) -> Mapping[str, Object]:
        """What is in it now."""
        return self._tried("", self.store.listed)

    def find(self, name: str) -> Object | None:
        """A file as it is now, None when there is none."""
        return self._tried(name, partial(self.store.find, name))

    def read(self, name: str) -> bytes | None:
        """The bytes of a small file, None when there is none."""
        found = self.find(name)
        if found is None:
            return None
        if found.nbytes > LARGEST_SMALL:
            raise ExportError(f"too large: {found.nbytes:,} bytes", file=self.shown(name))
        return b"".join(self._pieces(name, found))

    def put(self, name: str, data: bytes, *, new: bool = False, instead_of: str = "") -> str:
        """Put a file of these bytes, where a condition is given only if it holds; returns its tag.

        An answer that was lost is no failure: what is there then has the digest of `data`.
        """
        digest = sha256(data).hexdigest()
        try:
            return self._tried(name, lambda: self.store.put(name, data, digest, new=new, instead_of=instead_of))
        except ConditionFailedError:
            found = self.find(name)
            if found is None or (found.nbytes, found.digest) != (len(data), digest):
                raise
            return found.tag

    def upload(self, name: str, path: Path, *, new: bool = False) -> None:
        """Put the file at `path` in parts, a few in memory at once, and read it back: it appears whole or not at all.

        `new`: raises ConditionFailedError when there is another one.
        """
        nbytes, digest = path.stat().st_size, _digest_of(path)
        size = max(PART, -(-nbytes // MOST_PARTS))
        if nbytes <= size:
            self._read_back(name, Object(nbytes, self.put(name, path.read_bytes(), new=new)), digest)
            return
        try:
            self._in_parts(name, path, digest, range(0, nbytes, size), new=new)
        except ConditionFailedError:
            raise ExportError("its upload was ended by another run", file=self.shown(name)) from None
        self._read_back(name, self.find(name), digest)

    def _in_parts(self, name: str, path: Path, digest: str, starts: range, *, new: bool) -> None:
        upload = self._tried(name, partial(self.store.begin_upload, name, digest))
        try:
            with ThreadPoolExecutor(PARALLEL, thread_name_prefix="nvfp4-studio-store") as pool:
                put = partial(self._put_part, name, upload, path, starts.step)
                tags = list(pool.map(put, starts))
            with suppress(ConditionFailedError):  # finished, and the answer was lost, or not: reading back tells
                self._tried(name, partial(self.store.finish_upload, name, upload, tags, new=new))
        except BaseException:
            with suppress(ExportError, ConditionFailedError):
                self.at_last().abandon_upload(name, upload)
            raise

    def _put_part(self, name: str, upload: str, path: Path, size: int, start: int) -> str:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(size)
        return self._tried(name, partial(self.store.put_part, name, upload, start // size + 1, data))

    def _read_back(self, name: str, found: Object | None, digest: str) -> None:
        if found is None or self._digest_there(name, found) != digest:
            self.remove(name)
            hint = "run the same command again; finished shards are kept"
            raise ExportError("what came back is not what was put", file=self.shown(name), hint=hint)

    def _digest_there(self, name: str, found: Object) -> str:
        """The SHA-256 of what is there, "" when that is of another size."""
        read = sha256()
        try:
            for piece in self._pieces(name, found):
                read.update(piece)
        except ExportError:
            now = self.find(name)
            if now and now.nbytes == found.nbytes:
                raise
            return ""
        return read.hexdigest()

    def _pieces(self, name: str, found: Object) -> Iterator[bytes]:
        for start in range(0, found.nbytes, PART):
            stop = min(start + PART, found.nbytes)
            yield self._tried(name, partial(self._range, name, found, start, stop))

    def _range(self, name: str, found: Object, start: int, stop: int) -> bytes:
        data = b"".join(self.store.read(name, found, start, stop))
        if len(data) != stop - start:
            raise TryAgainError(f"{stop - start:,} bytes were asked for, {len(data):,} came")
        return data

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        self._tried(name, partial(self.store.remove, name))

    def abandon_uploads(self, mine: Callable[[str], bool]) -> None:
        """Forget what uploads left that were never finished, of files that are `mine` by their names."""
        for name, upload in self._tried("", self.store.uploads):
            with suppress(ConditionFailedError):
                if mine(name):
                    self.abandon_upload(name, upload)

    def abandon_upload(self, name: str, upload: str) -> None:
        """Forget the parts of an upload; raises ConditionFailedError when it is gone."""
        self._tried(name, partial(self.store.abandon_upload, name, upload))

    def shown(self, name: str) -> str:
        """The URL of a file, for people."""
        return f"{self.url}/{name}" if name else self.url

    def _tried(self, name: str, attempt: Callable[[], T]) -> T:
        with self._written(name):
            return self._patience.persist(self.shown(name), attempt, "can not be written")

    @contextmanager
    def _written(self, name: str) -> Iterator[None]:
        """What a store says while something is written is said of the target."""
        try:
            yield
        except UnreadableError as error:
            hint = "run the same command again when the store answers; finished shards are kept"
            raise ExportError(error.what, file=self.shown(name), hint=hint) from None
        except CheckpointError as error:
            raise ExportError(error.what, file=self.shown(name), hint=error.hint) from None


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        digest = sha256()
        while piece := file.read(PART):
            digest.update(piece)
    return digest.hexdigest()
