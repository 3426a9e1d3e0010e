"""Proving: what a conversion would lose, counted before anything is written; reads each weight once."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kernels import Format
from kernels.casts import exact_blocks
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.model import Layer, Matrix
from studio.core.running.engine import Engine
from studio.core.running.reading import Slab, read_slab, slabs
from studio.core.running.tasks import bundles

_LIVE = 0x77

Counts = NDArray[np.float64]
Count = Callable[[Engine, Slab], Counts]
"""What is counted of a slab: numbers that add up."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be counted of a matrix of a layer, so many rows together."""

    layer: Layer
    matrix: Matrix
    count: Count
    together: int = 1


@dataclass(frozen=True, slots=True)
class _Step:
    """A slab to count; None is the end of its matrix."""

    nbytes: int
    job: Callable[[], Counts] | None


def answers(engine: Engine, questions: Iterable[Question]) -> Iterator[tuple[Question, Counts]]:
    """The questions in order, each with what was counted of its whole matrix."""
    asked = list(questions)
    steps = (step for question in asked for step in _steps(engine, question))
    with engine.tasks() as tasks:
        found = (part for parts in tasks.in_order(partial(_run, bundle) for bundle in bundles(steps)) for part in parts)
        for question in asked:
            total: Counts = np.zeros(0)
            for part in found:
                if part is None:
                    break
                total = part if not total.size else total + part
            yield question, total


def _run(bundle: list[_Step]) -> list[Counts | None]:
    return [step.job() if step.job else None for step in bundle]


def _steps(engine: Engine, question: Question) -> Iterator[_Step]:
    for slab in slabs(question.layer, question.matrix, engine.slab_nbytes, question.together):
        yield _Step(slab.nbytes, partial(question.count, engine, slab))
    yield _Step(0, None)


def exponents(_engine: Engine, slab: Slab) -> Counts:
    """How many blocks with a code other than zero have each of the 256 E8M0 scales: [256]."""
    packed = slab.layer.source.packed(slab.matrix, slab.start, slab.stop)
    codes = packed.codes.reshape(packed.scales.shape[0], packed.scales.shape[1], -1)
    live = ((codes & np.uint8(_LIVE)) != 0).any(axis=2)
    return np.bincount(packed.scales[live], minlength=256).astype(np.float64)


def castable(row: Format, g: float) -> Count:
    """How many blocks a cast to `row` with the tensor scale `g` writes exactly, of how many: [2].

    Scales of integers are to be in the dtype that the layer is kept in.
    """

    def count(_engine: Engine, slab: Slab) -> Counts:
        dtype = WEIGHT_DTYPES[slab.layer.kept_dtype] if row.affine else None
        exact = exact_blocks(slab.layer.source.packed(slab.matrix, slab.start, slab.stop), row, g, dtype)
        return np.array([exact.sum(), exact.size], np.float64)

    return count


def rounded(engine: Engine, slab: Slab) -> Counts:
    """Weights that are exact in the dtype they are kept in, how many there are, and the squares of errors and weights.

    What is no number stays so in every dtype, and is exact.
    """
    weights = read_slab(slab, engine.scratch)
    with np.errstate(over="ignore", invalid="ignore"):  # what becomes Inf is an error
        kept = weights.astype(WEIGHT_DTYPES[slab.layer.kept_dtype]).astype(np.float32)
        exact = (kept == weights) | np.isnan(weights)
        errors = np.where(exact, 0, weights.astype(np.float64) - kept)
        squares = np.square(weights, dtype=np.float64)
    return np.array([exact.sum(), exact.size, np.square(errors).sum(), squares.sum(where=np.isfinite(squares))])
