"""Choices: what is chosen for every layer, held as one choice for all layers that are alike; no Qt."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from studio import core

Indices = NDArray[np.int64]
FORMAT_NAMES = (*core.STORED_FORMATS, core.KEEP)
CODES = {name: code for code, name in enumerate(FORMAT_NAMES)}
METHOD_NAMES = (*core.METHODS, core.STORED, "")
METHOD_CODES = {name: code for code, name in enumerate(METHOD_NAMES)}
"""The last, "", is that of kept layers, and what `BY_PLAN` stands for. Exports may have more than people can choose."""

BY_PLAN = -1
Codes = NDArray[np.int8]


class Names(Sequence[str]):
    """The names of all layers, and the place of each."""

    def __init__(self, names: Sequence[str]) -> None:
        self.array = np.array([*names, None], object)[:-1]
        self._texts = list(names)
        self.place_of = {name: i for i, name in enumerate(names)}

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return self._texts[index]

    def of(self, indices: Indices) -> list[str]:
        """The names of these layers."""
        found: list[str] = self.array[indices].tolist()
        return found

    def places(self, names: Sequence[str]) -> Indices:
        """The layers of these names."""
        return np.fromiter(map(self.place_of.__getitem__, names), np.int64, len(names))

    def places_in(self, other: "Names") -> Indices:
        """The place of each layer among those of `other`, -1 where it is not there."""
        return np.fromiter((other.place_of.get(name, -1) for name in self), np.int64, len(self))


class Edits(Mapping[str, str]):
    """What is chosen by hand instead of the plan: name -> "format", "format/method" or "/method".

    codes, methods: int8, a number per layer, index into `FORMAT_NAMES` and `METHOD_NAMES`, or `BY_PLAN`.
    """

    def __init__(self, names: Names, codes: Codes | None = None, methods: Codes | None = None) -> None:
        self._names = names
        self.codes = np.full(len(names), BY_PLAN, np.int8) if codes is None else codes
        self.methods = np.full(len(names), BY_PLAN, np.int8) if methods is None else methods

    def __getitem__(self, name: str) -> str:
        place = self._names.place_of[name]
        code, method = int(self.codes[place]), int(self.methods[place])
        if code == method == BY_PLAN:
            raise KeyError(name)
        return core.choice_text("" if code == BY_PLAN else FORMAT_NAMES[code], METHOD_NAMES[method])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names.of(np.flatnonzero(self.mask)))

    def __len__(self) -> int:
        return int(self.mask.sum())

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Which layers have something chosen by hand."""
        chosen: NDArray[np.bool_] = (self.codes != BY_PLAN) | (self.methods != BY_PLAN)
        return chosen

    def same(self, other: "Edits") -> bool:
        """True when both choose the same."""
        return np.array_equal(self.codes, other.codes) and np.array_equal(self.methods, other.methods)

    def changed(self, indices: Indices, codes: Codes | int) -> "Edits":
        """The same, but for the formats of these layers."""
        return Edits(self._names, _replaced(self.codes, indices, codes), self.methods)

    def with_methods(self, indices: Indices, methods: Codes | int) -> "Edits":
        """The same, but for the methods of these layers."""
        return Edits(self._names, self.codes, _replaced(self.methods, indices, methods))

    def moved(self, names: Names, places: Indices) -> "Edits":
        """The same for the layers called `names`, whose places among those of now are `places`, -1 for new ones."""
        codes, methods = (np.append(one, np.int8(BY_PLAN))[places] for one in (self.codes, self.methods))
        return Edits(names, codes, methods)

    @property
    def names(self) -> Names:
        """The layers that formats can be chosen for."""
        return self._names


def _replaced(codes: Codes, indices: Indices, by: Codes | int) -> Codes:
    other = codes.copy()
    other[indices] = by
    return other


@dataclass(frozen=True, eq=False)
class PlanState:
    """A plan, the rule of it that decides for each layer (-1: none), and what is chosen by hand instead."""

    plan: core.Plan
    rules: NDArray[np.int32]
    edits: Edits

    def same(self, other: "PlanState") -> bool:
        """True when both choose the same."""
        same_rules = self.plan == other.plan and np.array_equal(self.rules, other.rules)
        return same_rules and self.edits.same(other.edits)


@dataclass(frozen=True, eq=False)
class Choices(Sequence[core.Choice]):
    """A choice per layer: `samples[which[i]]`, made for a layer that is like layer i.

    contents: what tells choices for the same layer apart, a number per layer. recipes: the number of the recipe, -1
    where the layer is kept. tiered: whether the recipe has a tensor scale. All numbers are those of one `Chooser`.
    """

    layers: Sequence[core.Layer]
    samples: Sequence[core.Choice]
    which: NDArray[np.int64]
    contents: NDArray[np.int64]
    recipes: NDArray[np.int64]
    tiered: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.which)

    @overload
    def __getitem__(self, index: int) -> core.Choice: ...
    @overload
    def __getitem__(self, index: slice) -> list[core.Choice]: ...
    def __getitem__(self, index: int | slice) -> core.Choice | list[core.Choice]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        sample = self.samples[self.which[index]]
        return core.Choice(self.layers[index], sample.recipe, sample.reason, sample.rule)


class Chooser:
    """Makes the choices for the layers of a model; asks the plan once for all layers that are alike."""

    def __init__(self, layers: Sequence[core.Layer]) -> None:
        self._layers = layers
        kinds: dict[Hashable, int] = {}
        numbers = (kinds.setdefault(core.likeness(layer), len(kinds)) for layer in layers)
        self._alike = np.fromiter(numbers, np.int64, len(layers))
        self._contents: dict[Hashable, int] = {}
        self._recipes: dict[Hashable, int] = {None: -1}

    def choose(self, state: PlanState) -> Choices:
        """What a state of the plan chooses for each layer."""
        key, edits = self._alike, state.edits
        parts = (state.rules, state.plan.rules), (edits.codes, FORMAT_NAMES), (edits.methods, METHOD_NAMES)
        for numbers, known in parts:
            key = key * (len(known) + 1) + numbers + 1
        _, first, which = np.unique(key, return_index=True, return_inverse=True)
        return self._choices([self._sample(state, index) for index in first.tolist()], which)

    def _sample(self, state: PlanState, index: int) -> core.Choice:
        plan, layer, code = state.plan, self._layers[index], int(state.edits.codes[index])
        method = METHOD_NAMES[state.edits.methods[index]]
        if code == BY_PLAN:
            return core.choose_by_rule(plan, int(state.rules[index]), layer, method)
        return core.choose_format(layer, FORMAT_NAMES[code], plan.exponent, method or plan.method)

    def take(self, choices: Sequence[core.Choice]) -> Choices:
        """Choices that were made elsewhere, for the same layers."""
        if isinstance(choices, Choices):
            return choices
        samples: dict[Hashable, tuple[int, core.Choice]] = {}
        which = [
            samples.setdefault((alike, choice.recipe, choice.reason, choice.rule), (len(samples), choice))[0]
            for alike, choice in zip(self._alike.tolist(), choices, strict=True)
        ]
        return self._choices([sample for _, sample in samples.values()], np.array(which, np.int64))

    def _choices(self, samples: Sequence[core.Choice], which: NDArray[np.int64]) -> Choices:
        contents = [self._contents.setdefault((s.recipe, s.reason), len(self._contents)) for s in samples]
        recipes = [self.number(sample) for sample in samples]
        tiered = [sample.recipe is not None and sample.recipe.format.tensor_scale for sample in samples]
        content, recipe = np.array([contents, recipes], np.int64)[:, which]
        return Choices(self._layers, samples, which, content, recipe, np.array(tiered, np.bool_)[which])

    def number(self, choice: core.Choice) -> int:
        """The number of the recipe of a choice."""
        return self._recipes.setdefault(choice.recipe, len(self._recipes) - 1)
