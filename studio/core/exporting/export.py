"""export: from a model and a plan to a verified folder; stops anywhere, continues, and ends in the same bytes."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256 as sha256_of
from pathlib import Path
from typing import Any, NoReturn

import kernels
from studio.core.containers.files import SourceFile
from studio.core.containers.safetensors import Tensor, read_header
from studio.core.errors import CheckpointError, ExportError, PlanError
from studio.core.events import Event, Finished, LayerDone, Progress, Resumed, ShardWritten, Started, Warned
from studio.core.exporting.contents import MANIFEST, SUMS, Contents, sums
from studio.core.exporting.manifest import manifest
from studio.core.exporting.readback import StoredMatrix, chunks, sha256
from studio.core.exporting.shard_writer import ShardWriter
from studio.core.exporting.shards import SHARD_NBYTES, Item, Shard, plan_shards
from studio.core.exporting.staging import AGAIN, NoSpaceError, Staging
from studio.core.exporting.target import check_space, check_target
from studio.core.exporting.verification import Check, check_layers
from studio.core.layouts import LAYOUTS, Layout, fitted, layout_for
from studio.core.layouts.documents import code_left_out, json_document
from studio.core.layouts.fitting import changes
from studio.core.model import Model
from studio.core.names import printable
from studio.core.planning.plan import Choice, Plan, nothing_chosen
from studio.core.reporting.report import model_card
from studio.core.results import LayerResult, Outcome
from studio.core.running.engine import Engine
from studio.core.running.pipeline import run, work
from studio.core.running.tasks import Tasks, bundles
from studio.core.runtimes import Claim, claims

INDEX = "model.safetensors.index.json"
CARD = "README.md"
CONFIG = "config.json"


@dataclass(frozen=True, slots=True)
class Export:
    """An export that passed every check that can be made before the first weight is read."""

    model: Model
    plan: Plan
    choices: tuple[Choice, ...]
    layout: Layout
    target: Path
    shards: tuple[Shard, ...]
    documents: Mapping[str, bytes]
    reader: str = ""
    changes: tuple[str, ...] = ()
    overwrite: bool = False
    restart: bool = False
    replaced: Contents | None = None

    @property
    def cautions(self) -> list[str]:
        """What users of the export must know before they load it."""
        return [*self.layout.cautions(self.model, self.choices), *code_left_out(self.model)]

    @property
    def claims(self) -> tuple[Claim, ...]:
        """What is known of this export in each runtime."""
        return claims(self.model, self.choices, self.layout)

    @property
    def doubt(self) -> str:
        """What is known against the runtime that this export is written for, "" when nothing is."""
        named = zip(self.layout.readers, self.claims, strict=False)
        return next((str(claim) for name, claim in named if name == self.reader and claim.verdict == "fails"), "")

    @property
    def nbytes(self) -> int:
        """Bytes that the export will hold, manifest and digests left out."""
        beside = sum(len(content) for content in self.documents.values())
        side_files = sum(path.stat().st_size for path in self.model.side_files)
        return sum(shard.nbytes for shard in self.shards) + beside + side_files

    @property
    def work(self) -> int:
        """Bytes that the run reads, verification included."""
        verification = sum(choice.layer.nbytes + choice.nbytes for choice in self.choices)
        return work(self.choices) + verification


def prepare(
    model: Model,
    plan: Plan,
    choices: Sequence[Choice],
    layout: Layout,
    target: Path,
    *,
    overwrite: bool = False,
    restart: bool = False,
    reader: str = "",
    shard_nbytes: int = SHARD_NBYTES,
) -> Export:
    """Check an export for `reader`, by default the first that the layout names, and lay it out.

    Raises CheckpointError, PlanError or ExportError.
    """
    model.check_plain()
    layout, reader = layout_for(layout.name, reader)
    asked, (choices, refusals) = choices, fitted(layout, reader, model, choices)
    told = tuple(changes(asked, choices))
    if refusals:
        refuse(model, asked, layout, refusals)
    if why := nothing_chosen(choices):
        raise PlanError(f"there is nothing to quantize: {why}")
    place, replaced = check_target(target, model.path, overwrite=overwrite)
    shards = plan_shards(model, choices, layout, shard_nbytes)
    documents = layout.documents(model, choices)
    by_name = {choice.layer.name: choice for shard in shards for choice in shard.choices}
    exact = tuple(by_name[choice.layer.name] for choice in choices)
    export = Export(model, plan, exact, layout, place, shards, documents, reader, told, overwrite, restart, replaced)
    check_space(place, export.nbytes)
    return export


def refuse(model: Model, choices: Sequence[Choice], layout: Layout, refusals: Sequence[str]) -> NoReturn:
    """Raise PlanError with `refusals`, naming the layouts that can store the choices."""
    others = [other for other in LAYOUTS.values() if other.name != layout.name]
    able = [other.name for other in others if not fitted(other, other.readers[0], model, choices)[1]]
    hint = (
        f"layouts that store this plan: {', '.join(able)}"
        if able
        else "no layout stores this plan: change or keep them"
    )
    raise PlanError(printable("; ".join(refusals[:3]), 400), hint=hint)


def export(engine: Engine, job: Export) -> Iterator[Event]:
    """Run a prepared export. Closing the generator stops it; what is finished stays for the next run.

    What is finished stays too when the source can not be read or is refused, and the same run goes on with it.
    """
    staging = Staging(job.target)
    try:
        check_target(job.target, job.model.path, overwrite=job.overwrite)
        staging.begin(_identity(job), restart=job.restart)
        yield Started("quantize", job.work, len(job.choices), job.target)
        yield from _Run(engine, job, staging).events()
    except CheckpointError as error:
        if error.file is not None and Path(error.file).is_relative_to(staging.path):
            hint = "the disk did not keep what was written; run the same command again"
            raise ExportError(error.what, file=error.file, tensor=error.tensor, hint=hint) from None
        if staging.give_up():
            error.hint = f"{error.hint or 'mend the source'}; {AGAIN}"
        raise
    except NoSpaceError as error:
        raise error.needing(job.nbytes) from None
    finally:
        staging.close()


def _identity(job: Export) -> dict[str, Any]:
    """What two runs must have in common to share finished shards."""
    source = {
        file.path.name: [file.size, file.fingerprint.mtime_ns, sha256(file, 0, min(file.size, 1 << 20))]
        for file in job.model.files
    }
    return {
        "source": source,
        "plan": sha256_of(
            repr([(c.layer.name, c.recipe, c.layer.source.meaning) for c in job.choices]).encode()
        ).hexdigest(),
        "layout": job.layout.name,
        "division into shards": [[shard.name, sha256_of(shard.head).hexdigest()] for shard in job.shards],
        "version": kernels.__version__,
    }


@dataclass(slots=True)
class _Run:
    engine: Engine
    job: Export
    staging: Staging
    done: int = 0
    results: dict[str, LayerResult] = field(default_factory=dict)
    tensors: dict[str, dict[str, str]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: {"quantize": 0.0, "verify": 0.0})

    def events(self) -> Iterator[Event]:
        for shard in self.job.shards:
            if self._take_over(shard):
                yield Resumed(shard.name, shard.nbytes)
                yield from (LayerDone(self.results[choice.layer.name]) for choice in shard.choices)
            else:
                yield from self._timed("quantize", self._quantize(shard))
                yield from self._timed("verify", self._verify(shard))
                self._settle(shard)
                yield ShardWritten(shard.name, shard.nbytes, self.digests[shard.name])
        self.job.model.check_unchanged()
        self._write_documents()
        self._check_target()
        if left := self.staging.publish(overwrite=self.job.overwrite):
            yield Warned(f"{printable(left)} holds what was replaced and could not be removed")
        ordered = tuple(self.results[choice.layer.name] for choice in self.job.choices)
        job, backend = self.job, self.engine.backend.title
        yield Finished(Outcome(ordered, str(job.target), self.seconds, backend, job.layout.name, tuple(job.cautions)))

    def _check_target(self) -> None:
        """What happened at the target meanwhile must not go with it."""
        try:
            check_target(self.job.target, self.job.model.path, overwrite=self.job.overwrite)
        except ExportError as error:
            error.hint = "; ".join(part for part in (error.hint, AGAIN) if part)
            raise

    def _timed(self, phase: str, events: Iterator[Event]) -> Iterator[Event]:
        started = time.monotonic()
        yield from events
        self.seconds[phase] += time.monotonic() - started

    def _take_over(self, shard: Shard) -> bool:
        """True when an earlier run finished this shard and its bytes are still the ones it noted."""
        noted = self.staging.journal["shards"].get(shard.name)
        path = self.staging.path / shard.name
        if not noted or not path.exists():
            return False
        with SourceFile(path) as file:
            if file.size != shard.nbytes or sha256(file) != noted["sha256"]:
                return False
        self.digests[shard.name] = noted["sha256"]
        self.tensors[shard.name] = noted["tensors"]
        self.results |= {data["name"]: LayerResult.from_json(data) for data in noted["layers"]}
        self.done += _shard_work(shard)
        return True

    def _quantize(self, shard: Shard) -> Iterator[Event]:
        with ShardWriter(self.staging.temporary(shard.name), shard, self.job.layout) as sink:
            for event in run(self.engine, shard.choices, sink, self.done):
                if isinstance(event, LayerDone):
                    self.results[event.result.name] = event.result
                yield event
            sink.flush()
        self.done += work(shard.choices)

    def _verify(self, shard: Shard) -> Iterator[Event]:
        with SourceFile(self.staging.temporary(shard.name)) as file, Tasks(self.engine.pool) as tasks:
            header = read_header(file)
            whole = tasks.submit(sha256, file)
            digests = [tasks.submit(_digests, file, bundle) for bundle in bundles(header.tensors.values())]
            checks = [_check(item, self.results) for item in shard.items]
            for name, nbytes in check_layers(self.engine, file, header, self.job.layout, checks):
                self.done += nbytes
                yield Progress("verify", self.done, name)
            found = {name: digest for future in digests for name, digest in future.result().items()}
            self.tensors[shard.name] = dict(sorted(found.items()))
            self.digests[shard.name] = whole.result()

    def _settle(self, shard: Shard) -> None:
        self.staging.settle(shard.name)
        self.staging.journal["shards"][shard.name] = {
            "sha256": self.digests[shard.name],
            "tensors": self.tensors[shard.name],
            "layers": [self.results[choice.layer.name].to_json() for choice in shard.choices],
        }
        self.staging.save_journal()

    def _write_documents(self) -> None:
        job = self.job
        for name, path in zip(job.model.side_names, job.model.side_files, strict=True):
            with SourceFile(path) as file:
                self._write(name, (file.read(*piece) for piece in chunks(file.size)))
        if len(job.shards) > 1:
            self._write(INDEX, [json_document(_index(job.shards))])
        ordered = {choice.layer.name: self.results[choice.layer.name] for choice in job.choices}
        outcome = Outcome(tuple(ordered.values()), job.target.name)
        self._write(
            CARD, [model_card(job.model, job.plan, job.layout, outcome, [*job.changes, *job.cautions], job.claims)]
        )
        source = {file.path.name: {"nbytes": file.size} for file in job.model.files}
        self._write(MANIFEST, manifest(job.plan, job.layout, source, job.shards, self.tensors, ordered))
        documents = {name: content for name, content in job.documents.items() if name != CONFIG}
        for name, content in documents.items():
            self._write(name, [content])
        config = job.documents[CONFIG]
        self.digests[CONFIG] = sha256_of(config).hexdigest()
        self.staging.write_file(SUMS, [sums(self.digests)])
        self.staging.write_file(CONFIG, [config])

    def _write(self, name: str, chunks: Iterable[bytes | bytearray]) -> None:
        digest = sha256_of()

        def hashed() -> Iterator[bytes | bytearray]:
            for chunk in chunks:
                digest.update(chunk)
                yield chunk

        self.staging.write_file(name, hashed())
        self.digests[name] = digest.hexdigest()


def _digests(file: SourceFile, tensors: Sequence[Tensor]) -> dict[str, str]:
    return {tensor.name: sha256(file, tensor.start, tensor.nbytes) for tensor in tensors}


def _shard_work(shard: Shard) -> int:
    return work(shard.choices) + sum(choice.layer.nbytes + choice.nbytes for choice in shard.choices)


def _index(shards: Sequence[Shard]) -> dict[str, Any]:
    weight_map = {name: shard.name for shard in shards for name in shard.tensors}
    total = sum(tensor.nbytes for shard in shards for tensor in shard.tensors.values())
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}


def _check(item: Item, results: Mapping[str, LayerResult]) -> Check:
    layer, recipe = item.choice.layer, item.choice.recipe
    name = recipe.format.name if recipe else ""
    matrices = tuple(StoredMatrix(m.name, m.rows, m.columns, name, parts) for m, parts in item.matrices)
    return Check(results[layer.name], matrices, item.kept, layer)
