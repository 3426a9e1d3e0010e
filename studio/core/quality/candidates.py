"""Candidates: what an evaluation runs, and how each becomes a folder that a runtime loads."""

import os
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.core.architectures.config import number
from studio.core.counting import amount_text, size_text
from studio.core.errors import CheckpointError, MemoryLimitError, PlanError
from studio.core.events import Event, LayerDone, Progress, Warned
from studio.core.exporting.decoded import (
    matched,
    planned_nbytes,
    write_alone,
    write_beside,
    write_exported,
    write_input_scales,
    write_planned,
)
from studio.core.exporting.export import refuse
from studio.core.exporting.input_scales import with_input_scales
from studio.core.exporting.shard_writer import Agreed
from studio.core.layouts import LAYOUTS, Layout, fitted, layout_for
from studio.core.layouts.documents import CODE, config_without_quantization
from studio.core.model import Model
from studio.core.opening.export_sources import Packed
from studio.core.opening.exports import exported, is_exported
from studio.core.outcome import Outcome
from studio.core.planning.described import formats_of, methods_of
from studio.core.planning.plan import Choice, Plan, nothing_chosen, resolve
from studio.core.quality.window_records import identity
from studio.core.results import finite
from studio.core.running.engine import Engine, Sink
from studio.core.running.feedback import feed_forward
from studio.core.running.packed_results import PackedResults
from studio.core.running.pipeline import PipelineEvent
from studio.core.sources.declared import BESIDE
from studio.core.statistics.digest import choices_digest

Facts = dict[str, Any]
"""`rel_err` and `bits_per_weight` of a candidate, where something is quantized."""


_BASE_MEMORY = 700 << 20
"""Bytes of an interpreter with transformers: 430 MB were measured before any model."""

_PREDICTIONS = 4
"""Arrays [length, words] of float32 that are in memory at once."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A model to be evaluated: a checkpoint, an export of ours, or what a plan makes of a checkpoint.

    choices, plan, layout: of a plan; `layout` is None where no export is thought of.
    """

    name: str
    model: Model
    choices: tuple[Choice, ...] = ()
    plan: Plan | None = None
    layout: Layout | None = None

    @property
    def format(self) -> str:
        """The formats that it holds, the one of most weights first; the dtype of the weights of a plain one."""
        if found := formats_of(self._chosen):
            return found
        counts: Counter[str] = Counter()
        for layer in self.model.layers:
            counts[layer.tensor.dtype] += layer.count
        return next((name for name, _ in counts.most_common(1)), "")

    @property
    def method(self) -> str:
        """How the codes were chosen, that of most weights first; "" where nothing is quantized."""
        return methods_of(self._chosen)

    @property
    def guide(self) -> str:
        """What told of the inputs of its layers, where a method asked: "norm", "statistics" or both."""
        known = exported(self.model) if not self.plan else None
        found = (
            {result.guide for result in known.results} if known else {c.guide.origin for c in self._chosen if c.guide}
        )
        return ", ".join(sorted(filter(None, found)))

    @property
    def predicted(self) -> float | None:
        """The KL that its plan says it has; None where it says none, or of other weights than these."""
        told = self.plan.prediction if self.plan else None
        if told is None or told.weights != choices_digest(self.choices, self.model):
            return None
        return told.kl

    @property
    def _chosen(self) -> list[Choice]:
        known = exported(self.model) if not self.plan else None
        return [choice for choice in (known.choices if known else self.choices) if choice.recipe]

    def key(self) -> dict[str, Any]:
        """What tells it from others."""
        plan = self.plan.to_json() if self.plan else None
        guides = sorted({choice.guide.meaning for choice in self._chosen if choice.guide}) if self.plan else []
        layout = self.layout.name if self.layout else None
        rounded = any(choice.rounds_inputs for choice in self._chosen)
        return {"model": identity(self.model), "plan": plan, "layout": layout, "guides": guides, "rounded": rounded}


def as_stored(model: Model, name: str = "") -> Candidate:
    """A checkpoint as it is stored. Raises CheckpointError when it is quantized by another program."""
    if not is_exported(model):
        model.check_plain()
    return Candidate(name or model.name, model)


def as_planned(model: Model, plan: Plan, name: str = "", layout: str = "", reader: str = "") -> Candidate:
    """What a plan makes of a checkpoint; with the weights of an export in `layout` for `reader` where one is named.

    Raises PlanError for a plan that quantizes nothing or that the layout can not store.
    """
    model.check_plain()
    choices, row = resolve(plan, model), None
    if layout or reader:
        row, reader = layout_for(layout, reader)
        asked, (choices, refusals) = choices, fitted(row, reader, model, choices)
        if refusals:
            refuse(model, asked, row, refusals)
    if why := nothing_chosen(choices):
        raise PlanError(f"there is nothing to quantize: {why}")
    if plan.activations or row:
        row = row or next(layout for layout in LAYOUTS.values() if layout.input_scale)
        choices, _ = with_input_scales(choices, row, plan.activations)
    return Candidate(name or plan.title or plan.name or "custom plan", model, choices, plan, row)


def check(candidate: Candidate, source: Model | None) -> None:
    """Raise CheckpointError for an export that was not made from `source`, and for an export as a source."""
    if source and is_exported(source):
        hint = "give the checkpoint that it was made from"
        raise CheckpointError("an export is no source to compare with", file=source.path, hint=hint)
    if source and is_exported(candidate.model):
        matched(source, candidate.model)


def only_runtime(source: Candidate | None, candidates: Sequence[Candidate]) -> str:
    """The runtime that alone loads the names of a layout, where an export is run in those; "" for any."""
    alone = [] if source else [known for candidate in candidates if (known := exported(candidate.model))]
    return "mlx-lm" if any(known.layout.name == "mlx" for known in alone) else ""


def decoded_nbytes(candidate: Candidate) -> int:
    """Bytes of disk that its decoded weights take while it runs; 0 for one that runs from where it is."""
    if candidate.plan:
        return planned_nbytes(candidate.choices)
    if runs_as_it_is(candidate.model):
        return 0
    layers = candidate.model.layers
    return sum(4 * layer.count if isinstance(layer.source, Packed) else layer.kept_nbytes for layer in layers)


def check_memory(models: Sequence[Model], length: int, limit: int) -> Iterator[Warned]:
    """Raise MemoryLimitError when running these models at once takes more than `limit` bytes (0: no limit).

    Warns of what is more than the machine has: it would swap.
    """
    words = max(number(model.config, "vocab_size") for model in models)
    need = _BASE_MEMORY + sum(4 * model.count for model in models) + _PREDICTIONS * 4 * words * length
    if limit and need > limit:
        what = f"running it in float32 takes {amount_text(need)} of memory, {amount_text(limit)} are allowed"
        raise MemoryLimitError(what, file=models[0].path, hint="a smaller --length, or a larger --max-memory")
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if need > here:
        sizes = f"{size_text(need)} of memory, this machine has {size_text(here)}"
        yield Warned(f"running it in float32 takes {sizes}: it will be slow")


def runs_as_it_is(model: Model) -> bool:
    """True for a folder that a runtime loads as the model that we see in it."""
    if is_exported(model) or not model.path.is_dir() or (model.folder / BESIDE).exists() or model.container == "gguf":
        return False
    configs = (model.config, config_without_quantization(model))
    said, plain = ({key: value for key, value in config.items() if key != CODE} for config in configs)
    return said == plain and not any(layer.widened for layer in model.layers)


def reading_folder(model: Model, scratch: Path) -> Path:
    """The folder whose config and tokenizer count: where the model lies, or one in `scratch` where no runtime reads it.

    Raises CheckpointError when the model does not tell what is in it.
    """
    if model.container != "gguf":
        return model.folder
    folder = scratch / "reading"
    write_beside(folder, model)
    return folder


def prepare(
    started: Engine, candidate: Candidate, source: Model | None, folder: Path, aside: Path, done: int = 0
) -> Generator[Progress | Warned, None, tuple[Path, Facts]]:
    """Write what a runtime is to load into `folder` where that is needed; gives the folder to load, and facts.

    What error feedback solves lies in `aside`, where a stopped run goes on. Progress stays at `done` meanwhile.
    """
    model, known = candidate.model, exported(candidate.model)
    if candidate.plan:
        results = PackedResults(candidate.choices)
        sink = Agreed(candidate.layout) if candidate.layout else Sink()
        ready = yield from _solved(feed_forward(started, model, candidate.choices, aside, sink), done)
        yield from _shown(write_planned(ready, model, candidate.choices, folder, candidate.layout), done, results)
        write_input_scales(folder, candidate.choices)
        return folder, _facts(Outcome(results))
    if known:
        written = write_exported(started, source, model, folder) if source else write_alone(started, model, folder)
        yield from _shown(written, done)
        write_input_scales(folder, known.choices)
        return folder, _facts(Outcome(known.results))
    if runs_as_it_is(model):
        return model.folder, {}
    kept = tuple(Choice(layer, None) for layer in model.layers)
    yield from _shown(write_planned(started, model, kept, folder), done)
    return folder, {}


def _shown(
    events: Iterator[PipelineEvent], done: int, results: PackedResults | None = None
) -> Iterator[Progress | Warned]:
    """What is shown while a decoded model is written: its warnings, and which layer is at hand."""
    for event in events:
        if isinstance(event, LayerDone) and results is not None:
            results.add(event.result)
        yield from _told(event, done)


def _solved(events: Generator[Event, None, Engine], done: int) -> Generator[Progress | Warned, None, Engine]:
    """The same for what is solved before; gives the engine that has it."""
    with closing(events):
        while True:
            try:
                event = next(events)
            except StopIteration as ended:
                ready: Engine = ended.value
                return ready
            yield from _told(event, done)


def _told(event: Event, done: int) -> Iterator[Progress | Warned]:
    match event:
        case Warned():
            yield event
        case Progress(_, _, layer):
            yield Progress("evaluate", done, layer)


def _facts(outcome: Outcome) -> Facts:
    return {"rel_err": finite(outcome.rel_err), "bits_per_weight": outcome.bits_per_weight}
