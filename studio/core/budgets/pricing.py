"""Pricing: what every option costs every layer, for all of them in two passes over the weights."""

import math
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kernels
from kernels import Recipe
from studio.core.budgets.costs import Costs, CostTable, recipe_text
from studio.core.budgets.decisions import Decision, Decisions
from studio.core.budgets.records import Records
from studio.core.budgets.stacks import Piece, found, peaks, sums
from studio.core.events import Event, Progress, Started
from studio.core.model import Layer
from studio.core.planning.plan import Choice, choose_format
from studio.core.quality.window_records import identity
from studio.core.running.engine import Engine, Sink
from studio.core.running.passes import FirstPass, multipliers
from studio.core.running.reading import slabs

Floats = NDArray[np.float64]

_BITS = 30
"""Bits of sums that are kept: those beyond differ with how the work is cut."""


def price(started: Engine, decisions: Decisions, records: Records | None = None) -> Generator[Event, None, Costs]:
    """Measure what every option costs every layer; what `records` hold is not measured again.

    Each weight is read twice, for the tensor scale and for all options. Closing the generator stops it, and what was
    measured stays. Raises CheckpointError for NaN or Inf in a weight.
    """
    kept = records or Records(_key(decisions))
    wanted = _Recipes(decisions)
    known = _known(kept, decisions, wanted)
    todo = [item for item in decisions.items if any(not wanted.met(index, known) for index in item.layers)]
    layers = decisions.model.layers
    yield Started("price", sum(2 * layers[i].nbytes for item in todo for i in item.layers), 0)
    done = 0
    for batch in _batches(decisions, todo, started.threads * started.slab_nbytes):
        measured = yield from _measured(started, batch, wanted, done)
        for index, numbers in measured.items():
            known.add(index, wanted.texts(index), numbers)
        kept.add(*_lines(layers, measured, wanted))
        done += sum(2 * layers[index].nbytes for index in batch)
    decisions.model.check_unchanged()
    return Costs(decisions, known)


def _key(decisions: Decisions) -> dict[str, Any]:
    return {"costs": 2, "program": kernels.__version__, "model": identity(decisions.model)}


class _Recipes:
    """The recipes that are options for layers, by their places; found once for layers of a decision that are alike."""

    def __init__(self, decisions: Decisions) -> None:
        self.decisions = decisions
        self.layers = decisions.model.layers
        self.item = {index: item for item in decisions.items for index in item.layers}
        self._known: dict[tuple[int, int], tuple[tuple[str, ...], tuple[Recipe, ...]]] = {}
        self._shared: dict[tuple[str, ...], tuple[Recipe, ...]] = {}
        self._met: dict[tuple[tuple[str, ...], tuple[str, ...]], bool] = {}

    def of(self, index: int) -> tuple[Recipe, ...]:
        """Each once, in the order of options; one tuple for all layers that have the same."""
        return self._of(index)[1]

    def texts(self, index: int) -> tuple[str, ...]:
        """What tells them from others."""
        return self._of(index)[0]

    def met(self, index: int, known: CostTable) -> bool:
        """True where all of them are known of a layer."""
        key = self.texts(index), known.recipes(index)
        if key not in self._met:
            self._met[key] = set(key[0]).issubset(key[1])
        return self._met[key]

    def _of(self, index: int) -> tuple[tuple[str, ...], tuple[Recipe, ...]]:
        key = id(self.item[index]), self.decisions.alike[index]
        if key not in self._known:
            choices = (self.decisions.choice(index, option) for option in self.item[index].options)
            recipes = {recipe_text(choice.recipe): choice.recipe for choice in choices if choice.recipe}
            texts = tuple(recipes)
            self._known[key] = texts, self._shared.setdefault(texts, tuple(recipes.values()))
        return self._known[key]


def _known(records: Records, decisions: Decisions, wanted: _Recipes) -> CostTable:
    """What was measured before, of layers of whose inputs the same is known now."""
    layers, table = decisions.model.layers, CostTable()
    places = {layers[index].name: index for index in wanted.item}
    for line in records:
        recipes = line.get("recipes", [])
        for name, numbers in zip(line.get("layers", []), _decoded(line.get("sums", ""), len(recipes)), strict=False):
            index = places.get(name)
            if index is not None and line.get("guide") == _guided_by(layers[index]):
                table.add(index, recipes, numbers)
    return table


def _lines(layers: Sequence[Layer], measured: Mapping[int, Floats], wanted: _Recipes) -> Iterator[dict[str, Any]]:
    """What was measured, layers with the same recipes and the same knowledge of their inputs in a line."""
    alike: dict[tuple[tuple[str, ...], str], list[int]] = defaultdict(list)
    for index in measured:
        alike[wanted.texts(index), _guided_by(layers[index])].append(index)
    for (recipes, guide), indices in alike.items():
        numbers = np.stack([measured[index] for index in indices]).astype("<f8")
        names = [layers[index].name for index in indices]
        said = b64encode(numbers.tobytes()).decode("ascii")
        yield {"layers": names, "guide": guide, "recipes": list(recipes), "sums": said}


def _decoded(text: str, recipes: int) -> Floats:
    return np.frombuffer(b64decode(text), "<f8").reshape(-1, 2 + 2 * recipes)


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


_Key = tuple[str, str]
"""The names of a layer and of a matrix of it."""


def _measured(
    started: Engine, batch: Sequence[int], wanted: _Recipes, done: int
) -> Generator[Event, None, dict[int, Floats]]:
    """What `CostTable.add` takes of each layer."""
    layers = [wanted.layers[index] for index in batch]
    largest = yield from _peaks(started, layers, done)
    done += sum(layer.nbytes for layer in layers)
    scales = _scales(batch, wanted, largest)
    totals = {wanted.layers[index].name: np.zeros(2 + 2 * len(wanted.of(index))) for index in batch}
    for stack, numbers in found(started, sums, _trials(started, batch, wanted, scales)):
        for piece, part in zip(stack, numbers, strict=True):
            totals[piece.slab.layer.name] += part
        done += sum(map(_share, stack))
        yield Progress("price", done, stack[-1].slab.layer.name)
    return {index: _rounded(totals[wanted.layers[index].name]) for index in batch}


def _peaks(started: Engine, layers: Sequence[Layer], done: int) -> Generator[Event, None, dict[_Key, float]]:
    """The largest weight of every matrix; weights that are no numbers are refused on the way."""
    pieces = (
        Piece(slab)
        for layer in layers
        for matrix in layer.matrices
        for slab in slabs(layer, matrix, started.slab_nbytes)
    )
    largest: dict[_Key, float] = defaultdict(float)
    for stack, found_peaks in found(started, peaks, pieces):
        for piece, peak in zip(stack, found_peaks.tolist(), strict=True):
            if not math.isfinite(peak):
                _refuse(started, piece.slab.layer)
            key = piece.slab.layer.name, piece.slab.matrix.name
            largest[key] = max(largest[key], peak)
        done += sum(map(_share, stack))
        yield Progress("price", done, stack[-1].slab.layer.name)
    return largest


def _refuse(started: Engine, layer: Layer) -> None:
    """Raise CheckpointError for NaN and Inf in a layer, all of which are counted."""
    with started.tasks() as tasks:
        for _ in FirstPass(started, tasks, [choose_format(layer, "nvfp4-3t")], Sink()).gather():
            pass


def _share(piece: Piece) -> int:
    """The bytes that a piece has of its layer."""
    slab = piece.slab
    return slab.layer.nbytes * (slab.stop - slab.start) * slab.matrix.columns // max(slab.layer.count, 1)


_Scales = Mapping[Recipe, Mapping[_Key, float]]


def _scales(batch: Sequence[int], wanted: _Recipes, largest: dict[_Key, float]) -> _Scales:
    """The tensor scales of matrices in each recipe that has them."""
    alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index in batch:
        alike[wanted.texts(index)].append(index)
    tiered: dict[Recipe, list[Choice]] = defaultdict(list)
    for indices in alike.values():
        for recipe in wanted.of(indices[0]):
            if recipe.format.tensor_scale:
                tiered[recipe] += [Choice(wanted.layers[index], recipe, "") for index in indices]
    return {recipe: multipliers(choices, largest, Sink()) for recipe, choices in tiered.items()}


def _trials(started: Engine, batch: Sequence[int], wanted: _Recipes, scales: _Scales) -> Iterator[Piece]:
    known: dict[tuple[str, ...], tuple[int, list[Mapping[_Key, float]]]] = {}
    for index in batch:
        layer, recipes, texts = wanted.layers[index], wanted.of(index), wanted.texts(index)
        if texts not in known:
            height = max((recipe.format.height for recipe in recipes), default=1)
            known[texts] = height, [scales.get(recipe, {}) for recipe in recipes]
        together, tables = known[texts]
        for matrix in layer.matrices if recipes else ():
            key = layer.name, matrix.name
            mine = tuple([table.get(key, 1.0) for table in tables])
            for slab in slabs(layer, matrix, started.slab_nbytes, together):
                yield Piece(slab, recipes, mine)


def _rounded(values: Floats) -> Floats:
    """Numbers with the first bits of their fractions."""
    fraction, exponent = np.frexp(values)
    rounded: Floats = np.ldexp(np.rint(np.ldexp(fraction, _BITS)), exponent - _BITS)
    return rounded
