"""Choices: what is chosen for every layer, held as one choice for all layers that are alike; no Qt."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from studio import core

Indices = NDArray[np.int64]
FORMAT_NAMES = (*core.FORMATS, core.KEEP)
CODES = {name: code for code, name in enumerate(FORMAT_NAMES)}
BY_PLAN = -1


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
    """Formats chosen by hand instead of the plan's, name -> format; held as a number per layer."""

    def __init__(self, names: Names, codes: NDArray[np.int8] | None = None) -> None:
        self._names = names
        self.codes = np.full(len(names), BY_PLAN, np.int8) if codes is None else codes

    def __getitem__(self, name: str) -> str:
        code = int(self.codes[self._names.place_of[name]])
        if code == BY_PLAN:
            raise KeyError(name)
        return FORMAT_NAMES[code]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names.of(np.flatnonzero(self.codes != BY_PLAN)))

    def __len__(self) -> int:
        return int((self.codes != BY_PLAN).sum())

    def changed(self, indices: Indices, codes: NDArray[np.int8] | int) -> "Edits":
        """The same, but for these layers."""
        other = self.codes.copy()
        other[indices] = codes
        return Edits(self._names, other)

    def moved(self, names: Names, places: Indices) -> "Edits":
        """The same for the layers called `names`, whose places among those of now are `places`, -1 for new ones."""
        codes = np.append(self.codes, np.int8(BY_PLAN))
        return Edits(names, codes[places])

    @property
    def names(self) -> Names:
        """The layers that formats can be chosen for."""
        return self._names


@dataclass(frozen=True, eq=False)
class PlanState:
    """A plan, the rule of it that decides for each layer (-1: none), and the formats chosen by hand instead."""

    plan: core.Plan
    rules: NDArray[np.int32]
    edits: Edits

    def same(self, other: "PlanState") -> bool:
        """True when both choose the same."""
        same_rules = self.plan == other.plan and np.array_equal(self.rules, other.rules)
        return same_rules and np.array_equal(self.edits.codes, other.edits.codes)


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
        rules, codes = state.rules.astype(np.int64) + 1, state.edits.codes.astype(np.int64) + 1
        key = (self._alike * (len(state.plan.rules) + 1) + rules) * (len(FORMAT_NAMES) + 1) + codes
        _, first, which = np.unique(key, return_index=True, return_inverse=True)
        return self._choices([self._sample(state, index) for index in first.tolist()], which)

    def _sample(self, state: PlanState, index: int) -> core.Choice:
        layer, code = self._layers[index], int(state.edits.codes[index])
        if code == BY_PLAN:
            return core.choose_by_rule(state.plan, int(state.rules[index]), layer)
        return core.choose_format(layer, FORMAT_NAMES[code], state.plan.exponent)

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
