"""The three steps of an export: begin, shard after shard, publish; it stops anywhere, and ends in the same bytes.

A shard is finished when its record is there. Whoever finds all records publishes.
"""

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256 as sha256_of
from pathlib import Path
from typing import Any, Protocol

import kernels
from studio.core.containers.files import SourceFile
from studio.core.containers.safetensors import Header
from studio.core.errors import CheckpointError, ExportError
from studio.core.events import Event, Finished, LayerDone, Progress, Resumed, ShardWritten, Started, Warned
from studio.core.exporting.checks import Check, check_layers
from studio.core.exporting.documents import write_documents
from studio.core.exporting.export import Export
from studio.core.exporting.identity import choices_identity, source_identity
from studio.core.exporting.readback import StoredMatrix, sha256
from studio.core.exporting.records import Record, write_record
from studio.core.exporting.scratch_space import scratch_space
from studio.core.exporting.shard_writer import Agreed, ShardWriter
from studio.core.exporting.shards import Item, Shard, ShardPlan
from studio.core.exporting.staged_folder import SharedFolder, StagedFolder
from studio.core.exporting.staging import Staging, staging_path
from studio.core.exporting.stored_folder import SCRATCH, StoredFolder, scratch_place
from studio.core.exporting.stored_staging import StoredStaging
from studio.core.exporting.stored_target import target_folder
from studio.core.exporting.streaming import check_scratch, scratch_nbytes
from studio.core.exporting.target import check_target
from studio.core.exporting.writing import AGAIN, NoSpaceError
from studio.core.names import printable
from studio.core.outcome import Outcome
from studio.core.results import LayerResult
from studio.core.running.engine import Engine
from studio.core.running.feedback import feed_forward
from studio.core.running.packed_results import PackedResults
from studio.core.running.pipeline import run, work
from studio.core.running.solved import seen_solved
from studio.core.running.spread import Part, PartDone, Spread
from studio.core.running.tasks import Tasks
from studio.core.stores.store_path import StorePath, forget

AnyStaging = Staging | StoredStaging


def export(engine: Engine, job: Export, spread: Spread | None = None) -> Iterator[Event]:
    """Run a prepared export, its shards by `spread`, which has opened the same, where there is one.

    Closing the generator stops it; what is finished stays for the next run. It stays too when the source can not be
    read or is refused, and the same run goes on with it.
    """
    staging = staging_for(job.target)
    try:
        yield from staging.claim()
        begin(job, staging)
        aside, sink = feedback_folder(job.target), Agreed(job.layout)
        ready = yield from feed_forward(engine, job.model, job.choices, aside, sink)
        yield Started("quantize", job.work, len(job.choices), job.target)
        yield from _Run(ready, job, staging, PackedResults(job.choices), spread).events()
        if ready.solved:
            ready.solved.discard()
    except CheckpointError as error:
        if error.file is not None and Path(str(error.file)).is_relative_to(staging.path):
            hint = "the disk did not keep what was written; run the same command again; --restart discards what is left"
            raise ExportError(error.what, file=error.file, tensor=error.tensor, hint=hint) from None
        if staging.give_up():
            error.hint = f"{error.hint or 'mend the source'}; {AGAIN}"
        raise
    except NoSpaceError as error:
        raise error if isinstance(job.target, StorePath) else error.needing(job.nbytes) from None
    finally:
        staging.close()


def staging_for(target: Path) -> AnyStaging:
    """Where an export to `target` grows. Raises ExportError."""
    return StoredStaging(target_folder(target)) if isinstance(target, StorePath) else Staging(target)


def feedback_folder(target: Path) -> Path:
    """Where error feedback keeps what it solved before the shards of an export are written; on this machine."""
    if isinstance(target, StorePath):
        return scratch_place() / f"nvfp4-studio-{sha256_of(str(target).encode()).hexdigest()[:32]}.feedback"
    staging = staging_path(target)
    return staging.with_name(f"{staging.name}.feedback")


def begin(job: Export, staging: AnyStaging) -> None:
    """Take over what an earlier run of the same export finished, or start empty; raises ExportError."""
    check_target(job.target, job.model.path, overwrite=job.overwrite)
    if isinstance(job.target, StorePath):
        check_scratch(scratch_nbytes(job))
    staging.begin(identity(job), restart=job.restart)


def identity(job: Export) -> dict[str, Any]:
    """What two runs must have in common to share finished shards."""
    return {
        "source": source_identity(job.model),
        "plan": choices_identity(job.choices),
        "layout": job.layout.name,
        "division into shards": [[shard.name, shard.head] for shard in job.shards],
        "version": kernels.__version__,
    }


@dataclass(slots=True)
class _Run:
    engine: Engine
    job: Export
    staging: AnyStaging
    results: PackedResults
    spread: Spread | None = None
    done: int = 0
    digests: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: {"quantize": 0.0, "verify": 0.0})

    def events(self) -> Iterator[Event]:
        for event in self._elsewhere(self.spread) if self.spread else self._here():
            match event:
                case LayerDone(result):
                    self.results.add(result)
                case ShardWritten(shard, _, digest):
                    self.digests[shard] = digest
            yield event
        yield from self._publish()

    def _here(self) -> Iterator[Event]:
        for planned in self.job.shards:
            taken = take_over(self.staging, planned)
            if taken is None:
                yield from run_shard(self.engine, self.job, self.staging, planned, self.done, self.seconds)
            else:
                yield from self._resumed(planned, taken)
            self.done += shard_work(planned)

    def _elsewhere(self, spread: Spread) -> Iterator[Event]:
        left, solved = [], str(feedback_folder(self.job.target)) if self.engine.solved else ""
        for index, planned in enumerate(self.job.shards):
            if taken := take_over(self.staging, planned):
                yield from self._resumed(planned, taken)
                self.done += shard_work(planned)
            else:
                left.append(Part(planned.name, shard_work(planned), WriteShard(index, solved)))
        for event in spread.run("quantize", left):
            match event:
                case PartDone(_, written):
                    yield from self._written(written)
                case Progress():
                    yield replace(event, done=self.done + event.done)
                case _:
                    yield event

    def _written(self, written: "Written") -> Iterator[Event]:
        for phase, spent in written.seconds.items():
            self.seconds[phase] += spent
        record = self.staging.record(written.shard)
        if record is None:
            raise ExportError("was written by a worker, but is not seen here", file=self.job.target / written.shard)
        yield from map(LayerDone, record.results())
        yield ShardWritten(written.shard, written.nbytes, written.sha256)

    def _resumed(self, planned: ShardPlan, taken: Record) -> Iterator[Event]:
        yield Resumed(planned.name, planned.nbytes)
        yield from map(LayerDone, taken.results())

    def _publish(self) -> Iterator[Event]:
        job = self.job
        job.model.check_unchanged()
        self._check_records()
        write_documents(job, self.staging, self.results)
        yield from publish(job, self.staging)
        backend, cautions = self.engine.backend.title, tuple(job.cautions)
        yield Finished(Outcome(self.results, str(job.target), self.seconds, backend, job.layout.name, cautions))

    def _check_records(self) -> None:
        """Every shard must still be the one that this run wrote."""
        for shard, digest in self.digests.items():
            record = self.staging.record(shard)
            if record is None or record.sha256 != digest:
                raise ExportError("was replaced while the export ran", file=self.job.target / shard, hint=AGAIN)


def take_over(staging: StagedFolder, planned: ShardPlan) -> Record | None:
    """The record of a shard that an earlier run finished, if its bytes are still the ones that this noted."""
    record = staging.record(planned.name)
    if record is None or record.nbytes != planned.nbytes or not staging.holds(record):
        return None
    names = [choice.layer.name for choice in planned.choices]
    try:
        return record if [result.name for result in record.results()] == names else None
    except CheckpointError:
        return None


def run_shard(
    engine: Engine, job: Export, staging: StagedFolder, planned: ShardPlan, done: int, seconds: dict[str, float]
) -> Iterator[Event]:
    """Write a shard, verify it, and note that it is finished; progress counts on from `done` bytes.

    Adds what its phases take to `seconds`.
    """
    shard = planned.lay_out(job.model, job.layout)
    results: dict[str, LayerResult] = {}
    started = time.monotonic()
    with ShardWriter(staging.temporary(shard.name), shard, job.layout) as sink:
        for event in run(engine, planned.choices, sink, done):
            if isinstance(event, LayerDone):
                results[event.result.name] = event.result
            yield event
        sink.flush()
    written = time.monotonic()
    digest = yield from _verify(engine, job, staging, shard, results, done + work(planned.choices))
    staging.settle(shard.name)
    staging.write_record(shard.name, write_record(shard, digest, results))
    forget(job.model.path)
    seconds["quantize"] += written - started
    seconds["verify"] += time.monotonic() - written
    yield ShardWritten(shard.name, shard.nbytes, digest)


def _verify(
    engine: Engine, job: Export, staging: StagedFolder, shard: Shard, results: Mapping[str, LayerResult], done: int
) -> Generator[Event, None, str]:
    with SourceFile(staging.temporary(shard.name)) as file, Tasks(engine.pool) as tasks:
        whole = tasks.submit(sha256, file)
        if file.read(0, len(shard.head)) != shard.head:
            raise CheckpointError("its header is not the one that was written", file=file.path)
        header, checks = Header(dict(shard.tensors), {}), map(partial(_check, results=results), shard.items)
        for name, nbytes in check_layers(engine, file, header, job.layout, list(checks)):
            done += nbytes
            yield Progress("verify", done, name)
        return whole.result()


class Opened(Protocol):
    """What a process that writes shards has opened."""

    @property
    def export(self) -> Export:
        """The export that they are of."""
        ...

    @property
    def run(self) -> Mapping[str, Any]:
        """Its `identity`."""
        ...


@dataclass(frozen=True, slots=True)
class Written:
    """A shard that another process finished: its name, bytes, SHA-256, and how long its phases took."""

    shard: str
    nbytes: int
    sha256: str
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class WriteShard:
    """Writes, verifies and notes the shard of this index; `solved`: where error feedback put what it solved."""

    index: int
    solved: str = ""

    def steps(self, engine: Engine, opened: Opened) -> Generator[Event, None, Written]:
        """See `studio.core.running.spread.Task`. Raises StudioError."""
        job = opened.export
        ready = replace(engine, solved=seen_solved(self.solved)) if self.solved else engine
        seconds = {"quantize": 0.0, "verify": 0.0}
        with _folder(job, opened.run) as folder:
            for event in run_shard(ready, job, folder, job.shards[self.index], 0, seconds):
                yield event
                if isinstance(event, ShardWritten):
                    return Written(event.shard, event.nbytes, event.sha256, seconds)
        raise AssertionError("a shard without an end")


@contextmanager
def _folder(job: Export, run: Mapping[str, Any]) -> Iterator[StagedFolder]:
    """Where another process puts the shards of a run; what an attempt leaves that does not end is removed."""
    if isinstance(job.target, StorePath):
        with scratch_space(scratch_place(), SCRATCH) as scratch:
            yield StoredFolder(target_folder(job.target), scratch, dict(run))
        return
    with SharedFolder(staging_path(job.target), run).swept() as folder:
        yield folder


def shard_work(shard: ShardPlan) -> int:
    """Bytes that writing and verifying a shard reads."""
    return work(shard.choices) + sum(choice.layer.nbytes + choice.nbytes for choice in shard.choices)


def _check(item: Item, results: Mapping[str, LayerResult]) -> Check:
    layer, recipe = item.choice.layer, item.choice.recipe
    name = recipe.format.name if recipe else ""
    matrices = tuple(StoredMatrix(m.name, m.rows, m.columns, name, parts) for m, parts in item.matrices)
    return Check(results[layer.name], matrices, item.kept, layer)


def publish(job: Export, staging: AnyStaging) -> Iterator[Event]:
    """Give the folder, in which every file is whole, the name of the target."""
    try:  # what happened at the target meanwhile must not go with it
        check_target(job.target, job.model.path, overwrite=job.overwrite)
    except ExportError as error:
        error.hint = "; ".join(part for part in (error.hint, AGAIN) if part)
        raise
    if left := staging.publish(overwrite=job.overwrite):
        yield Warned(f"{printable(left)} holds what was replaced and could not be removed")
