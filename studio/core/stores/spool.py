"""Spool: what was fetched of files behind URLs, on the disk, so that bytes that are read again are not fetched again.

Files are cut into segments, each an unlinked sparse file, and these into blocks, the unit that is fetched. Beyond its
limit the segments that were not used for longest go. Nothing is held in memory, nothing stays after a kill.
"""

import errno
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Condition
from typing import IO

from studio.core.errors import ExportError

BLOCK = 256 << 10
SEGMENT = 64 << 20
FETCH = 8 << 20
"""Bytes of a request at most: what is lost when it fails."""
LIMIT = 4 << 30
"""Bytes that the spool keeps at most, but for segments in use."""

Write = Callable[[bytes, int], None]
Fetch = Callable[[int, int, Write], None]
"""Fetch bytes start .. stop of a file, handing them to a function together with where they begin."""


@dataclass(slots=True)
class _Segment:
    file: IO[bytes]
    have: set[int] = field(default_factory=set)
    busy: set[int] = field(default_factory=set)
    users: int = 0


class Spool:
    """Used by many threads at once: what one fetches the others wait for."""

    def __init__(self, limit: int = LIMIT, segment: int = SEGMENT, block: int = BLOCK) -> None:
        self._most, self._segment, self._block = max(limit // segment, 1), segment, block
        self._segments: OrderedDict[tuple[str, int], _Segment] = OrderedDict()
        self._told = Condition()

    def read_into(self, name: str, nbytes: int, buffer: memoryview, offset: int, fetch: Fetch) -> None:
        """Fill `buffer` from `offset` of a file of `nbytes`, fetching what is not here."""
        for number, start, stop in self._cut(offset, offset + len(buffer)):
            with self._using(name, number) as segment:
                self._fill(segment, number, nbytes, start, stop, fetch)
                _read(segment, buffer[start - offset : stop - offset], start - number * self._segment)

    def ensure(self, name: str, nbytes: int, start: int, stop: int, fetch: Fetch) -> None:
        """Have these bytes here."""
        for number, first, last in self._cut(start, stop):
            with self._using(name, number) as segment:
                self._fill(segment, number, nbytes, first, last, fetch)

    @property
    def nbytes(self) -> int:
        """Bytes that it keeps now, at most."""
        with self._told:
            return len(self._segments) * self._segment

    def forget(self) -> None:
        """Give back the disk of what nobody reads now."""
        with self._told:
            for key in [key for key, segment in self._segments.items() if not segment.users]:
                self._segments.pop(key).file.close()

    def close(self) -> None:
        """Forget everything."""
        with self._told:
            for segment in self._segments.values():
                segment.file.close()
            self._segments.clear()

    def _cut(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """(segment, first byte, last byte + 1) of what lies in each segment."""
        while start < stop:
            number = start // self._segment
            end = min(stop, (number + 1) * self._segment)
            yield number, start, end
            start = end

    @contextmanager
    def _using(self, name: str, number: int) -> Iterator[_Segment]:
        with self._told:
            segment = self._segments.get((name, number)) or self._new(name, number)
            self._segments.move_to_end((name, number))
            segment.users += 1
        try:
            yield segment
        finally:
            with self._told:
                segment.users -= 1

    def _new(self, name: str, number: int) -> _Segment:
        idle = [key for key, segment in self._segments.items() if not segment.users]
        for key in idle[: max(len(self._segments) + 1 - self._most, 0)]:
            self._segments.pop(key).file.close()
        with _room():
            self._segments[name, number] = _Segment(tempfile.TemporaryFile(prefix="nvfp4-studio-", buffering=0))  # noqa: SIM115 - closed when it goes
        return self._segments[name, number]

    def _fill(self, segment: _Segment, number: int, nbytes: int, start: int, stop: int, fetch: Fetch) -> None:
        wanted = range(start // self._block, -(-stop // self._block))
        while run := self._claimed(segment, wanted):
            try:
                end = min(run.stop * self._block, nbytes)
                fetch(run.start * self._block, end, partial(_write, segment, number * self._segment))
            except BaseException:
                self._settle(segment, run, fetched=False)
                raise
            self._settle(segment, run, fetched=True)

    def _claimed(self, segment: _Segment, wanted: range) -> range:
        """The next blocks that this thread is to fetch; waits for those that others do, empty when all are here."""
        with self._told:
            while missing := [block for block in wanted if block not in segment.have]:
                free = [block for block in missing if block not in segment.busy]
                if free:
                    run = _first_run(free, FETCH // self._block)
                    segment.busy.update(run)
                    return run
                self._told.wait()
        return range(0)

    def _settle(self, segment: _Segment, run: range, *, fetched: bool) -> None:
        with self._told:
            segment.busy.difference_update(run)
            if fetched:
                segment.have.update(run)
            self._told.notify_all()


def _first_run(blocks: list[int], most: int) -> range:
    stop = next((i for i, block in enumerate(blocks) if block != blocks[0] + i), len(blocks))
    return range(blocks[0], blocks[0] + min(stop, most))


def _write(segment: _Segment, origin: int, data: bytes, position: int) -> None:
    """Keep bytes that begin at `position` of a file in its segment, which begins at `origin`."""
    view, offset = memoryview(data), position - origin
    with _room():
        while view:
            count = os.pwrite(segment.file.fileno(), view, offset)
            view, offset = view[count:], offset + count


def _read(segment: _Segment, buffer: memoryview, offset: int) -> None:
    done = 0
    while done < len(buffer):
        got = os.preadv(segment.file.fileno(), [buffer[done:]], offset + done)
        if not got:
            raise ValueError("[Spool] bytes that were fetched are not there")
        done += got


@contextmanager
def _room() -> Iterator[None]:
    """Say what to do when the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        hint = f"up to {LIMIT:,} bytes are kept there while a URL is read; TMPDIR names another folder"
        raise ExportError("no disk space left for what is fetched", file=tempfile.gettempdir(), hint=hint) from None
