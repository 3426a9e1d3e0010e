"""Decisions: what is chosen together, out of which formats and methods, and the bytes that each of them takes."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from kernels import FORMATS
from kernels.methods import settled
from studio.core.errors import PlanError
from studio.core.exporting.export import refuse
from studio.core.exporting.sizes import sized_in
from studio.core.layouts import Target, fitted, packed_only
from studio.core.model import Layer, Model
from studio.core.names import printable
from studio.core.planning.plan import (
    DEFAULT_FORMAT,
    KEEP,
    Choice,
    Plan,
    choice_text,
    choose_format,
    likeness,
    resolve,
)

NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")
"""A part of a name that is a number: that of a block or an expert."""


@dataclass(frozen=True, slots=True)
class Option:
    """A format, the method that is asked for ("" for a layer that is kept), and the bytes that all layers then take."""

    format: str
    method: str
    nbytes: int

    def __str__(self) -> str:
        return choice_text(self.format, self.method)


_PACKED_ONLY = "the reader does not find it plain beside layers that are quantized"

KEPT = Option(KEEP, "", 0)
"""Layers as they are, where their bytes do not matter."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Layers that get one format and one method: those that runtimes join, and all experts of a block.

    `layers` are places in the model. `kind` names their projections, alike in every block.
    """

    layers: tuple[int, ...]
    options: tuple[Option, ...]
    kind: str
    block: int | None


@dataclass(frozen=True, eq=False)
class Decisions:
    """All decisions about a model, and the layers about which there is none, with the bytes that these take.

    `alike` is equal for layers that get the same recipe and size from the same option.
    """

    model: Model
    plan: Plan
    layout: Target
    reader: str
    items: tuple[Decision, ...]
    settled: Mapping[int, Choice]
    settled_nbytes: int
    alike: Sequence[int]
    _known: dict[tuple[int, str], Choice] = field(default_factory=dict)
    _beside: dict[tuple[int, str], int] = field(default_factory=dict)

    def choices(self, options: Sequence[Option]) -> tuple[Choice, ...]:
        """The choice for every layer of the model when each decision gets its option."""
        found = dict(self.settled)
        for item, option in zip(self.items, options, strict=True):
            for index in item.layers:
                found[index] = self.choice(index, option)
        return tuple(found[index] for index in range(len(self.model.layers)))

    def sized(self, options: Sequence[Option]) -> tuple[Choice, ...]:
        """The same with the exact bytes that the layout takes for each."""
        return tuple(
            self._sized(alike, choice) for alike, choice in zip(self.alike, self.choices(options), strict=True)
        )

    def _sized(self, alike: int, choice: Choice) -> Choice:
        key = alike, choice_text(choice.format, choice.method)
        if key not in self._beside:
            (self._beside[key],) = (exact.beside for exact in sized_in(self.model, [choice], self.layout))
        return replace(choice, beside=beside) if (beside := self._beside[key]) != choice.beside else choice

    def tried(self) -> Iterator[Choice]:
        """Choices with every option of each kind of decision, for one of its layers."""
        seen: set[tuple[int, tuple[Option, ...]]] = set()
        for item in self.items:
            if (key := (self.alike[item.layers[0]], item.options)) not in seen:
                seen.add(key)
                yield from (self.choice(item.layers[0], option) for option in item.options)

    def choice(self, index: int, option: Option) -> Choice:
        """The choice of an option for the layer at `index`."""
        key, layer = (self.alike[index], str(option)), self.model.layers[index]
        if key not in self._known:
            self._known[key] = _chosen(self.plan, layer, option.format, option.method)
        example = self._known[key]
        return Choice(layer, example.recipe, example.reason)


def decide(
    model: Model, plan: Plan, layout: Target, reader: str, forbidden: Collection[str] = frozenset()
) -> Decisions:
    """What can be decided about the layers that `plan` quantizes, in `layout` as `reader` loads it.

    A rule that names a format pins it, and the method that it names; other rules leave both open. `forbidden` formats
    are only taken where they are pinned. Raises PlanError for pins that contradict each other or can not be stored, and
    where nothing can be quantized.
    """
    plan = plan.with_format(DEFAULT_FORMAT)
    asked = resolve(plan, model)
    free = [index for index, choice in enumerate(asked) if choice.recipe]
    if not free:
        raise PlanError("the plan keeps every layer", hint="--preset, --include and --exclude say what is quantized")
    table = _Table(model, plan, layout, reader, asked, free)
    groups = table.joined(_groups(model, free, joined=layout.joins))
    table.leave_out_loners(groups)
    items = [_decision(plan, asked, group, table, forbidden) for group in groups]
    left = set(range(len(asked))).difference(free)
    kept = {index: choice for index, choice in enumerate(layout.fit(model, table.kept, reader)) if index in left}
    return Decisions(model, plan, layout, reader, tuple(items), kept, table.nbytes(KEEP, kept), table.alike)


_Group = tuple[int, ...]
"""Places of layers that are decided together, in the order of the model."""


class _Table:
    """Which layer can be stored in which format, and what it takes there; found once for layers that are alike."""

    def __init__(
        self, model: Model, plan: Plan, layout: Target, reader: str, asked: Sequence[Choice], free: Sequence[int]
    ) -> None:
        self._model, self._layout, self._reader = model, layout, reader
        seen: dict[tuple[Hashable, str], int] = {}
        keys = ((likeness(layer), NUMBER.sub("0", layer.name)) for layer in model.layers)
        self.alike = [seen.setdefault(alike, len(seen)) for alike in keys]
        self._examples = {alike: index for index, alike in enumerate(self.alike)}
        self._sizes: dict[tuple[int, str], int] = {}
        self.kept = [Choice(choice.layer, None, choice.reason) for choice in asked]
        self._refused: dict[str, list[str]] = {}
        packed = {index: _PACKED_ONLY for index in free if packed_only(reader, model, model.layers[index])}
        self._misfits: dict[str, Mapping[int, str]] = {KEEP: packed}
        for name in FORMATS:
            if why := _unplanned(layout, name):
                self._refused[name] = [why]
            elif name in layout.formats:
                wanted = self._all(plan, name, free)
                found, self._refused[name] = fitted(layout, reader, model, wanted)
                odd = [index for index in free if found[index].recipe is None or found[index] is not wanted[index]]
                self._misfits[name] = {index: why for index in odd if (why := _changed(found[index], name))}
            else:
                self._refused[name] = [f"layout {layout.name} can not store {name}"]
        if all(self._refused.values()):
            refuse(model, asked, layout, self._refused[layout.formats[0]])

    def _all(self, plan: Plan, name: str, free: Sequence[int]) -> list[Choice]:
        """The choices with all free layers in one format."""
        examples = {
            alike: _chosen(plan, self._model.layers[index], name, "") for alike, index in self._examples.items()
        }
        found = list(self.kept)
        for index in free:
            alike = examples[self.alike[index]]
            found[index] = Choice(self._model.layers[index], alike.recipe, alike.reason)
        return found

    def obstacle(self, name: str, indices: Iterable[int]) -> str:
        """Why layers can not all be stored in the format called `name`, "" when they can."""
        if refused := self._refused.get(name):
            return refused[0]
        misfits = self._misfits[name]
        return next((misfits[index] for index in indices if index in misfits), "") if misfits else ""

    def leave_out_loners(self, groups: Sequence[_Group]) -> None:
        """Take no format that the reader does not load beside those before it, or beside layers that are kept."""
        taken: list[str] = []
        for name in FORMATS:
            if not self._refused[name]:
                self._refused[name] = self._refusals(self._spread([name, *taken], groups))
                taken += [] if self._refused[name] else [name]

    def _spread(self, names: Iterable[str], groups: Sequence[_Group]) -> dict[str, _Group]:
        """A group for each format, as far as there are groups that can have it."""
        found: dict[str, _Group] = {}
        for name in names:
            left = (group for group in groups if group not in found.values() and not self.obstacle(name, group))
            if (group := next(left, None)) is not None:
                found[name] = group
        return found

    def joined(self, groups: list[_Group]) -> list[_Group]:
        """The groups, those of experts as one where the reader takes all experts of the model in one format only."""
        experts = [group for group in groups if self._model.layers[group[0]].role == "expert"]
        if len(experts) < 2 or self._mixes(*experts[:2]):
            return groups
        whole = tuple(sorted(index for group in experts for index in group))
        return [whole if group is experts[0] else group for group in groups if group not in experts[1:]]

    def _mixes(self, one: _Group, other: _Group) -> bool:
        """True unless all formats that two groups can have exclude each other."""
        names = [name for name in FORMATS if not self.obstacle(name, (*one, *other))]
        if len(names) < 2:
            return True
        return any(not self._refusals({first: one, second: other}) for first, second in combinations(names, 2))

    def _refusals(self, wanted: Mapping[str, _Group]) -> list[str]:
        choices = list(self.kept)
        for name, group in wanted.items():
            for index in group:
                choices[index] = choose_format(self._model.layers[index], name)
        return self._layout.refusals(self._model, choices, self._reader)

    def nbytes(self, name: str, indices: Iterable[int]) -> int:
        """The exact bytes that layers take in a format."""
        counts = Counter(self.alike[index] for index in indices)
        return sum(count * self._size(name, alike) for alike, count in counts.items())

    def _size(self, name: str, alike: int) -> int:
        key = alike, name
        if key not in self._sizes:
            choice = choose_format(self._model.layers[self._examples[alike]], name)
            (exact,) = sized_in(self._model, [choice], self._layout)
            self._sizes[key] = exact.nbytes
        return self._sizes[key]


def _unplanned(layout: Target, name: str) -> str:
    """Why a format is no option of its own for some layers, "" when it is."""
    if name in layout.alone:
        return f"readers of the layout {layout.name} take {name} for all layers or none"
    if name in layout.static_inputs:
        return f"{name} of the layout {layout.name} needs scales of inputs, which are not planned"
    return ""


def _changed(choice: Choice, name: str) -> str:
    """Why a layer can not have the format called `name`, "" when it can."""
    return "" if choice.format == name else choice.reason or f"{name} does not fit it"


def _decision(
    plan: Plan, asked: Sequence[Choice], group: _Group, table: _Table, forbidden: Collection[str]
) -> Decision:
    layers = [asked[index].layer for index in group]
    pinned = _pin(plan, asked, group)
    formats = [pinned.partition("/")[0]] if pinned else [name for name in (*FORMATS, KEEP) if name not in forbidden]
    if pinned and (why := table.obstacle(formats[0], group)):
        raise PlanError(f"{printable(layers[0].name)} is pinned to {formats[0]}: {why}")
    fitting = [name for name in formats if not table.obstacle(name, group)]
    if not fitting:
        what = f"every format that {printable(layers[0].name)} can be stored in is forbidden"
        raise PlanError(what, hint="forbid fewer, or keep it: --exclude NAME")
    options = []
    for name in fitting:
        nbytes = table.nbytes(name, group)
        options += [Option(name, method, nbytes) for method in _methods(name, pinned.partition("/")[2], plan.method)]
    return Decision(group, tuple(options), _kind(layers), layers[0].block)


def _pin(plan: Plan, asked: Sequence[Choice], group: Sequence[int]) -> str:
    """What the rules pin a group to, as `choice_text` writes it; "" where it is free."""
    found: dict[str, Layer] = {}
    for index in group:
        rule = plan.rules[asked[index].rule]
        if rule.format:
            found.setdefault(choice_text(rule.format, rule.method), asked[index].layer)
    if len(found) > 1:
        (one, first), (other, second) = list(found.items())[:2]
        what = f"pinned to {one}: {printable(first.name)}, to {other}: {printable(second.name)}"
        raise PlanError(f"{what}, which get one format together")
    return next(iter(found), "")


def _methods(name: str, pinned: str, wanted: str) -> Iterator[str]:
    """The methods to try in a format. Whether ranges of integers are searched is worth a look, the rest is known."""
    if name == KEEP:
        yield ""
    elif pinned or wanted == "max" or not FORMATS[name].affine or FORMATS[name].bits > 4:
        yield settled(pinned or wanted, FORMATS[name].scale, FORMATS[name].bits)
    else:
        yield from ("max", "search")


def _chosen(plan: Plan, layer: Layer, name: str, method: str) -> Choice:
    reason = "kept within the budget" if name == KEEP else ""
    return choose_format(layer, name, plan.exponent, method or plan.method, reason=reason)


def _groups(model: Model, free: Sequence[int], *, joined: bool) -> list[_Group]:
    """What is decided together; `joined`: all projections of the experts of a block are, too."""
    parent = {index: index for index in free}

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    first: dict[str, int] = {}
    for index in free:
        for key in _keys(model.layers[index], joined=joined):
            one, other = sorted((root(first.setdefault(key, index)), root(index)))
            parent[other] = one
    found: dict[int, list[int]] = defaultdict(list)
    for index in free:
        found[root(index)].append(index)
    return [tuple(group) for group in found.values()]


def _keys(layer: Layer, *, joined: bool) -> Iterator[str]:
    for matrix in layer.matrices:
        if matrix.group:
            yield f"group {matrix.group}"
        if matrix.expert is not None:
            yield f"experts of {matrix.stack}" if joined else f"experts of {matrix.stack}: {matrix.projection}"


def _kind(layers: Iterable[Layer]) -> str:
    """The projections of layers, each once, without the numbers of blocks and experts."""
    return ", ".join(dict.fromkeys(NUMBER.sub("*", layer.name).rpartition("*")[2].lstrip(".") for layer in layers))
