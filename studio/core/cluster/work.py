"""Work: what runs in the processes of a cluster. Everything is known from the order; what comes back is small."""

import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import kernels
from kernels.machines import choose, self_test
from studio.core.cluster.order import Opened, Order, opened
from studio.core.errors import ExportError, StudioError
from studio.core.events import Event, LayerDone, Progress, ShardWritten, Warned
from studio.core.exporting.contents import JOURNAL, read_journal
from studio.core.exporting.export import Export
from studio.core.exporting.scratch_space import scratch_space
from studio.core.exporting.staged_folder import StagedFolder
from studio.core.exporting.staging import staging_path
from studio.core.exporting.steps import identity, run_shard
from studio.core.exporting.stored_folder import SCRATCH, StoredFolder, scratch_place
from studio.core.exporting.stored_target import target_folder
from studio.core.jobs import start
from studio.core.planning.plan import Choice
from studio.core.results import LayerResult
from studio.core.running.engine import Engine, Sink
from studio.core.running.pipeline import run
from studio.core.running.solved import Solved
from studio.core.stores.store_path import StorePath

BEAT = 0.5
"""Seconds between two messages on how far a part is."""

PARTS = ("studio/core", "kernels")
"""Folders of the program whose text decides what bytes are written."""


class StoppedError(StudioError):
    """Nobody waits for this part any more."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a worker says of itself: version and digest of the program, what its backend gets wrong, what of the order.

    `trouble` is what keeps it from the order, "" for nothing; `identity` a digest of what the order is to it.
    """

    host: str
    version: str
    program: str
    backend: str
    self_test: str
    identity: str = ""
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Written:
    """A shard is finished: its name, bytes, SHA-256, and how long its phases took."""

    shard: str
    nbytes: int
    sha256: str
    seconds: dict[str, float]


def examine(order: Order, known: Opened | None = None) -> Seen:
    """What this process is, and what it sees of an order, or `known` of it.

    The worst that can happen is told, not raised.
    """
    try:
        backend = choose(order.machine.backend)
    except ValueError as error:
        return Seen(platform.node(), kernels.__version__, program_digest(), order.machine.backend, str(error))
    wrong = self_test(backend) or ""
    seen = Seen(platform.node(), kernels.__version__, program_digest(), backend.title, wrong)
    try:
        return replace(seen, identity=identity_digest(known or opened(order)))
    except StudioError as error:
        return replace(seen, trouble=f"{error}; {error.hint}" if error.hint else str(error))


def identity_digest(seen: Opened) -> str:
    """A digest of the source, of what is chosen for every layer, and of the shards that come of it."""
    if seen.export:
        return sha256(repr(identity(seen.export)).encode()).hexdigest()
    told = [(c.layer.name, c.recipe, c.layer.source.meaning, c.guide.meaning if c.guide else "") for c in seen.choices]
    files = [(file.path.name, file.fingerprint.size, file.fingerprint.version) for file in seen.model.files]
    return sha256(repr((told, files)).encode()).hexdigest()


@lru_cache(1)
def program_digest() -> str:
    """A digest of the text of this program as far as it decides what bytes are written."""
    root, digest = Path(__file__).resolve().parents[3], sha256()
    for path in sorted(path for part in PARTS for path in (root / part).rglob("*") if path.suffix in _TEXT):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


_TEXT = (".py", ".cpp", ".h")


def end(coordinator: int) -> None:
    """End this process, in which something hangs, unless it is that of the coordinator."""
    if os.getpid() != coordinator:
        os._exit(1)


def write_shard(order: Order, index: int, topic: str) -> Written:
    """Write, verify and note one shard of an export. Raises StudioError."""
    with _explained():
        export = opened(order).export
        assert export is not None
        planned, told = export.shards[index], _Told(topic, index)
        seconds = {"quantize": 0.0, "verify": 0.0}
        with _engine(order, export.choices) as engine, _folder(order, export) as folder:
            for event in told.follow(run_shard(engine, export, folder, planned, 0, seconds)):
                if isinstance(event, ShardWritten):
                    return Written(event.shard, event.nbytes, event.sha256, seconds)
    raise AssertionError("a shard without an end")


def measure_part(order: Order, names: Sequence[str], index: int, topic: str) -> list[LayerResult]:
    """Quantize some layers in memory; all that share a tensor scale must be among them. Raises StudioError."""
    with _explained():
        wanted = set(names)
        choices = [choice for choice in opened(order).choices if choice.layer.name in wanted]
        with _engine(order, choices) as engine:
            events = _Told(topic, index).follow(run(engine, choices, Sink()))
            return [event.result for event in events if isinstance(event, LayerDone)]


class _OfThisRun(StagedFolder):
    """The staging folder of a run, into which nothing is settled once it is that of another."""

    def __init__(self, path: Path, mark: str, run: dict[str, Any]) -> None:
        super().__init__(path, mark)
        self._run = json.loads(json.dumps(run))

    def settle(self, name: str) -> None:
        """See `StagedFolder.settle`; raises ExportError when another run has taken the folder."""
        journal = read_journal(self.path / JOURNAL) if self.path.is_dir() else None
        if journal is None or journal != self._run:
            raise ExportError("another run has taken this folder", file=self.path)
        super().settle(name)


@lru_cache(1)
def _run_of(order: Order) -> dict[str, Any]:
    """The identity of a run; some bytes of every file of the source are read for it."""
    export = opened(order).export
    assert export is not None
    return identity(export)


@contextmanager
def _folder(order: Order, export: Export) -> Iterator[StagedFolder]:
    """Where the shards of this run appear; what an attempt leaves that does not end is removed."""
    if isinstance(export.target, StorePath):
        with scratch_space(scratch_place(), SCRATCH) as scratch:
            yield StoredFolder(target_folder(export.target), scratch, _run_of(order))
        return
    folder, mark = staging_path(export.target), uuid4().hex
    try:
        yield _OfThisRun(folder, f".{mark}", _run_of(order))
    finally:
        for path in folder.glob(f"*.{mark}.tmp"):
            path.unlink(missing_ok=True)


@contextmanager
def _engine(order: Order, choices: Sequence[Choice]) -> Iterator[Engine]:
    with start(order.machine, opened(order).model) as engine:
        yield replace(engine, solved=_solved(order)) if any(c.method == "feedback" for c in choices) else engine


def _solved(order: Order) -> Solved:
    if not order.solved or not Path(order.solved).is_dir():
        what = "what error feedback solved is not seen from here"
        raise ExportError(what, file=order.solved or None, hint="the target must be on a folder that all workers share")
    return Solved(Path(order.solved))


@contextmanager
def _explained() -> Iterator[None]:
    """Errors go over the wire: places as text, and on which machine."""
    try:
        yield
    except StudioError as error:
        error.file = str(error.file) if error.file is not None else None
        error.what = f"{error.what} (on {platform.node()})"
        raise


class _Told:
    """Tells the coordinator how far a part is, and notices when it does not want it any more."""

    def __init__(self, topic: str, index: int) -> None:
        from distributed import get_worker

        self._worker, self._topic, self._index = get_worker(), topic, index
        self._key = self._worker.get_current_task()
        self._attempt = f"{platform.node()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._last = 0.0

    def follow(self, events: Iterator[Event]) -> Iterator[Event]:
        """The events; how far they are is told every `BEAT`, warnings at once."""
        self._tell(done=0, layer="")
        for event in events:
            match event:
                case Progress(_, done, layer) if time.monotonic() - self._last > BEAT:
                    self._check()
                    self._tell(done=done, layer=layer)
                case Warned(message):
                    self._tell(warning=message)
            yield event

    def _check(self) -> None:
        task = self._worker.state.tasks.get(self._key)
        if task is None or task.state == "cancelled":
            raise StoppedError("nobody waits for it any more")

    def _tell(self, **message: Any) -> None:
        self._last = time.monotonic()
        head = {"index": self._index, "attempt": self._attempt, "worker": self._worker.address}
        self._worker.log_event(self._topic, {**head, **message})
