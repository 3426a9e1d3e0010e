"""Costs: what every option does to the outputs of a layer.

The squared error of the output of a matrix is, as far as statistics know its inputs, sum over blocks of r H r^T, with r
the errors of 16 weights and H the second moments of their inputs; with mean squares d, sum of d r^2; with neither, sum
of r^2. It is divided by the same sum over the weights themselves, so that layers can be compared.
"""

from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kernels import Recipe
from kernels.fidelity import relative_error
from studio.core.budgets.decisions import Decision, Decisions, Option
from studio.core.model import Layer

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cost:
    """Sums over the weights of a layer in one recipe.

    output, signal: the squared error of its outputs, and their squares. error, squares: those of its weights.
    """

    output: float
    signal: float
    error: float
    squares: float

    @property
    def rel_err(self) -> float:
        """||W - decoded|| / ||W||."""
        return relative_error(self.error, self.squares)


class CostTable:
    """The costs of layers, by their places, in recipes: some hundred bytes a layer."""

    def __init__(self) -> None:
        self._sums: dict[int, array[float]] = {}
        self._recipes: dict[int, tuple[str, ...]] = {}
        self._alike: dict[tuple[str, ...], tuple[str, ...]] = {}

    def add(self, index: int, recipes: Sequence[str], sums: Floats) -> None:
        """Take in what a layer costs in more recipes.

        sums: [2 + 2 recipes], the squares of its outputs and of its weights, then of their errors in each recipe.
        """
        known = self.recipes(index)
        new = [number for number, recipe in enumerate(recipes) if recipe not in known]
        whole = (*known, *(recipes[number] for number in new))
        self._recipes[index] = self._alike.setdefault(whole, whole)
        if not known:
            self._sums[index] = array("d", sums.tobytes())
        else:
            for number in new:
                self._sums[index].extend(sums[2 + 2 * number : 4 + 2 * number].tolist())

    def recipes(self, index: int) -> tuple[str, ...]:
        """The recipes that are known of a layer."""
        return self._recipes.get(index, ())

    def of(self, index: int, recipe: str) -> Cost:
        """What a layer costs in a recipe. Raises ValueError for one that is not known."""
        at = 2 + 2 * self.recipes(index).index(recipe)
        found = self._sums[index]
        return Cost(found[at], found[0], found[at + 1], found[1])

    def sums(self, indices: Sequence[int], recipes: Sequence[str]) -> Floats:
        """[layers, 2 + 2 recipes] as `add` takes them, of layers of which the same recipes are known.

        Raises ValueError for a recipe that is not known.
        """
        known = self.recipes(indices[0])
        columns = [0, 1]
        for recipe in recipes:
            at = 2 + 2 * known.index(recipe)
            columns += [at, at + 1]
        found = np.frombuffer(b"".join(self._sums[index] for index in indices)).reshape(len(indices), -1)
        return found[:, columns]

    def __len__(self) -> int:
        return len(self._sums)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CostTable) or self._sums.keys() != other._sums.keys():
            return False
        return all(
            set(self.recipes(index)) == set(other.recipes(index))
            and all(self.of(index, recipe) == other.of(index, recipe) for recipe in self.recipes(index))
            for index in self._sums
        )

    __hash__ = None  # type: ignore[assignment] # it is filled


@dataclass(frozen=True, eq=False)
class Costs:
    """The cost of every layer in every recipe that is an option for it."""

    decisions: Decisions
    known: CostTable
    _damages: dict[tuple[int, tuple[Option, ...]], tuple[Floats, Floats]] = field(default_factory=dict)

    def of(self, index: int, option: Option) -> Cost | None:
        """What an option costs the layer at `index`; None where it is kept."""
        recipe = self.decisions.choice(index, option).recipe
        return self.known.of(index, recipe_text(recipe)) if recipe else None

    def damage(self, item: Decision, option: Option) -> float:
        """What `damages` says of one option."""
        return float(self.damages(item)[0][item.options.index(option)])

    def rel_err(self, item: Decision, option: Option) -> float:
        """What `damages` says of one option."""
        return float(self.damages(item)[1][item.options.index(option)])

    def damages(self, item: Decision) -> tuple[Floats, Floats]:
        """([options], [options]) of a decision, 0 where its layers are kept.

        First the relative squared errors of the outputs, added up over its projections: experts of one projection count
        as one matrix, each by how often it was used. Then the largest relative error of the weights of its layers.
        """
        key = item.layers[0], item.options
        if key not in self._damages:
            self._damages[key] = self._damages_of(item)
        return self._damages[key]

    def _damages_of(self, item: Decision) -> tuple[Floats, Floats]:
        sites: dict[str, int] = {}
        alike: dict[tuple[int, tuple[str, ...]], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for index in item.layers:
            indices, places = alike[self.decisions.alike[index], self.known.recipes(index)]
            indices.append(index)
            places.append(sites.setdefault(_site(self.decisions.model.layers[index]), len(sites)))
        total, worst = np.zeros((4, len(sites), len(item.options))), np.zeros(len(item.options))
        for indices, places in alike.values():
            recipes = [self.decisions.choice(indices[0], option).recipe for option in item.options]
            columns = [column for column, recipe in enumerate(recipes) if recipe]
            sums = self.known.sums(indices, [recipe_text(recipe) for recipe in recipes if recipe])
            for number, column in enumerate(columns):
                output, error = sums[:, 2 + 2 * number], sums[:, 3 + 2 * number]
                for row, values in enumerate((output, sums[:, 0], error, sums[:, 1])):
                    total[row, :, column] += np.bincount(places, values, len(sites))
                worst[column] = np.maximum(worst[column], _relative(error, sums[:, 1]).max())
        output, signal, error, squares = total
        known = signal > 0
        seen = np.where(known, output / np.where(known, signal, 1.0), _relative(error, squares) ** 2)
        return seen.sum(axis=0), worst


def recipe_text(recipe: Recipe) -> str:
    """What tells a recipe from others."""
    return f"{recipe.format.name}/{recipe.method}/{recipe.exponent}"


def _relative(errors: Floats, squares: Floats) -> Floats:
    """`relative_error` of each."""
    there = squares > 0
    found: Floats = np.sqrt(np.where(there, errors / np.where(there, squares, 1.0), np.where(errors > 0, np.inf, 0.0)))
    return found


def _site(layer: Layer) -> str:
    matrix = layer.matrices[0]
    return layer.name if matrix.expert is None else f"{matrix.stack} {matrix.projection}"
