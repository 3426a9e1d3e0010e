"""Lease: one writer at a time in a folder of a store; what is not renewed for a while can be taken over.

The file LOCK names its writer, and is put only where none is there, or instead of the one that was seen: of two
writers the store refuses one. A store that does not keep conditions lets both in, which is noticed and told.
"""

import json
import platform
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Event, Lock, Thread
from time import monotonic
from uuid import uuid4

from studio.core.errors import ExportError
from studio.core.events import Warned
from studio.core.exporting.contents import LOCK
from studio.core.exporting.staging import running
from studio.core.names import printable
from studio.core.stores.store import ConditionFailedError, Object
from studio.core.stores.target_folder import TargetFolder

BEAT = 15.0
"""Seconds between two renewals."""
LASTS = 60.0
"""Seconds without a renewal after which a writer counts as gone."""
_LOOK = 2.0
_NO_TAG = '"00000000000000000000000000000000"'

Gone = Callable[[str], bool | None]
"""True when the writer with this mark is known to be gone, False when it is known to be there, None for neither."""


class Lease:
    """`mark` tells others by what this writer can be found; `gone` judges theirs."""

    def __init__(self, folder: TargetFolder, mark: str, gone: Gone) -> None:
        self._folder, self._mark, self._gone = folder, mark, gone
        self._writer, self._beats = uuid4().hex, 0
        self._tag, self._closed, self._turn = "", Event(), Lock()
        self._thread: Thread | None = None

    def take(self) -> Iterator[Warned]:
        """Become the writer; raises ExportError when another one is. Waits for one that may be gone."""
        while not self._put(new=True):
            yield from self._wait_for_other()
        if self._put(new=True, probe=True) or self._put(instead_of=_NO_TAG, probe=True):
            what = "this store does not keep two writers apart: see to it that nothing else writes there"
            yield Warned(f"{self._folder.url}: {what}")
        self._thread = Thread(target=self._renew, name="nvfp4-studio-lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise ExportError unless this is still the writer."""
        if not self._renewed():
            raise ExportError("another export to this target has begun", file=self._folder.url)

    def close(self) -> None:
        """Let others write; where the store is away, they wait until it is clear that this one is gone."""
        self._closed.set()
        if self._thread:
            self._thread.join()
        self._folder = self._folder.at_last()
        with suppress(ExportError):
            if self._renewed():
                self._folder.remove(LOCK)

    def _put(self, *, new: bool = False, instead_of: str = "", probe: bool = False) -> bool:
        """True when the file is now ours."""
        self._beats += 1
        told = {"writer": self._writer, "host": platform.node(), "mark": self._mark, "renewed": self._beats}
        try:
            tag = self._folder.put(LOCK, json.dumps(told).encode(), new=new, instead_of=instead_of)
        except ConditionFailedError:
            self._tag = self._tag if probe else ""
            return False
        self._tag = tag
        return True

    def _renewed(self) -> bool:
        """True when this is still the writer, as the file that it puts now says."""
        with self._turn:
            return bool(self._tag) and self._put(instead_of=self._tag)

    def _renew(self) -> None:
        while not self._closed.wait(BEAT):
            with suppress(ExportError):  # the store is away: `check` tells whether that was too long
                if not self._renewed():
                    return

    def _wait_for_other(self) -> Iterator[Warned]:
        """Come back when the other writer is gone, and its file too; raises ExportError when it is alive."""
        first = self._folder.find(LOCK)
        if first is None:
            return
        told = _told(self._folder.read(LOCK))
        gone = self._gone(told.get("mark", ""))
        if gone is None:
            yield Warned(f"{self._folder.url}: it looks for up to {LASTS:g} s whether another export goes on there")
            gone = self._is_silent(first)
        if not gone:
            raise running(self._folder.url, f" on {printable(told.get('host', '')) or 'a machine'}")
        if self._put(instead_of=first.tag):
            self._folder.remove(LOCK)

    def _is_silent(self, first: Object) -> bool:
        """True when a writer does not renew its file, or removes it."""
        stop = monotonic() + LASTS
        while monotonic() < stop:
            self._closed.wait(_LOOK)
            found = self._folder.find(LOCK)
            if found is None or found.tag != first.tag:
                return found is None
        return True


def _told(data: bytes | None) -> dict[str, str]:
    try:
        told = json.loads(data or b"{}")
    except ValueError:
        return {}
    return {key: str(value) for key, value in told.items()} if isinstance(told, dict) else {}
