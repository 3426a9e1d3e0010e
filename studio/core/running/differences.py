"""Differences: the weights of one checkpoint against the same weights of another, whatever both are stored in."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from kernels.fidelity import relative_error
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.model import Layer, Matrix, Model
from studio.core.names import printable
from studio.core.running.engine import Engine
from studio.core.running.proving import Counts, Question, answers
from studio.core.running.reading import Slab, read_slab
from studio.core.sources.plain import PLAIN_BITS, Plain

_AT_ONCE = 1 << 16
"""Weights that are compared in float64 at once."""
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Counterpart:
    """A matrix of a layer, and the one of another checkpoint that should hold the same weights."""

    matrix: Matrix
    other: Layer
    its: Matrix


@dataclass(frozen=True, slots=True)
class Couple:
    """A layer of a reference and where another checkpoint has its weights, or why that has not.

    `rounded`: the layer is taken as it would be kept, in its `kept_dtype`.
    """

    layer: Layer
    parts: tuple[Counterpart, ...] = ()
    obstacle: str = ""
    rounded: bool = False

    @property
    def stored_as(self) -> str:
        """The format that the other checkpoint has it in, or its dtype."""
        return " and ".join(sorted({stored_as(part.other) for part in self.parts}))

    @property
    def nbytes(self) -> int:
        """Bytes that it takes there, its share of layers that hold more."""
        shares = (p.other.nbytes * p.its.rows * p.its.columns / max(p.other.count, 1) for p in self.parts)
        return round(sum(shares))

    @property
    def is_plain(self) -> bool:
        """True where it is stored there as numbers, not as codes."""
        return all(part.other.source.bits >= PLAIN_BITS for part in self.parts)


def stored_as(layer: Layer) -> str:
    """The format of the weights of a layer, the dtype of plain ones, or what else they are."""
    source = layer.source
    if source.format is not None:
        return source.format.name
    return layer.tensor.dtype if isinstance(source, Plain) else source.meaning


def itself(layer: Layer) -> Couple:
    """A layer and the whole of it."""
    return Couple(layer, (Counterpart(layer.whole, layer, layer.whole),))


class Counterparts:
    """Finds the weights of layers in a model: under the same name, or as matrices of a stack, or one by one."""

    def __init__(self, model: Model) -> None:
        self._layers = model.by_name
        alone = {layer.name: (layer, layer.whole) for layer in model.layers if len(layer.shape) == 2}
        self._matrices = alone | {m.name: (layer, m) for layer in model.layers for m in layer.matrices}

    def of(self, layer: Layer, *, rounded: bool = False) -> Couple:
        """The counterparts of a layer: itself as a whole, or each of its matrices."""
        same = self._layers.get(layer.name)
        if same is not None and same.shape == layer.shape and _kind(same) == _kind(layer):
            return replace(itself(same), layer=layer, rounded=rounded)
        found = [self._matrices.get(matrix.name) for matrix in layer.matrices]
        parts = tuple(
            Counterpart(m, *one) for m, one in zip(layer.matrices, found, strict=True) if one and _fit(m, one)
        )
        if parts and len(parts) == len(layer.matrices):
            return Couple(layer, parts, rounded=rounded)
        return Couple(layer, obstacle=_obstacle(layer, same))


def _kind(layer: Layer) -> str:
    """The dtype of what is only copied, and nothing for weights."""
    return "" if layer.dtype in WEIGHT_DTYPES else layer.dtype


def _fit(matrix: Matrix, found: tuple[Layer, Matrix]) -> bool:
    return (matrix.rows, matrix.columns) == (found[1].rows, found[1].columns)


def _obstacle(layer: Layer, same: Layer | None) -> str:
    if same is None:
        return "missing"
    if same.shape != layer.shape:
        return f"of shape {printable(list(same.shape))} there, {printable(list(layer.shape))} here"
    return f"{same.dtype} there, {layer.dtype} here"


@dataclass(frozen=True, slots=True)
class Difference:
    """How far the counterpart of a layer is from it.

    weights: how many were compared, `equal` of them the same but for the sign of zero. error: sum of the squares of
    their differences, squares: of the layer's weights, both over those that are finite on both sides. nonfinite: NaN
    and Inf in the layer; nonfinite_there: in the counterpart; unlike: how many weights are that on one side alone.
    """

    couple: Couple
    weights: int = 0
    equal: int = 0
    error: float = 0.0
    squares: float = 0.0
    nonfinite: int = 0
    nonfinite_there: int = 0
    unlike: int = 0

    @property
    def layer(self) -> Layer:
        """The layer."""
        return self.couple.layer

    @property
    def is_equal(self) -> bool:
        """True when the counterpart has all weights of the layer."""
        return not self.couple.obstacle and self.equal == self.weights

    @property
    def rel_err(self) -> float:
        """||layer - counterpart|| / ||layer||."""
        return relative_error(self.error, self.squares)


def differences(engine: Engine, couples: Iterable[Couple]) -> Iterator[Difference]:
    """What each couple differs in, in order; slabs of both lie in memory, of half the size.

    Raises CheckpointError for what can not be read.
    """
    asked = list(couples)
    smaller = replace(engine, slab_nbytes=max(engine.slab_nbytes // 2, 1))
    found = answers(smaller, (question for couple in asked for question in _questions(couple)))
    for couple in asked:
        counts = [numbers for _, numbers in islice(found, sum(1 for _ in _questions(couple)))]
        yield _difference(couple, counts) if not _kind(couple.layer) else _copied(couple)


def _questions(couple: Couple) -> Iterator[Question]:
    for part in couple.parts if not _kind(couple.layer) else ():
        yield Question(couple.layer, part.matrix, _Against(part, couple.rounded))


@dataclass(frozen=True, slots=True)
class _Against:
    """Counts, of a slab: weights, equal ones, squares of errors and of weights, NaN and Inf here, there and in one."""

    part: Counterpart
    rounded: bool

    def __call__(self, engine: Engine, slab: Slab) -> Counts:
        own = read_slab(slab, engine.scratch)
        if self.rounded:
            with np.errstate(over="ignore", invalid="ignore"):
                own = own.astype(WEIGHT_DTYPES[slab.layer.kept_dtype])
        theirs = read_slab(Slab(self.part.other, self.part.its, slab.start, slab.stop))
        height = max(_AT_ONCE // max(slab.matrix.columns, 1), 1)
        starts = range(0, len(own), height)
        counts = [_compared(own[at : at + height], theirs[at : at + height]) for at in starts]
        total: Counts = np.sum(counts, axis=0)
        return total


def _compared(own: "NDArray[np.generic]", theirs: "NDArray[np.generic]") -> Counts:
    a, b = own.astype(np.float64), theirs.astype(np.float64)
    here, there = np.isfinite(a), np.isfinite(b)
    equal = (a == b) | (np.isnan(a) & np.isnan(b))
    both = here & there
    errors = np.subtract(a, b, out=np.zeros_like(a), where=both)
    squares = np.square(a, out=np.zeros_like(a), where=both)
    lost = (~here).sum(), (~there).sum(), (~both & ~equal).sum()
    return np.array([a.size, equal.sum(), np.square(errors).sum(), squares.sum(), *lost], np.float64)


def _difference(couple: Couple, counts: Sequence[Counts]) -> Difference:
    filled = [numbers for numbers in counts if numbers.size]
    if not filled:
        return Difference(couple)
    weights, equal, error, squares, *lost = np.sum(filled, axis=0)
    return Difference(couple, int(weights), int(equal), float(error), float(squares), *map(int, lost))


def _copied(couple: Couple) -> Difference:
    """What is no weight, and copied as it is: its bytes are the same, or none is."""
    layer = couple.layer
    same = all(_same_bytes(layer, part.other) for part in couple.parts)
    return Difference(couple, layer.count, layer.count if same else 0)


def _same_bytes(layer: Layer, other: Layer) -> bool:
    size = layer.tensor.nbytes
    if size != other.tensor.nbytes:
        return False
    reads = ((start, min(_CHUNK, size - start)) for start in range(0, size, _CHUNK))
    return all(
        layer.stored.file.read(layer.tensor.start + start, count)
        == other.stored.file.read(other.tensor.start + start, count)
        for start, count in reads
    )
