"""An export: from a model and a plan to what will be written, checked before the first weight is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from kernels import STORED
from studio.core.containers.files import SourceFile
from studio.core.errors import PlanError
from studio.core.exporting.contents import Contents
from studio.core.exporting.input_scales import with_input_scales
from studio.core.exporting.mlx_names import check_names
from studio.core.exporting.shards import SHARD_NBYTES, ShardPlan, plan_shards
from studio.core.exporting.target import check_space, check_target
from studio.core.layouts import LAYOUTS, Layout, Target, fitted, layout_for
from studio.core.layouts.documents import code_left_out
from studio.core.layouts.fitting import changes
from studio.core.model import Model
from studio.core.names import printable
from studio.core.opening.exports import check_decodable
from studio.core.planning.conversion import Transcoding
from studio.core.planning.described import formats_of, methods_of
from studio.core.planning.lifting import Lifting, lifted
from studio.core.planning.plan import KEEP, Choice, Plan, nothing_chosen
from studio.core.quality.results import Quality
from studio.core.running.pipeline import work
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
    shards: tuple[ShardPlan, ...]
    documents: Mapping[str, bytes]
    reader: str = ""
    changes: tuple[str, ...] = ()
    overwrite: bool = False
    restart: bool = False
    replaced: Contents | None = None
    lifting: Lifting = field(default_factory=Lifting)
    quality: Quality | None = None
    shard_nbytes: int = SHARD_NBYTES

    @property
    def cautions(self) -> list[str]:
        """What users of the export must know before they load it."""
        theirs = self.layout.cautions(self.model, self.choices)
        return [*theirs, *self.lifting.cautions, *code_left_out(self.model)]

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
        beside += sum(len(document.content) for document in self.model.documents)
        side_files = sum(SourceFile(path).size for path in self.model.side_files)
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
    lifting: Lifting | None = None,
) -> Export:
    """Check an export for `reader`, by default the first that the layout names, and lay it out, lifted if asked for.

    Raises CheckpointError, PlanError or ExportError.
    """
    check_decodable(model)
    check_names(model, layout)
    layout, reader = layout_for(layout.name, reader)
    asked, (choices, refusals) = choices, fitted(layout, reader, model, choices)
    told = tuple(changes(asked, choices))
    if refusals:
        refuse(model, asked, layout, refusals)
    if why := nothing_chosen(choices):
        raise PlanError(f"there is nothing to quantize: {why}")
    choices, lent = with_input_scales(choices, layout, plan.activations)
    told += tuple(lent)
    if lifting:
        _check_liftable(choices)
        model, choices = lifted(model, choices, lifting)
        told += tuple(lifting.sentences())
    place, replaced = check_target(target, model.path, overwrite=overwrite)
    how = (reader, told, overwrite, restart, replaced, lifting or Lifting())
    return _laid_out(model, plan, choices, layout, shard_nbytes, place, how)


def _check_liftable(choices: Sequence[Choice]) -> None:
    if any(choice.input_scales for choice in choices):
        what = "lifting divides inputs by powers of two, which their scales do not follow"
        raise PlanError(what, hint="leave --lift or --activations out")


def prepare_conversion(
    model: Model,
    transcoding: Transcoding,
    layout: Layout,
    target: Path,
    *,
    overwrite: bool = False,
    restart: bool = False,
    shard_nbytes: int = SHARD_NBYTES,
) -> Export:
    """Check what `transcode` decided for an export in `layout`, and lay it out. Raises PlanError or ExportError."""
    choices = transcoding.choices
    check_stores_any(layout, choices)
    place, replaced = check_target(target, model.path, overwrite=overwrite)
    how = (transcoding.reader, tuple(transcoding.sentences()), overwrite, restart, replaced, Lifting())
    plan = Plan((), KEEP, "convert", "codes as they were stored", method=STORED)
    return _laid_out(model, plan, choices, layout, shard_nbytes, place, how)


def check_stores_any(layout: Target, choices: Sequence[Choice]) -> None:
    """Raise PlanError for a layout of codes that holds none of what a conversion would store."""
    if layout.formats and not any(choice.recipe for choice in choices):
        what = f"nothing of it can be stored in the formats of {layout.title} as it is"
        raise PlanError(what, hint="--layout plain decodes it; quantize chooses new codes")


def _laid_out(
    model: Model,
    plan: Plan,
    choices: Sequence[Choice],
    layout: Layout,
    shard_nbytes: int,
    place: Path,
    how: tuple[str, tuple[str, ...], bool, bool, Contents | None, Lifting],
) -> Export:
    shards = plan_shards(model, choices, layout, shard_nbytes)
    documents = layout.documents(model, choices)
    by_name = {choice.layer.name: choice for shard in shards for choice in shard.choices}
    exact = tuple(by_name[choice.layer.name] for choice in choices)
    export = Export(model, plan, exact, layout, place, shards, documents, *how, shard_nbytes=shard_nbytes)
    check_space(place, export.nbytes)
    return export


def with_quality(job: Export, quality: Quality) -> Export:
    """The export with what an evaluation found of its formats and methods, for the model card.

    Raises PlanError for an evaluation of another model, or of other formats and methods.
    """
    own = formats_of(job.choices), methods_of(job.choices)
    rows = tuple(row for row in quality.models if (row.format, row.method) == own)
    if quality.source is None or quality.source.name != job.model.name:
        of = printable(quality.source.name) if quality.source else "a model without its source"
        raise PlanError(f"the evaluation is of {of}, not of {printable(job.model.name)}")
    if not rows:
        hint = "evaluate the same plan, with the same --layout"
        raise PlanError(f"the evaluation has no row for {own[0]} by {own[1]}", hint=hint)
    return replace(job, quality=replace(quality, models=rows))


def refuse(model: Model, choices: Sequence[Choice], layout: Target, refusals: Sequence[str]) -> NoReturn:
    """Raise PlanError with `refusals`, naming the layouts that can store the choices."""
    others = [other for other in LAYOUTS.values() if other.name != layout.name]
    able = [other.name for other in others if not fitted(other, other.readers[0], model, choices)[1]]
    hint = (
        f"layouts that store this plan: {', '.join(able)}"
        if able
        else "no layout stores this plan: change or keep them"
    )
    raise PlanError(printable("; ".join(refusals[:3]), 400), hint=hint)
