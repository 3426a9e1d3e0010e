"""Tasks: what the window asks of `studio.core`, as generators for the background thread."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from studio import core
from studio.gui.layers.proposals import Proposals

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Workers:
    """Who does the work: the workers of a scheduler of Dask, or so many processes here, or, for 0, this program.

    statistics: the file of statistics that they open with the checkpoint.
    """

    cluster: str = ""
    count: int = 0
    statistics: Path | None = None

    def __bool__(self) -> bool:
        return bool(self.cluster or self.count)

    def join(self, stack: ExitStack) -> Generator[Any, None, core.Workforce | None]:
        """The workers, which `stack` lets go; None for this program. Raises BackendError.

        It says that a scheduler is reached. One that does not answer is waited for half a minute, and keeps nobody who
        stops meanwhile.
        """
        if not self:
            return None
        if not self.cluster:
            return stack.enter_context(core.workforce(workers=self.count))
        yield Joining(self.cluster)
        for joined in core.aside(self._reach, "nvfp4-studio-workers", lambda found: found[1].close()):
            if joined is not None:
                stack.callback(joined[1].close)
                return joined[0]
            yield None
        raise AssertionError("workers are there, or an error")

    def _reach(self, tell: Callable[[tuple[core.Workforce, ExitStack]], None], _left: object) -> None:
        own = ExitStack()
        tell((own.enter_context(core.workforce(self.cluster)), own))

    def each(self, machine: core.Machine) -> core.Machine:
        """What each of them may use."""
        return machine.among(0 if self.cluster else self.count)


ALONE = Workers()


@dataclass(frozen=True, slots=True)
class Joining:
    """A scheduler is being reached, which may take a while."""

    address: str

    def __str__(self) -> str:
        return f"Reaching the scheduler at {core.printable(self.address, 60)} …"


def surveying(
    machine: core.Machine, model: core.Model, choices: Iterable[core.Choice], workers: Workers = ALONE
) -> Iterator[Any]:
    """Quantize in memory; yields the title of the backend, then the events of `core.survey`."""
    chosen = list(choices)
    together = core.rows_together(choice.recipe for choice in chosen)
    with core.start(machine, model, together) as engine, ExitStack() as stack:
        yield engine.backend.title
        crew = yield from workers.join(stack)
        spread = None
        if crew:
            spread = crew.spread(*core.choice_order(model, chosen, workers.each(machine), workers.statistics))
        yield from core.survey(engine, model, chosen, spread)


def exporting(machine: core.Machine, job: core.Export | core.GgufExport, workers: Workers = ALONE) -> Iterator[Any]:
    """Write and verify an export; yields the title of the backend, then the events of `core.export` or `write_gguf`."""
    with core.start(machine, job.model, core.rows_together(choice.recipe for choice in job.choices)) as engine:
        yield engine.backend.title
        if isinstance(job, core.GgufExport):
            yield from core.write_gguf(engine, job)
        else:
            yield from _written(engine, machine, job, workers)


def converting(machine: core.Machine, job: core.Export | core.GgufExport, workers: Workers = ALONE) -> Iterator[Any]:
    """Write and verify a conversion; yields the title of the backend, then events. A GGUF file takes no workers."""
    with core.start(machine, job.model) as engine, ExitStack() as stack:
        yield engine.backend.title
        if isinstance(job, core.GgufExport):
            yield from core.write_gguf(engine, job)
            return
        crew = yield from workers.join(stack)
        opened = core.Opened(job.model, job.choices, job)
        spread = crew.spread(core.conversion_order(job, workers.each(machine)), opened) if crew else None
        yield from core.export(engine, job, spread)


def exporting_lifted(
    machine: core.Machine, job: core.Export, arguments: dict[str, Any], workers: Workers = ALONE
) -> Iterator[Any]:
    """The same, after the events of `core.lift`, of what `core.prepare` makes of `arguments` lifted."""
    with core.start(machine, job.model, core.rows_together(choice.recipe for choice in job.choices)) as engine:
        yield engine.backend.title
        for event in core.lift(engine, job.model, job.choices):
            yield event
            if isinstance(event, core.Lifted):
                job = replace(core.prepare(**arguments, lifting=event.lifting), quality=job.quality)
        yield from _written(engine, machine, job, workers)


def _written(engine: core.Engine, machine: core.Machine, job: core.Export, workers: Workers) -> Iterator[Any]:
    with ExitStack() as stack:
        crew = yield from workers.join(stack)
        spread = None
        if crew:
            each = workers.each(machine)
            order = core.order_for(job.model, job.plan, job.choices, each, workers.statistics, job)
            spread = crew.spread(order, core.Opened(job.model, job.choices, job))
        yield from core.export(engine, job, spread)


def checking_export(arguments: dict[str, Any]) -> Iterator[Any]:
    """Check an export without writing.

    Yields four things: layout -> why it can not store the plan, "" when it can; the prepared `core.Export`, or the
    error that is in its way; why it can not be lifted, and why its inputs can not be quantized, "" when they can.
    """
    model, choices = arguments["model"], arguments["choices"]
    refusals = {
        name: "; ".join(core.fitted(layout, layout.readers[0], model, choices)[1][:2])
        for name, layout in core.LAYOUTS.items()
    }
    try:
        job = core.prepare(**arguments)
    except core.StudioError as error:
        yield refusals, error.with_traceback(None), "the checks come first", _without_inputs(**arguments)
    else:
        yield refusals, job, _unliftable(job), _without_inputs(**arguments)


def _without_inputs(
    model: core.Model, choices: Sequence[core.Choice], layout: core.Layout, reader: str = "", **_: Any
) -> str:
    """Why the inputs of layers in NVFP4 can not be quantized, "" when they can."""
    found, _refusals = core.fitted(layout, reader or layout.readers[0], model, choices)
    try:
        core.with_input_scales(found, layout, "fp4")
    except core.PlanError as error:
        return "; ".join(filter(None, (error.what, error.hint)))
    return ""


def _unliftable(job: core.Export) -> str:
    """Why no layer of an export can be lifted; "" when some can."""
    try:
        reached, *refused = core.liftable(job.model, job.choices)
    except core.PlanError as error:
        return error.what
    return "; ".join(refused) if reached.startswith("0 of ") else ""


Prospects = dict[str, tuple[bool, str]]
"""Target of a conversion -> whether it can be, and what would become of the layers, or why it can not."""


def proving(
    machine: core.Machine, model: core.Model, asked: tuple[str, str, str], prospects: Prospects
) -> Iterator[Any]:
    """Prove a conversion to (layout, runtime or "", dtype or "").

    Yields prospects unless they are known, the share that is proved, and last the proof or what is in its way.
    """
    if not prospects:
        yield {name: _prospect(model, target) for name, target in core.TARGETS.items()}
    try:
        with core.start(machine, model) as engine:
            yield (yield from _proof(engine, model, *asked))
    except core.StudioError as error:
        yield error.with_traceback(None)


def checking_conversion(model: core.Model, proved: core.Transcoding, arguments: dict[str, Any]) -> Iterator[Any]:
    """Check the target of a conversion without writing; yields the prepared export or the error that is in its way."""
    try:
        yield _prepared(model, proved, **arguments)
    except core.StudioError as error:
        yield error.with_traceback(None)


def _prospect(model: core.Model, target: core.Target) -> tuple[bool, str]:
    try:
        counts = core.prospect(model, target).counts()
    except core.StudioError as error:
        return False, f"Not this: {error.what}"
    said = counts | {"cast where that is exact": counts.pop("cast exactly")}
    return True, ", ".join(f"{count:,} {how}" for how, count in said.items() if count)


def _proof(
    engine: core.Engine, model: core.Model, layout: str, reader: str, dtype: str
) -> Generator[float, None, core.Transcoding]:
    total, shown, found = 1, 0.0, None
    for event in core.transcode(engine, model, core.TARGETS[layout], reader, dtype):
        if isinstance(event, core.Started):
            total = max(event.total, 1)
        elif isinstance(event, core.Progress) and event.done / total > shown + 0.01:
            yield (shown := event.done / total)
        elif isinstance(event, core.Transcoded):
            found = event.transcoding
    assert found is not None
    return found


def _prepared(
    model: core.Model,
    proved: core.Transcoding,
    asked: tuple[str, str, str],
    target: Path,
    *,
    overwrite: bool,
    restart: bool,
    shard_nbytes: int,
    allow_lossy: bool,
) -> core.Export | core.GgufExport:
    if not allow_lossy:
        proved.check()
    if asked[0] == core.GGUF.name:
        return core.prepare_gguf_conversion(model, proved, target, overwrite=overwrite)
    how = {"overwrite": overwrite, "restart": restart}
    layout, _ = core.layout_for(asked[0], asked[1])
    return core.prepare_conversion(model, proved, layout, target, shard_nbytes=shard_nbytes, **how)


def verifying(machine: core.Machine, folder: Path, source: core.Model | None) -> Iterator[Any]:
    """Check every byte and every weight of an export; yields the title of the backend, then events."""
    with core.start(machine, source) as engine:
        yield engine.backend.title
        yield from core.verify(engine, folder, source)


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What publishing an export would do."""

    job: core.Publication
    preview: core.Preview


def foreseeing(folder: Path, url: str, *, public: bool, overwrite: bool, base_model: str) -> Iterator[Foreseen | None]:
    """Check an export, and ask a hub what of it is there; yields None while it does not answer, and what was found."""
    job = core.publication(folder, url, public=public, overwrite=overwrite, base_model=base_model)
    for preview in core.preview(job):
        yield Foreseen(job, preview) if preview else None


def examining(folder: Path, source: Path | None) -> Iterator[core.Event]:
    """The events of `core.doctor`; `source` is opened to compare with."""
    with ExitStack() as stack:
        against = stack.enter_context(core.open_model(source)) if source else None
        yield from core.doctor(folder, against=against)


def repairing(machine: core.Machine, folder: Path, target: Path, source: Path | None) -> Iterator[Any]:
    """Write a repaired copy; yields the title of the backend, then the events of `core.repair`."""
    with ExitStack() as stack:
        against = stack.enter_context(core.open_model(source)) if source else None
        engine = stack.enter_context(core.start(machine, against))
        yield engine.backend.title
        yield from core.repair(engine, folder, target, against=against)


@dataclass(frozen=True, slots=True, eq=False)
class Priced:
    """What every option costs is known, and what that means in tokens, if probes told."""

    planner: core.Planner
    proposals: Proposals


PROBED = 8
"""Windows of the bundled text that probes are run on."""


def pricing(
    machine: core.Machine, model: core.Model, plan: core.Plan, layout: core.Target, reader: str, *, probe: bool
) -> Iterator[Any]:
    """Measure what every option of a layout costs; yields the title of the backend, events, and `Priced` at the end.

    probe: run what tells the meaning of damage in tokens; what was run before is known without.
    """
    decisions = core.decide(model, plan, layout, reader)
    with core.start(machine, model, core.rows_together(choice.recipe for choice in decisions.tried())) as engine:
        yield engine.backend.title
        costs = yield from core.price(engine, decisions)
        probing = core.Probing(costs, core.Reading((core.evaluation_text(),), PROBED))
        known = probing.known()
        if probe and known is None:
            known = yield from probing.run(engine, max_memory=machine.max_memory)
        yield Priced(core.Planner(costs, known), Proposals(costs))


@dataclass(frozen=True, slots=True)
class Distinct:
    """The names of the models that an evaluation runs."""

    names: tuple[str, ...]


def evaluating(
    machine: core.Machine,
    model: core.Model,
    plans: Sequence[tuple[str, core.Plan]],
    source: Path | None,
    reading: core.Reading,
) -> Iterator[Any]:
    """Run what plans make of a checkpoint, or, without one, an export, and its source, on a text.

    Yields the title of the backend, what is run as `Distinct`, and the events of `core.evaluate`. A text that is not
    named is the bundled one.
    """
    reading = replace(reading, texts=reading.texts or (core.evaluation_text(),))
    with ExitStack() as stack:
        origin = stack.enter_context(core.open_model(source)) if source else None
        engine = stack.enter_context(core.start(machine, origin or model))
        yield engine.backend.title
        candidates = [core.as_planned(model, plan, name) for name, plan in plans]
        chosen = yield from _distinct(candidates)
        yield Distinct(tuple(one.name for one in chosen) or (model.name,))
        base = model if plans else origin
        against = core.as_stored(base) if base else None
        run = chosen or [core.as_stored(model)]
        yield from core.evaluate(engine, against, run, reading, max_memory=machine.max_memory)


def _distinct(candidates: Sequence[core.Candidate]) -> Generator[core.Warned, None, list[core.Candidate]]:
    """Those that choose what none before them does; warns of the others."""
    found: dict[tuple[object, ...], core.Candidate] = {}
    for one in candidates:
        first = found.setdefault(tuple(choice.recipe for choice in one.choices), one)
        if first is not one:
            yield core.Warned(f"{one.name} chooses what {first.name} does, and is not run: {_WHY_SAME}")
    return list(found.values())


_WHY_SAME = "a method that needs statistics comes to another one without them, or in a format that does not take it"


def reporting_quality(folder: Path, quality: core.Quality, plans: Mapping[Path, core.Plan]) -> Iterator[Any]:
    """Write the report of an evaluation and its plans; yields the paths."""
    written = core.write_quality(folder, quality)
    for path, plan in plans.items():
        core.save_plan(plan, path)
    yield [*written, *plans]


def inspecting(machine: core.Machine, look: Callable[[core.Engine], core.Steps[T]]) -> Iterator[float | T]:
    """Look at something with an engine; yields the share that is done, after each step, and at last what was found."""
    with core.start(machine) as engine:
        yield (yield from look(engine))


def reading_exports(
    paths: Sequence[Path], machine: core.Machine | None = None, source: core.Model | None = None
) -> Iterator[list[core.LayerResult] | None]:
    """Read what exports say of their layers; yields the results of one after the other.

    What does not know its errors, as checkpoints of others and conversions, is decoded and compared with `source`, if
    there is one; None is yielded while that goes on.
    """
    for path in paths:
        if machine is None or source is None:
            yield core.exported_results(path)
        elif core.is_ours(path) and _all_measured(known := core.exported_results(path)):
            yield known
        else:
            yield from _measuring(path, machine, source)


def _all_measured(results: Sequence[core.LayerResult]) -> bool:
    return all(result.measured for result in results if result.quantized)


def _measuring(path: Path, machine: core.Machine, source: core.Model) -> Iterator[list[core.LayerResult] | None]:
    results = []
    with core.start(machine, source) as engine:
        for event in core.verify(engine, path, source):
            if isinstance(event, core.LayerDone):
                results.append(event.result)
            yield None
    yield results


def opening_other(path: Path, source: core.Model | None) -> Iterator[None]:
    """Check that a folder can be compared: an export, or, with `source`, any checkpoint. Raises StudioError."""
    if source is None or core.is_ours(path):
        core.exported_results(path)
    else:
        core.open_model(path).close()
    yield None


def deciding(model: core.Model, plans: Sequence[core.Plan]) -> Iterator[tuple[int, ...]]:
    """Which rules of plans decide for every layer; yields those of one after the other."""
    yield from (core.deciding_rules(plan, model) for plan in plans)


def reporting(
    folder: Path, model: core.Model, plan: core.Plan, outcome: core.Outcome, quality: core.Quality | None
) -> Iterator[Any]:
    """Write the report, with what an evaluation found; yields the paths."""
    yield core.write_reports(folder, model, plan, outcome, quality)
