"""Crew: the worker processes of a run, checked to be alike, and the coordinator's side of what they do."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from studio.core.cluster import work
from studio.core.cluster.order import Opened, Order
from studio.core.counting import counted
from studio.core.errors import BackendError
from studio.core.events import Event, Finished, LayerDone, Progress, ShardWritten, Started, Warned
from studio.core.exporting.export import Export
from studio.core.exporting.shards import ShardPlan
from studio.core.exporting.staged_folder import StagedFolder
from studio.core.exporting.steps import Spread, shard_work
from studio.core.model import Model
from studio.core.names import printable
from studio.core.outcome import Outcome
from studio.core.planning.plan import Choice
from studio.core.running.engine import Engine, Sink
from studio.core.running.feedback import feed_forward
from studio.core.running.packed_results import PackedResults
from studio.core.running.pipeline import scopes
from studio.core.running.pipeline import work as work_of

WAIT = 30
"""Seconds in which a scheduler must answer and the first worker must be there."""

SILENCE = 900.0
"""Seconds without a word from a worker at work after which it is ended: it hangs."""

LOOK = 5.0
"""Seconds between two looks at the workers."""

_TURN = 0.2
_PARTS_PER_WORKER = 8
_SMALLEST_PART = 64 << 20


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a run: its index, its name for people, its work in bytes, what a worker is to do."""

    index: int
    name: str
    work: int
    submit: Callable[[str], Any]


@dataclass(slots=True)
class _Standing:
    """How far a part is, which attempt that is, which were lost, and when what worker was last heard of."""

    done: int = 0
    attempt: str = ""
    lost: set[str] = field(default_factory=set)
    worker: str = ""
    heard: float = 0.0


class Crew:
    """Workers behind a client of Dask; `size` is how many there are when it is asked."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @property
    def size(self) -> int:
        """Number of workers now."""
        return len(self._client.scheduler_info(n_workers=-1)["workers"])

    def check(self, order: Order, known: Opened) -> None:
        """Raise BackendError, naming the worker, unless all are of this program, compute right and see the order so."""
        here = work.examine(order, known)
        answers = self._client.run(work.examine, order, on_error="return")
        for address, seen in sorted(answers.items()):
            if isinstance(seen, OSError):
                continue  # it is gone already
            where = printable(address) + (f" on {printable(seen.host)}" if isinstance(seen, work.Seen) else "")
            if trouble := _difference(here, seen):
                raise BackendError(f"worker {where} {trouble}", hint=_HINT)

    def export(self, order: Order, job: Export) -> Spread:
        """What writes the shards of an export; see `Spread`. Raises BackendError for workers that can not."""
        self.check(order, Opened(job.model, job.choices, job))

        def spread(staging: StagedFolder, left: Sequence[ShardPlan], seconds: dict[str, float]) -> Iterator[Event]:
            index = {planned.name: i for i, planned in enumerate(job.shards)}
            parts = [self._shard(order, index[planned.name], planned) for planned in left]
            for event in self._run("quantize", parts):
                if isinstance(event, work.Written):
                    for phase, spent in event.seconds.items():
                        seconds[phase] += spent
                    record = staging.record(event.shard)
                    assert record is not None
                    yield from map(LayerDone, record.results())
                    yield ShardWritten(event.shard, event.nbytes, event.sha256)
                else:
                    yield event

        return spread

    def measure(self, started: Engine, order: Order, model: Model, choices: Sequence[Choice]) -> Iterator[Event]:
        """As `studio.core.jobs.measure`, on the workers. Raises BackendError for workers that can not."""
        self.check(order, Opened(model, tuple(choices), None))
        results = PackedResults(choices)
        with TemporaryDirectory(prefix="nvfp4-studio-") as folder:
            yield from feed_forward(started, model, choices, Path(folder), Sink())
            yield from self._measured(replace(order, solved=folder), choices, results)
        model.check_unchanged()
        yield Finished(Outcome(results, backend=f"{started.backend.title}, {counted(self.size, 'worker')}"))

    def _measured(self, order: Order, choices: Sequence[Choice], results: PackedResults) -> Iterator[Event]:
        yield Started("measure", work_of(choices), len(choices))
        parts = [self._layers(order, i, part) for i, part in enumerate(_parts(choices, self.size))]
        for event in self._run("quantize", parts):
            if not isinstance(event, list):
                yield event
                continue
            for result in event:
                results.add(result)
                yield LayerDone(result)

    def _shard(self, order: Order, index: int, planned: ShardPlan) -> _Part:
        def submit(topic: str) -> Any:
            return self._submit(planned.name, shard_work(planned), work.write_shard, order, index, topic)

        return _Part(index, planned.name, shard_work(planned), submit)

    def _layers(self, order: Order, index: int, choices: Sequence[Choice]) -> _Part:
        names, amount = [choice.layer.name for choice in choices], work_of(choices)

        def submit(topic: str) -> Any:
            return self._submit(f"part-{index}", amount, work.measure_part, order, names, index, topic)

        return _Part(index, f"the part from {printable(names[0])} on", amount, submit)

    def _submit(self, name: str, amount: int, function: Callable[..., Any], *arguments: Any) -> Any:
        """The largest first: what is begun last should be short."""
        key = f"nvfp4-studio-{name}-{uuid4().hex}"
        return self._client.submit(function, *arguments, key=key, pure=False, priority=amount)

    def _run(self, phase: Any, parts: Sequence[_Part]) -> Iterator[Any]:
        """Progress and warnings of the parts, and what each gives, in the order in which they end."""
        topic, told = f"nvfp4-studio-{uuid4().hex}", SimpleQueue[Any]()
        self._client.subscribe_topic(topic, lambda event: told.put(event[1]))
        ordered = sorted(parts, key=lambda part: -part.work)
        futures = {part.index: part.submit(topic) for part in ordered}
        standing, names = {part.index: _Standing() for part in parts}, {part.index: part for part in parts}
        for index, future in futures.items():
            future.add_done_callback(lambda _, index=index: told.put(index))
        watch = _Watch(self._client, standing, names)
        try:
            while futures:
                message, layer = _next(told), ""
                if isinstance(message, dict):
                    yield from _noted(message, standing, names)
                    layer = message.get("layer", "")
                elif message is not None:
                    standing[message].done = names[message].work
                    yield _result(futures.pop(message), names[message])
                yield from watch.look(list(futures))
                yield Progress(phase, sum(one.done for one in standing.values()), layer)
        finally:
            self._client.cancel(list(futures.values()))
            self._client.unsubscribe_topic(topic)


class _Watch:
    """Looks now and then whether there are workers, and whether any has been silent for so long that it hangs."""

    def __init__(self, client: Any, standing: dict[int, _Standing], parts: dict[int, _Part]) -> None:
        self._client, self._standing, self._parts = client, standing, parts
        self._looked, self._alone = time.monotonic(), False

    def look(self, open_parts: Sequence[int]) -> Iterator[Warned]:
        """Begin what hangs on another worker; says so, and that no worker is left."""
        now = time.monotonic()
        if now - self._looked < LOOK:
            return
        self._looked = now
        there = set(self._client.scheduler_info(n_workers=-1)["workers"])
        if not there and not self._alone:
            yield Warned("no worker is left; it goes on when there is one")
        self._alone = not there
        for index in open_parts:
            one = self._standing[index]
            if one.worker in there and now - one.heard > SILENCE:
                what = f"nothing was heard of its worker for {SILENCE:g} s, which is ended"
                yield Warned(f"{self._parts[index].name}: {what}")
                one.heard = now
                self._client.run(work.end, os.getpid(), workers=[one.worker], on_error="ignore")


def _next(told: "SimpleQueue[Any]") -> Any:
    try:
        return told.get(timeout=_TURN)
    except Empty:
        return None


def _noted(message: dict[str, Any], standing: dict[int, _Standing], names: dict[int, _Part]) -> Iterator[Warned]:
    one, part = standing[message["index"]], names[message["index"]]
    if message["attempt"] in one.lost or one.done == part.work:
        return
    if one.attempt and one.attempt != message["attempt"]:
        one.lost.add(one.attempt)
        host = printable(one.attempt.partition(":")[0])
        yield Warned(f"{part.name} begins again: its worker on {host} was lost")
    one.attempt, one.done = message["attempt"], message.get("done", one.done)
    one.worker, one.heard = message["worker"], time.monotonic()
    if warning := message.get("warning"):
        yield Warned(warning)


def _result(future: Any, part: _Part) -> Any:
    """What a part gives; raises what kept it from that."""
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        died = counted(error.allowed_failures + 1, "worker")
        hint = "look at their logs; if memory ran out, --max-memory bounds each"
        raise BackendError(f"{part.name} was given up: {died} died of it, one after the other", hint=hint) from None


def _difference(here: work.Seen, seen: Any) -> str:
    """In what a worker, or what it raised, is not as this process, "" when it is."""
    if not isinstance(seen, work.Seen):
        return f"does not run this program: {type(seen).__name__} {printable(seen, 200)}"
    if seen.version != here.version:
        return f"is of version {printable(seen.version)}, this is {here.version}"
    if seen.program != here.program:
        return "is of this version, but of another state of the program"
    if seen.self_test:
        return f"computes wrong: {printable(seen.self_test, 300)}"
    if seen.trouble:
        return f"can not begin: {printable(seen.trouble, 400)}"
    if seen.identity != here.identity:
        return "sees another source, or one that another program wrote to"
    return ""


_HINT = "every worker needs the same program, and the same source and target under the same path"


def _parts(choices: Sequence[Choice], workers: int) -> list[list[Choice]]:
    """The choices in order, cut so that there is work for all; those that share a tensor scale stay together."""
    room = max(work_of(choices) // (max(workers, 1) * _PARTS_PER_WORKER), _SMALLEST_PART)
    parts: list[list[Choice]] = [[]]
    for scope in scopes(choices):
        if parts[-1] and work_of(parts[-1]) + work_of(scope) > room:
            parts.append([])
        parts[-1] += scope
    return parts


@contextmanager
def crew(address: str = "", workers: int = 0) -> Iterator[Crew]:
    """The workers of a running scheduler at `address`, or so many processes on this machine, gone afterwards.

    Raises BackendError.
    """
    try:
        from distributed import Client, LocalCluster
    except ModuleNotFoundError as error:
        what = f"workers need the package {error.name}, which is not installed"
        raise BackendError(what, hint="pip install 'nvfp4-studio[cluster]'") from None
    with ExitStack() as stack:
        if not address:
            how = {"processes": True, "threads_per_worker": 1, "memory_limit": 0}
            quiet = {"silence_logs": logging.CRITICAL, "security": True, "dashboard_address": "127.0.0.1:0"}
            address = stack.enter_context(LocalCluster(n_workers=workers, **how, **quiet))
        yield Crew(_joined(stack, Client, address))


def _joined(stack: ExitStack, client: Any, address: Any) -> Any:
    try:
        joined = stack.enter_context(client(address, timeout=WAIT, set_as_default=False))
        joined.wait_for_workers(1, timeout=WAIT)
    except (OSError, ValueError, TimeoutError) as error:
        what = f"no scheduler with workers answers at {printable(address, 200)}: {printable(error, 200)}"
        raise BackendError(what, hint="start them: dask scheduler, then dask worker ADDRESS on each machine") from None
    return joined
