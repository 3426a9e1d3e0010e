"""Costs: what every option does to the outputs of a layer, for all of them in one pass over the weights.

The squared error of the output of a matrix is, as far as statistics know its inputs, sum over blocks of r H r^T, with r
the errors of 16 weights and H the second moments of their inputs; with mean squares d, sum of d r^2; with neither, sum
of r^2. It is divided by the same sum over the weights themselves, so that layers can be compared.
"""

from array import array
from collections import defaultdict
from collections.abc import Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kernels
from kernels import Recipe
from kernels.fidelity import relative_error, widen
from kernels.quantized import Quantized
from studio.core.budgets.decisions import Decision, Decisions, Option
from studio.core.budgets.records import Records
from studio.core.events import Event, Progress, Started
from studio.core.model import Guide, Layer, Matrix
from studio.core.planning.plan import KEEP, Choice, choose_format
from studio.core.quality.window_records import identity
from studio.core.running.encoding import encode, rows_of
from studio.core.running.engine import Engine, Sink
from studio.core.running.passes import FirstPass, multipliers
from studio.core.running.proving import Counts, Question, answers
from studio.core.running.reading import Slab, read_slab

_AT_ONCE = 1 << 16
"""Weights whose errors are looked at together."""

_SUMS = 4

_DIGITS = 9
"""Significant digits that are kept of sums: those beyond differ with how the work is cut."""


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
    def numbers(self) -> tuple[float, float, float, float]:
        """All four, in this order."""
        return self.output, self.signal, self.error, self.squares

    @property
    def rel_err(self) -> float:
        """||W - decoded|| / ||W||."""
        return relative_error(self.error, self.squares)


class CostTable:
    """The costs of layers, by their places, in recipes: some hundred bytes a layer."""

    def __init__(self) -> None:
        self._numbers: dict[int, array[float]] = {}
        self._recipes: dict[int, tuple[str, ...]] = {}
        self._alike: dict[tuple[str, ...], tuple[str, ...]] = {}

    def add(self, index: int, costs: Mapping[str, Cost]) -> None:
        """Take in what a layer costs in more recipes."""
        whole = {**self.costs(index), **costs}
        recipes = tuple(whole)
        self._recipes[index] = self._alike.setdefault(recipes, recipes)
        self._numbers[index] = array("d", (number for cost in whole.values() for number in cost.numbers))

    def recipes(self, index: int) -> tuple[str, ...]:
        """The recipes that are known of a layer."""
        return self._recipes.get(index, ())

    def costs(self, index: int) -> dict[str, Cost]:
        """What a layer costs in each recipe that is known."""
        return {recipe: self.of(index, recipe) for recipe in self.recipes(index)}

    def of(self, index: int, recipe: str) -> Cost:
        """What a layer costs in a recipe. Raises ValueError for one that is not known."""
        at = _SUMS * self.recipes(index).index(recipe)
        return Cost(*self._numbers[index][at : at + _SUMS])

    def __len__(self) -> int:
        return len(self._numbers)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CostTable) or self._numbers.keys() != other._numbers.keys():
            return False
        return all(self.costs(index) == other.costs(index) for index in self._numbers)

    __hash__ = None  # type: ignore[assignment] # it is filled


@dataclass(frozen=True, eq=False)
class Costs:
    """The cost of every layer in every recipe that is an option for it."""

    decisions: Decisions
    known: CostTable

    def of(self, index: int, option: Option) -> Cost | None:
        """What an option costs the layer at `index`; None where it is kept."""
        recipe = self.decisions.choice(index, option).recipe
        return self.known.of(index, recipe_text(recipe)) if recipe else None

    def damage(self, item: Decision, option: Option) -> float:
        """The relative squared error of the outputs, added up over the projections of a decision; 0 where it is kept.

        Experts of one projection count as one matrix, each by how often it was used.
        """
        if option.format == KEEP:
            return 0.0
        sites: dict[str, list[Cost]] = defaultdict(list)
        for index in item.layers:
            if cost := self.of(index, option):
                sites[_site(self.decisions.model.layers[index])].append(cost)
        return sum(map(_relative, sites.values()))

    def rel_err(self, item: Decision, option: Option) -> float:
        """The largest relative error of the weights of its layers; 0 where they are kept."""
        found = (self.of(index, option) for index in item.layers)
        return max((cost.rel_err for cost in found if cost), default=0.0)


def recipe_text(recipe: Recipe) -> str:
    """What tells a recipe from others."""
    return f"{recipe.format.name}/{recipe.method}/{recipe.exponent}"


def _relative(costs: Iterable[Cost]) -> float:
    found = list(costs)
    signal = sum(cost.signal for cost in found)
    if signal > 0:
        return sum(cost.output for cost in found) / signal
    return relative_error(sum(cost.error for cost in found), sum(cost.squares for cost in found)) ** 2


def _site(layer: Layer) -> str:
    matrix = layer.matrices[0]
    return layer.name if matrix.expert is None else f"{matrix.stack} {matrix.projection}"


def price(started: Engine, decisions: Decisions, records: Records | None = None) -> Generator[Event, None, Costs]:
    """Measure what every option costs every layer; what `records` hold is not measured again.

    Each weight is read twice, for the tensor scale and for all options. Closing the generator stops it, and what was
    measured stays. Raises CheckpointError for NaN or Inf in a weight.
    """
    kept = records or Records(_key(decisions))
    names = _Names(decisions)
    known = _known(kept, decisions, names)
    todo = [item for item in decisions.items if any(not names.of(i).issubset(known.recipes(i)) for i in item.layers)]
    layers = decisions.model.layers
    yield Started("price", sum(2 * layers[i].nbytes for item in todo for i in item.layers), 0)
    done = 0
    for batch in _batches(decisions, todo, started.threads * started.slab_nbytes):
        measured = yield from _measured(started, decisions, batch, names, done)
        for index, costs in measured.items():
            known.add(index, costs)
        kept.add(*(_line(layers[index], costs) for index, costs in measured.items()))
        done += sum(2 * layers[index].nbytes for index in batch)
    decisions.model.check_unchanged()
    return Costs(decisions, known)


def _key(decisions: Decisions) -> dict[str, Any]:
    return {"costs": 1, "program": kernels.__version__, "model": identity(decisions.model)}


class _Names:
    """The recipes that are options for layers, by their places."""

    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions
        self.item = {index: item for item in decisions.items for index in item.layers}
        self._known: dict[tuple[int, Hashable], frozenset[str]] = {}

    def of(self, index: int) -> frozenset[str]:
        """Their texts, found once for layers of a decision that are alike."""
        key = id(self.item[index]), self._decisions.alike[index]
        if key not in self._known:
            self._known[key] = frozenset(self.choices(index))
        return self._known[key]

    def choices(self, index: int) -> dict[str, Choice]:
        """The choices that have them."""
        choices = (self._decisions.choice(index, option) for option in self.item[index].options)
        return {recipe_text(choice.recipe): choice for choice in choices if choice.recipe}


def _known(records: Records, decisions: Decisions, names: _Names) -> CostTable:
    """What was measured before, of layers of whose inputs the same is known now."""
    layers, found = decisions.model.layers, CostTable()
    places = {layers[index].name: index for index in names.item}
    for line in records:
        index = places.get(line.get("layer", ""))
        if index is not None and line.get("guide") == _guided_by(layers[index]):
            known = {recipe: cost for recipe, cost in line.get("costs", {}).items() if recipe in names.of(index)}
            found.add(index, {recipe: Cost(*map(float, cost)) for recipe, cost in known.items() if len(cost) == _SUMS})
    return found


def _line(layer: Layer, costs: Mapping[str, Cost]) -> dict[str, Any]:
    said = {recipe: cost.numbers for recipe, cost in costs.items()}
    return {"layer": layer.name, "guide": _guided_by(layer), "costs": said}


def _guided_by(layer: Layer) -> str:
    return layer.guide.meaning if layer.guide else ""


def _batches(decisions: Decisions, items: Sequence[Decision], nbytes: int) -> Iterator[list[int]]:
    """The layers of decisions, so many that they have about `nbytes`."""
    batch: list[int] = []
    room = nbytes
    for item in items:
        batch += item.layers
        room -= sum(decisions.model.layers[index].nbytes for index in item.layers)
        if room <= 0:
            yield batch
            batch, room = [], nbytes
    if batch:
        yield batch


def _measured(
    started: Engine,
    decisions: Decisions,
    batch: Sequence[int],
    names: _Names,
    done: int,
) -> Generator[Event, None, dict[int, dict[str, Cost]]]:
    wanted = {index: names.choices(index) for index in batch}
    layers = [decisions.model.layers[index] for index in batch]
    peaks = yield from _peaks(started, layers, done)
    done += sum(layer.nbytes for layer in layers)
    scales = {
        recipe: multipliers(
            [choices[recipe] for choices in map(wanted.__getitem__, batch) if recipe in choices], peaks, Sink()
        )
        for recipe in {recipe for index in batch for recipe in wanted[index]}
    }
    questions = [
        Question(layer, matrix, partial(_sums, matrix, trials), max(recipe.format.height for recipe, _ in trials))
        for index, layer in zip(batch, layers, strict=True)
        for matrix in layer.matrices
        if (trials := _trials(layer, matrix, wanted[index], scales))
    ]
    totals: dict[str, Counts] = {}
    for question, sums in answers(started, questions):
        layer, used = question.layer, _used(question.layer.guide, question.matrix)
        totals[layer.name] = totals.get(layer.name, np.zeros(())) + _weighted(sums, used)
        done += layer.nbytes * question.matrix.rows * question.matrix.columns // max(layer.count, 1)
        yield Progress("price", done, layer.name)
    return {index: _costs(wanted[index], totals[decisions.model.layers[index].name]) for index in batch}


def _peaks(started: Engine, layers: Sequence[Layer], done: int) -> Generator[Event, None, dict[tuple[str, str], float]]:
    """The largest weight of every matrix; weights that are no numbers are refused on the way."""
    with started.tasks() as tasks:
        first = FirstPass(started, tasks, [choose_format(layer, "nvfp4-3t") for layer in layers], Sink())
        for name, nbytes in first.gather():
            done += nbytes
            yield Progress("price", done, name)
    return first.peaks


_Trial = tuple[Recipe, float]


def _trials(
    layer: Layer, matrix: Matrix, wanted: Mapping[str, Choice], scales: Mapping[str, Mapping[tuple[str, str], float]]
) -> list[_Trial]:
    """Recipes with the tensor scale that each has for a matrix."""
    return [
        (choice.recipe, scales[recipe].get((layer.name, matrix.name), 1.0))
        for recipe, choice in wanted.items()
        if choice.recipe
    ]


def _sums(matrix: Matrix, trials: Sequence[_Trial], started: Engine, slab: Slab) -> Counts:
    """[signal, squares, output and error of each trial] of a slab."""
    weights = read_slab(slab, started.scratch)
    known = _inputs(slab.layer.guide, matrix) if slab.layer.guide else None
    found = [*_squares(weights, None, started, known)]
    for recipe, g in trials:
        quantized, _ = encode(started.backend, slab.layer, matrix, weights, recipe, g)
        found += _squares(weights, quantized, started, known)
    return np.array(found)


def _squares(
    weights: NDArray[Any], quantized: Quantized | None, started: Engine, known: NDArray[np.float32] | None
) -> tuple[float, float]:
    """Sums of squares at the outputs and in the weights: of what is lost, of the weights where nothing is quantized."""
    outputs, plain = 0.0, 0.0
    height = max(_AT_ONCE // weights.shape[1], 1)
    for start in range(0, len(weights), height):
        part = widen(weights[start : start + height])
        if quantized is not None:
            part = part - started.backend.decode(rows_of(quantized, slice(start, start + height)))
        columns = np.einsum("ij,ij->j", part, part, dtype=np.float64)
        plain += float(columns.sum())
        outputs += _at_outputs(part, columns, known)
    return outputs, plain


def _at_outputs(part: NDArray[np.float32], columns: NDArray[np.float64], known: NDArray[np.float32] | None) -> float:
    if known is None:
        return float(columns.sum())
    if known.ndim == 1:
        return float(columns @ known)
    blocks = part.reshape(len(part), len(known), -1).transpose(1, 0, 2)
    return float(((blocks @ known) * blocks).sum(dtype=np.float64))


_INPUTS = 16
"""Matrices whose inputs are kept in memory: slabs of one follow each other."""


@lru_cache(maxsize=_INPUTS)
def _inputs(guide: Guide, matrix: Matrix) -> NDArray[np.float32] | None:
    found = guide.moments(matrix)
    return found[1] if found else None


def _used(guide: Guide | None, matrix: Matrix) -> int:
    found = guide.moments(matrix) if guide else None
    return found[0] if found else 1


def _weighted(sums: Counts, used: int) -> Counts:
    """The sums of a matrix, those at the outputs times how often it was used."""
    found = sums.copy()
    found[0::2] *= used
    return found


def _costs(wanted: Mapping[str, Choice], sums: Counts) -> dict[str, Cost]:
    signal, squares = sums[:2]
    return {
        recipe: Cost(*map(_rounded, (output, signal, error, squares)))
        for recipe, (output, error) in zip(wanted, sums[2:].reshape(-1, 2), strict=True)
    }


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
