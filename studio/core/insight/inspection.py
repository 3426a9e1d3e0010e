"""Inspection: one layer looked at closely, with memory that does not grow with the layer."""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kernels import Census, Quantized, Recipe, method_of
from kernels.fidelity import relative_error
from kernels.formats import TENSOR_SCALE_DIVISOR
from kernels.reference import E2M1_VALUES, tensor_scale
from kernels.tiles import rounded_up
from studio.core.errors import PlanError
from studio.core.insight.microscope import ErrorMap, MapBuilder, Place
from studio.core.insight.regime_prediction import Fit, Ratios, block_sizes
from studio.core.insight.regimes import BLOCK, DEAD_ZONE, THREE, TWO, Tiers
from studio.core.model import Matrix
from studio.core.names import printable
from studio.core.planning.plan import Choice, choice_text
from studio.core.results import LayerResult, histogram
from studio.core.running.encoding import encode
from studio.core.running.engine import Engine
from studio.core.running.reading import Slab, read_slab, slabs
from studio.core.running.tasks import Tasks

TAIL_POINTS = 160
STEP_NBYTES = 512 << 10
"""Bytes of weights in a step: 5 ms of work, so that a look that nobody wants any more is over at once."""

COUNTING = 0.2
"""Part of a look that the first pass takes, as progress tells it."""

T = TypeVar("T")
Steps = Generator[float, None, T]
"""Yields the share that is done, 0 to 1, after each short piece of work; closing it ends the work; returns T."""


@dataclass(frozen=True, slots=True, eq=False)
class FormatDetail:
    """What one format and method made of a layer.

    histogram: decoded weights that are not zero, on the bins of `Statistics.histogram` and the source's sigma; zeros:
    those that are. levels, uses: the magnitudes (integer formats: the codes) that a weight can take before scaling, and
    how many weights take each; empty for 8 bits. row_error: float32 [rows], relative error by output row, matrices one
    after the other; row_order: int64 [rows], the rows with the largest first. tensor_scales: the multiplier of each
    matrix, 1.0 in formats without one. worst: the blocks with the largest error, worst first.
    """

    format: str
    method: str
    block: int
    rel_err: float
    max_error: float
    vanished: int
    histogram: Sequence[int]
    zeros: int
    levels: tuple[float, ...]
    uses: tuple[int, ...]
    row_error: NDArray[np.float32]
    row_order: NDArray[np.int64]
    error_map: ErrorMap
    worst: tuple[Place, ...]
    tensor_scales: tuple[float, ...]

    @property
    def title(self) -> str:
        """Format and method."""
        return choice_text(self.format, self.method)


@dataclass(frozen=True, slots=True, eq=False)
class LayerDetail:
    """A layer looked at closely.

    rows: output rows of all its matrices together. tail: |w| / sigma and the share of the weights beyond it, from one
    sigma's fraction to the largest weight. within: weights by |w| / block maximum, 256 bins of equal width and the
    maxima themselves, zeros apart; dead: weights that are not zero and at most 1/24 of their block's maximum, in blocks
    of 16. tiers: block scales with two and three tiers; None when rows are not whole blocks of 16. a, b: the chosen
    format and the one beside it; None where the layer is kept.
    """

    name: str
    role: str
    dtype: str
    shape: tuple[int, ...]
    rows: int
    columns: int
    matrices: int
    count: int
    max_abs: float
    sigma: float
    kurtosis: float
    zeros: int
    outliers: int
    histogram: Sequence[int]
    tail: tuple[tuple[float, ...], tuple[float, ...]]
    within: tuple[int, ...]
    dead: int
    tiers: Tiers | None
    a: FormatDetail | None
    b: FormatDetail | None

    @property
    def dead_share(self) -> float:
        """Share of the weights in the dead zone."""
        return self.dead / self.count if self.count else 0.0


def inspect_layer(
    engine: Engine, choice: Choice, other: Choice | None = None, result: LayerResult | None = None
) -> LayerDetail:
    """All of `layer_steps` at once."""
    return all_of(layer_steps(engine, choice, other, result))


def layer_steps(
    engine: Engine, choice: Choice, other: Choice | None = None, result: LayerResult | None = None
) -> Steps[LayerDetail]:
    """Look at a layer in its chosen format (A) and in that of `other` (B); reads its weights twice.

    Tensor scales are those of `result` where it has them; otherwise each matrix gets its own, although a run makes
    fused projections share one. Codes are those of `looked_at`. Raises PlanError for a layer without matrices,
    CheckpointError for damaged files.
    """
    layer = choice.layer
    if not layer.matrices:
        raise PlanError(f"{printable(layer.name)} can not be inspected: {layer.obstacle}")
    with Tasks(engine.pool) as tasks:
        censuses: list[Census] = []
        for matrix in range(len(layer.matrices)):
            censuses += [(yield from matrix_census(engine, tasks, choice, matrix))]
        census = sum(censuses, Census.empty())
        divisor = _divisor(choice)
        scales = multipliers(result, [float(tensor_scale(part.max_abs, divisor)) for part in censuses])
        look = _Look(
            choice,
            census.sigma,
            census.max_abs,
            scales,
            tuple(looked_at(c.recipe) if c else None for c in (choice, other)),
        )
        whole = yield from _look_steps(engine, tasks, look)
    return _detail(look, whole, census)


def looked_at(recipe: Recipe | None) -> Recipe | None:
    """The recipe that a look shows: error feedback, which runs the model, is shown as what it starts from."""
    if recipe is None or method_of(recipe.method).needs != "factor":
        return recipe
    return replace(recipe, method=method_of(recipe.method).otherwise)


def all_of(steps: Steps[T]) -> T:
    """What the steps return, when all are done."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: T = end.value
            return found


def multipliers(result: LayerResult | None, own: Sequence[float]) -> tuple[float, ...]:
    """The multiplier of each matrix with three tiers: that of `result`, otherwise its own."""
    known = result.tensor_scales if result else ()
    return known if len(known) == len(own) else tuple(own)


def _divisor(choice: Choice) -> float:
    """What the tensor scales of a look were made with."""
    tiered = choice.recipe and choice.recipe.format.tensor_scale
    return choice.recipe.divisor if choice.recipe and tiered else TENSOR_SCALE_DIVISOR


@dataclass(frozen=True, slots=True)
class _Look:
    """What to look at, and with what."""

    choice: Choice
    sigma: float
    largest: float
    scales: tuple[float, ...]
    recipes: tuple[Recipe | None, ...]

    @property
    def blocked(self) -> bool:
        return all(matrix.columns % BLOCK == 0 for matrix in self.choice.layer.matrices)

    def third_tier(self, matrix: int) -> float:
        """What would be the tensor scale of a matrix in three tiers."""
        return float(np.float32(self.scales[matrix] * _divisor(self.choice) / TENSOR_SCALE_DIVISOR))

    def g(self, recipe: Recipe, matrix: int) -> float:
        if not recipe.format.tensor_scale:
            return 1.0
        g = np.array(self.scales[matrix] * _divisor(self.choice) / recipe.divisor, np.float32)
        return float(rounded_up(g) if recipe.format.scale == "float32" else g)


def matrix_census(engine: Engine, tasks: Tasks, choice: Choice, matrix: int) -> Steps[Census]:
    """Count the weights of one matrix of a layer."""
    shape = choice.layer.matrices[matrix]
    parts = _short_slabs(engine, choice, shape)
    census = Census.empty()
    for slab, part in zip(parts, tasks.in_order(partial(_count, engine, slab) for slab in parts), strict=True):
        census += part
        yield COUNTING * (matrix + slab.stop / shape.rows) / len(choice.layer.matrices)
    return census


def _short_slabs(engine: Engine, choice: Choice, matrix: Matrix, together: int = 1) -> list[Slab]:
    return list(slabs(choice.layer, matrix, min(engine.slab_nbytes, STEP_NBYTES), together))


def _count(engine: Engine, slab: Slab) -> Census:
    return engine.backend.census(read_slab(slab, engine.scratch))


def _look_steps(engine: Engine, tasks: Tasks, look: _Look) -> Steps["_Sums"]:
    choice, whole = look.choice, _Sums(look)
    together = max((recipe.format.height for recipe in look.recipes if recipe), default=1)
    matrices = enumerate(choice.layer.matrices)
    every = [(i, slab) for i, m in matrices for slab in _short_slabs(engine, choice, m, together)]
    parts = tasks.in_order(partial(_look_at, engine, look, i, slab) for i, slab in every)
    for done, part in enumerate(parts, 1):
        whole.add(part)
        yield COUNTING + (1 - COUNTING) * done / len(every)
    return whole


@dataclass(slots=True)
class _Side:
    """What one format made of a slab."""

    histogram: NDArray[np.int64]
    zeros: int
    uses: NDArray[np.int64]
    rows: tuple[NDArray[np.float64], NDArray[np.float64]]
    max_error: float
    vanished: int
    scale_counts: NDArray[np.uint64]
    block_error: NDArray[np.float32]


@dataclass(slots=True)
class _Part:
    """What was found in a slab."""

    matrix: int
    start: int
    ratios: Ratios
    dead: int
    fits: tuple[Fit, Fit]
    sides: tuple[_Side | None, ...]


def _look_at(engine: Engine, look: _Look, matrix: int, slab: Slab) -> _Part:
    weight = read_slab(slab, engine.scratch)
    sides = tuple(_side(engine, look, weight, recipe, matrix) if recipe else None for recipe in look.recipes)
    part = _Part(matrix, slab.start, Ratios(), 0, (Fit(), Fit()), sides)
    if look.blocked:
        blocks = np.abs(weight.astype(np.float32)).reshape(-1, BLOCK)
        peaks = blocks.max(axis=1)
        sizes = block_sizes(peaks, look.largest)
        part.ratios.add(blocks, peaks, sizes)
        part.dead = int(((blocks > 0) & (blocks <= peaks[:, None] * np.float32(DEAD_ZONE))).sum())
        part.fits[0].add(peaks, sizes, TWO, 1.0)
        part.fits[1].add(peaks, sizes, THREE, look.third_tier(matrix))
    return part


def _side(engine: Engine, look: _Look, weight: NDArray[np.float32], recipe: Recipe, matrix: int) -> _Side:
    layer = look.choice.layer
    one, g = layer.matrices[matrix], look.g(recipe, matrix)
    quantized, fidelity = encode(engine.backend, layer, one, weight, recipe, g, blocks=True)
    assert fidelity.block_error is not None
    census = engine.backend.census(engine.backend.decode(quantized))
    return _Side(
        np.array(histogram(census.finite, look.sigma), np.int64),
        census.zeros,
        _uses(quantized),
        (fidelity.row_error, fidelity.row_squares),
        fidelity.max_error,
        fidelity.vanished,
        fidelity.scale_counts,
        fidelity.block_error,
    )


def levels(recipe: Recipe) -> tuple[float, ...]:
    """What a weight can be before scaling: magnitudes of E2M1, codes of a 4-bit integer; empty for 8 bits."""
    if recipe.format.bits != 4:
        return ()
    return tuple(range(16)) if recipe.format.affine else tuple(float(value) for value in E2M1_VALUES)


def _uses(quantized: Quantized) -> NDArray[np.int64]:
    """Weights per code: by magnitude for E2M1, none for 8 bits."""
    if quantized.format.bits != 4:
        return np.zeros(0, np.int64)
    pairs = np.bincount(quantized.codes.reshape(-1), minlength=256).reshape(16, 16)
    codes = pairs.sum(axis=0) + pairs.sum(axis=1)
    uses: NDArray[np.int64] = codes if quantized.format.affine else codes[:8] + codes[8:]
    return uses


class _Sums:
    """Adds up what was found in the slabs, which come in order."""

    def __init__(self, look: _Look) -> None:
        self.ratios = Ratios()
        self.dead = 0
        self.fits = (Fit(), Fit())
        self.sides = [_SideSums(look, recipe) if recipe else None for recipe in look.recipes]

    def add(self, part: _Part) -> None:
        self.ratios.add_ratios(part.ratios)
        self.dead += part.dead
        for mine, found in zip(self.fits, part.fits, strict=True):
            mine.add_fit(found)
        for sums, side in zip(self.sides, part.sides, strict=True):
            if sums and side:
                sums.add(part, side)


class _SideSums:
    """Adds up one side."""

    def __init__(self, look: _Look, recipe: Recipe) -> None:
        layer = look.choice.layer
        self.look, self.recipe = look, recipe
        self.rows: list[NDArray[np.float64]] = []
        self.squares: list[NDArray[np.float64]] = []
        self.histogram: NDArray[np.int64] = np.zeros(1, np.int64)
        self.uses = np.zeros(len(levels(recipe)), np.int64)
        self.scale_counts = np.zeros(256, np.uint64)
        self.zeros = self.vanished = 0
        self.max_error = 0.0
        self.map = MapBuilder([(m.rows, m.columns) for m in layer.matrices], recipe.format.block, look.sigma)

    def add(self, part: _Part, side: _Side) -> None:
        self.rows.append(side.rows[0])
        self.squares.append(side.rows[1])
        self.histogram = self.histogram + side.histogram
        self.uses += side.uses
        self.scale_counts += side.scale_counts
        self.zeros += side.zeros
        self.vanished += side.vanished
        self.max_error = max(self.max_error, side.max_error)
        self.map.add(part.matrix, part.start, side.block_error)

    def detail(self) -> FormatDetail:
        errors, squares = np.concatenate(self.rows), np.concatenate(self.squares)
        by_row = np.sqrt(errors / np.where(squares > 0, squares, 1))
        matrices = len(self.look.choice.layer.matrices)
        return FormatDetail(
            self.recipe.format.name,
            self.recipe.method,
            self.recipe.format.block,
            relative_error(math.fsum(errors), math.fsum(squares)),
            self.max_error,
            self.vanished,
            tuple(int(n) for n in self.histogram),
            self.zeros,
            levels(self.recipe),
            tuple(int(n) for n in self.uses),
            by_row.astype(np.float32),
            np.argsort(-by_row, kind="stable"),
            self.map.finish(),
            self.map.worst(),
            tuple(self.look.g(self.recipe, i) for i in range(matrices)),
        )


def _detail(look: _Look, whole: _Sums, census: Census) -> LayerDetail:
    layer = look.choice.layer
    a, b = (side.detail() if side else None for side in whole.sides)
    return LayerDetail(
        name=layer.name,
        role=layer.role,
        dtype=layer.tensor.dtype,
        shape=layer.shape,
        rows=sum(matrix.rows for matrix in layer.matrices),
        columns=layer.matrices[0].columns,
        matrices=len(layer.matrices),
        count=layer.count,
        max_abs=census.max_abs,
        sigma=census.sigma,
        kurtosis=census.kurtosis,
        zeros=census.zeros,
        outliers=census.outliers(),
        histogram=histogram(census.finite, census.sigma),
        tail=_tail(census),
        within=whole.ratios.total[1:],
        dead=whole.dead,
        tiers=_tiers(whole, census) if look.blocked else None,
        a=a,
        b=b,
    )


def _tail(census: Census) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """|w| / sigma in equal steps of its logarithm, and the share of the weights beyond."""
    finite = int(census.counts[:0x7F80].sum())
    if not census.sigma or not finite:
        return (), ()
    points = np.geomspace(0.25, max(census.max_abs / census.sigma, 0.5), TAIL_POINTS)
    shares = [census.above(float(x) * census.sigma) / finite for x in points]
    return tuple(float(x) for x in points), tuple(shares)


def _tiers(whole: _Sums, census: Census) -> Tiers:
    two, three = (fit.regime(whole.ratios, census.sum2) for fit in whole.fits)
    ran = {side.recipe.format.name: side for side in reversed(whole.sides) if side}
    found = [
        regime.measured_by(math.fsum(np.concatenate(ran[name].rows)), census.sum2) if name in ran else regime
        for name, regime in ((TWO, two), (THREE, three))
    ]
    return Tiers(found[0], found[1], census.max_abs, 1)
