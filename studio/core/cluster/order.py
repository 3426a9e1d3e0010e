"""Order: what a worker must know to open what a job works on by itself, small enough to go along with every part."""

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from kernels import recipe
from studio.core.containers.files import SourceFile
from studio.core.errors import PlanError
from studio.core.exporting.export import Export, prepare, prepare_conversion
from studio.core.exporting.shards import SHARD_NBYTES
from studio.core.exporting.steps import identity
from studio.core.exporting.streaming import stream as hold_a_shard
from studio.core.exporting.streaming import stream_source
from studio.core.exporting.verification import ToVerify, opened_to_verify
from studio.core.findings.doctor import Patient, opened_to_examine
from studio.core.jobs import Machine
from studio.core.layouts import layout_for
from studio.core.model import Model
from studio.core.opening.checkpoint import open_model
from studio.core.planning.conversion import Transcoding
from studio.core.planning.lifting import Lifting
from studio.core.planning.plan import Choice, Plan, plan_from_json, resolve
from studio.core.statistics import open_statistics, with_statistics
from studio.core.stores.urls import place_of, target_path

Pairs = tuple[tuple[str, str], ...]


class Order(Protocol):
    """What a job works on, as every worker finds it: paths are the same on all machines.

    It is hashable, and no two runs have an equal one, so that what a worker keeps open is as new as the run.
    """

    def __hash__(self) -> int: ...

    @property
    def machine(self) -> Machine:
        """What a worker may use."""
        ...

    def open(self) -> Any:
        """What tasks work on. Raises StudioError."""
        ...

    def model(self, opened: Any) -> Model | None:
        """The model whose layers decide how much memory an engine takes."""
        ...

    def identity(self, opened: Any) -> object:
        """What must be the same for all who opened it."""
        ...


@dataclass(frozen=True)
class Opened:
    """A model, and what is chosen for its layers."""

    model: Model
    choices: tuple[Choice, ...] = ()
    written: Export | None = None

    @property
    def export(self) -> Export:
        """The export of it that is to be written."""
        assert self.written is not None
        return self.written

    @cached_property
    def run(self) -> dict[str, Any]:
        """The identity of the export; some bytes of every file of the source are read for it, once."""
        return identity(self.export)


def _run() -> str:
    return uuid4().hex


def _seen(opened: Opened) -> object:
    """What all see of a model, of what is chosen for every layer, and of the shards that come of it."""
    if opened.written:
        return opened.run
    told = [
        (c.layer.name, c.recipe, c.layer.source.meaning, c.guide.meaning if c.guide else "") for c in opened.choices
    ]
    return told, _files(opened.model)


def _files(model: Model | None) -> list[tuple[str, int, object]]:
    return [_file(file) for file in model.files] if model else []


def _file(file: SourceFile) -> tuple[str, int, object]:
    return file.path.name, file.fingerprint.size, file.fingerprint.version


@dataclass(frozen=True, slots=True)
class PlanOrder:
    """A source and a plan, and, unless `target` is "", an export of both.

    kept: layers that are kept though the plan takes them, and why. lifts: powers of two, None where nothing is lifted.
    stream: one shard of the source at a time is held.
    """

    machine: Machine
    source: str
    plan: str
    statistics: str = ""
    kept: Pairs = ()
    target: str = ""
    layout: str = ""
    reader: str = ""
    shard_nbytes: int = SHARD_NBYTES
    lifts: tuple[tuple[str, int], ...] | None = None
    overwrite: bool = False
    stream: bool = False
    run: str = ""

    def open(self) -> Opened:
        """The source opened and the plan resolved. Raises StudioError."""
        model = _with_statistics(_source(self), self.statistics)
        plan = plan_from_json(json.loads(self.plan))
        choices = _without(resolve(plan, model), dict(self.kept))
        if not self.target:
            return Opened(model, choices)
        layout, reader = layout_for(self.layout, self.reader)
        export = prepare(
            model,
            plan,
            choices,
            layout,
            target_path(self.target),
            overwrite=self.overwrite,
            reader=reader,
            shard_nbytes=self.shard_nbytes,
            lifting=Lifting(dict(self.lifts)) if self.lifts else None,
        )
        return _held(self, Opened(model, export.choices, export))

    def model(self, opened: Opened) -> Model:
        """See `Order.model`."""
        return opened.model

    def identity(self, opened: Opened) -> object:
        """See `Order.identity`."""
        return _seen(opened)


def order_for(
    model: Model,
    plan: Plan,
    choices: Sequence[Choice],
    machine: Machine,
    statistics: Path | None = None,
    export: Export | None = None,
    *,
    stream: bool = False,
) -> PlanOrder:
    """The order for `choices` of a plan, or for an export of them. Raises PlanError for what is no file of its own."""
    resolved = resolve(plan, model)
    kept = tuple((b.layer.name, b.reason) for a, b in zip(resolved, choices, strict=True) if a.recipe and not b.recipe)
    known = str(statistics.absolute()) if statistics else ""
    order = PlanOrder(machine, _place(model), json.dumps(plan.to_json()), known, kept, run=_run())
    if export is None:
        return order
    return replace(
        order,
        target=str(export.target),
        layout=export.layout.name,
        reader=export.reader,
        shard_nbytes=export.shard_nbytes,
        lifts=tuple(export.lifting.exponents.items()) if export.lifting.exponents else None,
        overwrite=export.overwrite,
        stream=stream,
    )


def _place(model: Model) -> str:
    return str(model.path.absolute())


def _without(choices: Sequence[Choice], kept: dict[str, str]) -> tuple[Choice, ...]:
    if strange := kept.keys() - {choice.layer.name for choice in choices}:
        raise PlanError("the source has no such layer", tensor=min(strange))
    return tuple(
        replace(choice, recipe=None, reason=kept[choice.layer.name]) if choice.layer.name in kept else choice
        for choice in choices
    )


@dataclass(frozen=True, slots=True)
class ConversionOrder:
    """A source, and, unless `target` is "", the export that a conversion makes of it.

    decided: what becomes of every layer, in the order of the source, packed. stream: one shard of the source at a time
    is held.
    """

    machine: Machine
    source: str
    target: str = ""
    layout: str = ""
    reader: str = ""
    decided: bytes = b""
    shard_nbytes: int = SHARD_NBYTES
    overwrite: bool = False
    stream: bool = False
    run: str = ""

    def open(self) -> Opened:
        """The source opened, and the conversion laid out. Raises StudioError."""
        model = _source(self)
        if not self.target:
            return Opened(model)
        choices = tuple(_unpacked(self.decided, model))
        export = prepare_conversion(
            model,
            Transcoding(choices, reader=self.reader),
            layout_for(self.layout, self.reader)[0],
            target_path(self.target),
            overwrite=self.overwrite,
            shard_nbytes=self.shard_nbytes,
        )
        return _held(self, Opened(model, export.choices, export))

    def model(self, opened: Opened) -> Model:
        """See `Order.model`."""
        return opened.model

    def identity(self, opened: Opened) -> object:
        """See `Order.identity`."""
        return _seen(opened)


def proof_order(model: Model, machine: Machine) -> ConversionOrder:
    """The order for what a conversion reads before it is decided."""
    return ConversionOrder(machine, _place(model), run=_run())


def _source(order: PlanOrder | ConversionOrder) -> Model:
    model = open_model(order.source)
    return stream_source(model, order.shard_nbytes) if order.stream else model


def _held(order: PlanOrder | ConversionOrder, opened: Opened) -> Opened:
    """What is opened, of whose source a shard at a time is held, if that is wanted."""
    if order.stream:
        hold_a_shard(opened.export)
    return opened


def conversion_order(export: Export, machine: Machine, *, stream: bool = False) -> ConversionOrder:
    """The order for an export of `prepare_conversion`."""
    how = (export.layout.name, export.reader, _packed(export.choices), export.shard_nbytes, export.overwrite)
    return ConversionOrder(machine, _place(export.model), str(export.target), *how, stream=stream, run=_run())


def _packed(choices: Sequence[Choice]) -> bytes:
    """What is decided for layers in order: the kinds of decisions, which is whose, and the numbers of each."""
    kinds: dict[tuple[object, ...], int] = {}
    which = [kinds.setdefault(_decision(choice), len(kinds)) for choice in choices]
    numbers = [[*choice.multipliers, *choice.input_scales] for choice in choices]
    return zlib.compress(json.dumps([list(kinds), which, numbers]).encode())


def _decision(choice: Choice) -> tuple[object, ...]:
    """All of a choice but its layer, its numbers and the rule."""
    chosen = (choice.recipe.format.name, choice.recipe.exponent, choice.recipe.method) if choice.recipe else None
    return chosen, choice.layer.kept_as, choice.reason, len(choice.multipliers), choice.rounds_inputs


def _unpacked(decided: bytes, model: Model) -> Iterator[Choice]:
    kinds, which, numbers = json.loads(zlib.decompress(decided))
    if len(which) != len(model.layers):
        raise PlanError(f"the source has {len(model.layers):,} layers here, elsewhere {len(which):,}")
    for layer, kind, found in zip(model.layers, which, numbers, strict=True):
        chosen, kept_as, reason, count, rounds = kinds[kind]
        made = recipe(*chosen) if chosen else None
        first, rest = tuple(found[:count]), tuple(found[count:])
        told = replace(layer, kept_as=kept_as)
        yield Choice(told, made, reason, multipliers=first, input_scales=rest, rounds_inputs=rounds)


@dataclass(frozen=True, slots=True)
class ChoiceOrder:
    """A source, and what is chosen for its layers, packed, whatever plan that comes from."""

    machine: Machine
    source: str
    decided: bytes
    statistics: str = ""
    run: str = ""

    def open(self) -> Opened:
        """The source opened. Raises StudioError."""
        model = _with_statistics(open_model(self.source), self.statistics)
        return Opened(model, tuple(_unpacked(self.decided, model)))

    def model(self, opened: Opened) -> Model:
        """See `Order.model`."""
        return opened.model

    def identity(self, opened: Opened) -> object:
        """See `Order.identity`."""
        return _seen(opened)


def choice_order(
    model: Model, choices: Iterable[Choice], machine: Machine, statistics: Path | None = None
) -> tuple[ChoiceOrder, Opened]:
    """The order for choices for some layers, the others kept, and what this process has opened for it."""
    chosen = {choice.layer.name: choice for choice in choices}
    whole = tuple(chosen.get(layer.name) or Choice(layer, None) for layer in model.layers)
    known = str(statistics.absolute()) if statistics else ""
    return ChoiceOrder(machine, _place(model), _packed(whole), known, _run()), Opened(model, whole)


def _with_statistics(model: Model, file: str) -> Model:
    return with_statistics(model, open_statistics(Path(file), model)) if file else model


@dataclass(frozen=True, slots=True)
class VerifyOrder:
    """A checkpoint to verify, and the one that it was made from, "" for none."""

    machine: Machine
    place: str
    source: str = ""
    run: str = ""

    def open(self) -> ToVerify:
        """Both opened. Raises StudioError."""
        return opened_to_verify(place_of(self.place), open_model(self.source) if self.source else None)

    def model(self, opened: ToVerify) -> Model | None:
        """See `Order.model`."""
        return opened.source

    def identity(self, opened: ToVerify) -> object:
        """See `Order.identity`."""
        return _files(opened.source), list(map(_file, opened.contents))


def verify_order(place: Path, machine: Machine, source: Model | None = None) -> VerifyOrder:
    """The order to verify a checkpoint."""
    return VerifyOrder(machine, str(place.absolute()), _place(source) if source else "", _run())


@dataclass(frozen=True, slots=True)
class DoctorOrder:
    """A folder, or a file, to examine."""

    machine: Machine
    place: str
    run: str = ""

    def open(self) -> Patient:
        """The folder as far as it can be read. Raises CheckpointError where there is nothing."""
        return opened_to_examine(Path(self.place))

    def model(self, opened: Patient) -> None:
        """See `Order.model`."""

    def identity(self, opened: Patient) -> object:
        """See `Order.identity`."""
        files = sorted(map(_file, opened.folder.files.values()))
        return files, [(reading.name, reading.nbytes) for reading in opened.readings]


def doctor_order(place: Path, machine: Machine) -> DoctorOrder:
    """The order to examine a folder or a file."""
    return DoctorOrder(machine, str(place.absolute()), _run())


@lru_cache(1)
def opened(order: Order) -> Any:
    """What an order opens; kept until another order comes. Raises StudioError."""
    return order.open()
