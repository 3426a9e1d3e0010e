"""Crew: the worker processes of a run, checked to be alike, and the coordinator's side of what they do."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from studio.core.cluster import work
from studio.core.cluster.order import Order, opened
from studio.core.counting import counted
from studio.core.errors import BackendError
from studio.core.events import Event, Finished, LayerDone, Progress, ShardWritten, Started, Warned
from studio.core.exporting.shards import ShardPlan
from studio.core.exporting.staging import Staging
from studio.core.exporting.steps import shard_work
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
    """How far a part is, and which attempt that is."""

    done: int = 0
    attempt: str = ""
    lost: set[str] = field(default_factory=set)


class Crew:
    """Workers behind a client of Dask; `size` is how many there are when it is asked."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @property
    def size(self) -> int:
        """Number of workers now."""
        return len(self._client.scheduler_info(n_workers=-1)["workers"])

    def check(self, order: Order) -> None:
        """Raise BackendError, naming the worker, unless all are of this program, compute right and see the order."""
        here = work.examine(order)
        for address, seen in sorted(self._client.run(work.examine, order).items()):
            if trouble := _difference(here, seen):
                raise BackendError(f"worker {printable(address)} on {printable(seen.host)} {trouble}", hint=_HINT)

    def export(self, order: Order) -> Callable[[Staging, Sequence[ShardPlan], dict[str, float]], Iterator[Event]]:
        """What writes the shards of the order's export; see `studio.core.exporting.steps.Spread`."""

        def spread(staging: Staging, left: Sequence[ShardPlan], seconds: dict[str, float]) -> Iterator[Event]:
            export = opened(order).export
            assert export is not None
            index = {planned.name: i for i, planned in enumerate(export.shards)}
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
        """As `studio.core.jobs.measure`, on the workers."""
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
        try:
            while futures:
                message = _next(told)
                if isinstance(message, dict):
                    yield from _noted(message, standing, names)
                elif message is not None:
                    standing[message].done = names[message].work
                    yield _result(futures.pop(message), names[message])
                yield Progress(phase, sum(one.done for one in standing.values()), "")
        finally:
            self._client.cancel(list(futures.values()))
            self._client.unsubscribe_topic(topic)


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


def _difference(here: work.Seen, seen: work.Seen) -> str:
    """In what a worker is not as this process, "" when it is."""
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
