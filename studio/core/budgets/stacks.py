"""Stacks: slabs of equal shape that are encoded alike and compared together, as small matrices are little work each."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import Recipe
from kernels.fidelity import widen
from kernels.methods import method_of
from kernels.quantized import Quantized
from studio.core.model import Guide, Matrix
from studio.core.running.encoding import encoded, rows_of
from studio.core.running.engine import Engine
from studio.core.running.reading import Slab, read_slab
from studio.core.running.tasks import BUNDLE_NBYTES

Floats = NDArray[np.float64]

_AT_ONCE = 1 << 16
"""Weights whose errors are looked at together."""

_INPUTS = 16
"""Matrices whose inputs are kept in memory: slabs of one follow each other."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A slab, the recipes that it is tried in, and the tensor scale that it has in each of them."""

    slab: Slab
    recipes: tuple[Recipe, ...] = ()
    scales: tuple[float, ...] = ()

    @property
    def likeness(self) -> Hashable:
        """Equal for pieces that make one stack; recipes are told by the tuple that like pieces share."""
        slab, layer = self.slab, self.slab.layer
        return slab.stop - slab.start, slab.matrix.columns, layer.dtype, layer.kept_dtype, id(self.recipes)


Stack = Sequence[Piece]
"""Pieces that are alike."""

Look = Callable[[Engine, Stack], Floats]
"""What is found of a stack: numbers [pieces, ...]."""


def found(engine: Engine, look: Look, pieces: Iterable[Piece]) -> Iterator[tuple[Stack, Floats]]:
    """Every piece in a stack of like ones, and what `look` finds of these."""
    cut = list(_stacks(pieces))
    with engine.tasks() as tasks:
        yield from zip(cut, tasks.in_order(partial(look, engine, stack) for stack in cut), strict=True)


def _stacks(pieces: Iterable[Piece]) -> Iterator[Stack]:
    waiting: dict[Hashable, list[Piece]] = defaultdict(list)
    for piece in pieces:
        most = max(BUNDLE_NBYTES // max(piece.slab.nbytes, 1), 1)
        stack = waiting[piece.likeness]
        stack.append(piece)
        if len(stack) >= most:
            yield waiting.pop(piece.likeness)
    yield from waiting.values()


def peaks(engine: Engine, stack: Stack) -> Floats:
    """The largest magnitudes of pieces, [pieces]; Inf or NaN where there are such weights."""
    weights = _read(engine, stack)
    unsigned = np.dtype(f"u{weights.itemsize}")
    magnitudes = weights.view(unsigned) & unsigned.type(np.iinfo(unsigned).max >> 1)  # they rise with the number
    largest = magnitudes.reshape(len(stack), -1).max(axis=1, initial=0)
    found: Floats = largest.view(weights.dtype).astype(np.float64)
    return found


def sums(engine: Engine, stack: Stack) -> Floats:
    """[pieces, 2 + 2 recipes]: squares at the outputs and of the weights, then those of the errors of each recipe.

    Outputs count as often as a matrix was used while statistics were gathered.
    """
    weights = _read(engine, stack)
    guides = [(piece.slab.layer.guide, piece.slab.matrix) for piece in stack]
    used, known = zip(*(_inputs(guide, matrix) if guide else (1, None) for guide, matrix in guides), strict=True)
    parts = [_squares(engine, weights, (), known)]
    for number, recipe in enumerate(stack[0].recipes):
        parts.append(_squares(engine, weights, _encoded(engine, stack, weights, number, recipe), known))
    total = np.concatenate(parts, axis=1)
    total[:, 0::2] *= np.array(used, np.float64)[:, None]
    return total


def _read(engine: Engine, stack: Stack) -> NDArray[Any]:
    """The weights of all pieces, one below the other."""
    if len(stack) == 1:
        return read_slab(stack[0].slab, engine.scratch)
    with stack[0].slab.layer.stored.file.held():
        return np.concatenate([read_slab(piece.slab) for piece in stack])


_Parts = Sequence[tuple[int, Quantized]]
"""Encoded weights below each other, each with the number of its first row."""


def _encoded(engine: Engine, stack: Stack, weights: NDArray[Any], number: int, recipe: Recipe) -> _Parts:
    """The weights in the recipe with this `number`: together as far as nothing but their scale is known of them."""
    height, parts, first = len(weights) // len(stack), list[tuple[int, Quantized]](), 0
    apart = recipe.format.height > 1 or (
        method_of(recipe.method).needs and any(piece.slab.layer.guide for piece in stack)
    )
    while first < len(stack):
        slab, g, stop = stack[first].slab, stack[first].scales[number], first + 1
        while stop < len(stack) and not apart and stack[stop].scales[number] == g:
            stop += 1
        rows = weights[first * height : stop * height]
        parts.append((first * height, encoded(engine.backend, slab.layer, slab.matrix, rows, recipe, g)))
        first = stop
    return parts


def _decoded(engine: Engine, parts: _Parts, start: int, stop: int) -> NDArray[np.float32]:
    """Rows `start` .. `stop` of encoded weights."""
    found = [
        engine.backend.decode(rows_of(part, slice(max(start - first, 0), stop - first)))
        for first, part in parts
        if first < stop and first + len(part.codes) > start
    ]
    return found[0] if len(found) == 1 else np.concatenate(found)


_Known = Sequence[NDArray[np.float32] | None]


def _squares(engine: Engine, weights: NDArray[Any], parts: _Parts, known: _Known) -> Floats:
    """Sums of squares at the outputs and in the weights: of what is lost, of the weights where nothing is encoded."""
    total = np.zeros((len(known), 2))
    height = len(weights) // len(known)
    for pieces, rows in _chunks(len(known), height, weights.shape[1]):
        start, stop = pieces.start * height + rows.start, (pieces.stop - 1) * height + rows.stop
        part = widen(weights[start:stop])
        if parts:
            part = part - _decoded(engine, parts, start, stop)
        shaped = part.reshape(pieces.stop - pieces.start, -1, part.shape[1])
        columns = np.einsum("kij,kij->kj", shaped, shaped, dtype=np.float64)
        plain = columns.sum(axis=1)
        total[pieces, 1] += plain
        total[pieces, 0] += [_at_outputs(*one) for one in zip(shaped, columns, plain, known[pieces], strict=True)]
    return total


def _chunks(count: int, height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Pieces, and rows of them, whose weights are looked at together: several pieces, or some rows of one."""
    together = _AT_ONCE // max(height * width, 1)
    if together:
        for first in range(0, count, together):
            yield slice(first, min(first + together, count)), slice(0, height)
        return
    rows = max(_AT_ONCE // width, 1)
    for piece in range(count):
        for start in range(0, height, rows):
            yield slice(piece, piece + 1), slice(start, min(start + rows, height))


def _at_outputs(part: NDArray[np.float32], columns: Floats, plain: float, known: NDArray[np.float32] | None) -> float:
    if known is None:
        return plain
    if known.ndim == 1:
        return float(columns @ known)
    blocks = part.reshape(len(part), len(known), -1).transpose(1, 0, 2)
    return float(((blocks @ known) * blocks).sum(dtype=np.float64))


@lru_cache(maxsize=_INPUTS)
def _inputs(guide: Guide, matrix: Matrix) -> tuple[int, NDArray[np.float32] | None]:
    return guide.moments(matrix) or (1, None)
