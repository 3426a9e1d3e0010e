"""Order: what a worker must know to do a part of a run by itself, small enough to be sent along with every part."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

from studio.core.errors import PlanError
from studio.core.exporting.export import Export, prepare
from studio.core.exporting.shards import SHARD_NBYTES
from studio.core.exporting.steps import feedback_folder
from studio.core.exporting.streaming import stream as hold_a_shard
from studio.core.exporting.streaming import stream_source
from studio.core.jobs import Machine
from studio.core.layouts import layout_for
from studio.core.model import Model
from studio.core.opening.checkpoint import open_model
from studio.core.planning.lifting import Lifting
from studio.core.planning.plan import Choice, Plan, plan_from_json, resolve
from studio.core.statistics import open_statistics, with_statistics
from studio.core.stores.urls import target_path

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Order:
    """A source, a plan and a target as every worker finds them: paths are the same on all machines.

    kept: layers that are kept though the plan takes them, and why. lifts: powers of two, None where nothing is lifted.
    target: "" where nothing is written. stream: one shard of the
    source at a time is held. run: no two runs have the same, so that what a worker keeps open is as new as the run.
    """

    source: str
    plan: str
    machine: Machine
    statistics: str = ""
    kept: Pairs = ()
    target: str = ""
    layout: str = ""
    reader: str = ""
    shard_nbytes: int = SHARD_NBYTES
    lifts: tuple[tuple[str, int], ...] | None = None
    overwrite: bool = False
    solved: str = ""
    stream: bool = False
    run: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """An order as one process sees it; `export` is None where nothing is written."""

    model: Model
    choices: tuple[Choice, ...]
    export: Export | None


def order_for(
    model: Model,
    plan: Plan,
    choices: Sequence[Choice],
    machine: Machine,
    statistics: Path | None = None,
    export: Export | None = None,
    shard_nbytes: int = SHARD_NBYTES,
    *,
    stream: bool = False,
) -> Order:
    """The order for `choices` of a plan, or for an export of them. Raises PlanError for what is no file of its own."""
    resolved = resolve(plan, model)
    kept = tuple((b.layer.name, b.reason) for a, b in zip(resolved, choices, strict=True) if a.recipe and not b.recipe)
    source = str(model.path.absolute())
    known = str(statistics.absolute()) if statistics else ""
    order = Order(source, json.dumps(plan.to_json()), machine, known, kept, run=uuid4().hex)
    if export is None:
        return order
    lifts = tuple(export.lifting.exponents.items()) if export.lifting.exponents else None
    return replace(
        order,
        target=str(export.target),
        layout=export.layout.name,
        reader=export.reader,
        shard_nbytes=shard_nbytes,
        lifts=lifts,
        overwrite=export.overwrite,
        solved=str(feedback_folder(export.target)),
        stream=stream,
    )


@lru_cache(1)
def opened(order: Order) -> Opened:
    """The source of an order opened and its plan resolved; kept until another order comes. Raises StudioError."""
    model = open_model(order.source)
    if order.stream:
        stream_source(model, order.shard_nbytes)
    if order.statistics:
        model = with_statistics(model, open_statistics(Path(order.statistics), model))
    plan = plan_from_json(json.loads(order.plan))
    choices = _without(resolve(plan, model), dict(order.kept))
    if not order.target:
        return Opened(model, choices, None)
    layout, reader = layout_for(order.layout, order.reader)
    lifting = Lifting(dict(order.lifts)) if order.lifts else None
    how = {"overwrite": order.overwrite, "reader": reader, "shard_nbytes": order.shard_nbytes, "lifting": lifting}
    export = prepare(model, plan, choices, layout, target_path(order.target), **how)  # type: ignore[arg-type]
    if order.stream:
        hold_a_shard(export)
    return Opened(model, export.choices, export)


def _without(choices: Sequence[Choice], kept: dict[str, str]) -> tuple[Choice, ...]:
    if strange := kept.keys() - {choice.layer.name for choice in choices}:
        raise PlanError("the source has no such layer", tensor=min(strange))
    return tuple(
        replace(choice, recipe=None, reason=kept[choice.layer.name]) if choice.layer.name in kept else choice
        for choice in choices
    )
