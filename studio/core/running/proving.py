"""Proving: what a conversion would lose, counted before anything is written; reads each weight once."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kernels import Format
from kernels.casts import exact_blocks
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.events import Event, Progress
from studio.core.model import Layer, Matrix, Model
from studio.core.running.engine import Engine
from studio.core.running.reading import Slab, read_slab, slabs
from studio.core.running.spread import Part, PartDone, Spread, cut, in_order
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

    @property
    def nbytes(self) -> int:
        """Bytes that it reads: those of the layer, or the share of the matrix."""
        return self.layer.nbytes // (len(self.layer.matrices) if self.matrix in self.layer.matrices else 1)


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


def answers_elsewhere(spread: Spread, questions: Sequence[Question]) -> Iterator[Event | tuple[Question, Counts]]:
    """The same by other processes, which have opened the same model, among the events of that."""
    ranges = list(cut([question.nbytes for question in questions], spread.size))
    parts = [_part(questions[r.start : r.stop]) for r in ranges]
    for event in in_order(spread.run("prove", parts)):
        if isinstance(event, PartDone):
            yield from zip((questions[i] for i in ranges[event.index]), event.found, strict=True)
        else:
            yield event


def _part(questions: Sequence[Question]) -> Part:
    asked = tuple(map(_asked, questions))
    return Part(questions[0].layer.name, sum(question.nbytes for question in questions), Answer(asked))


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question, as it is sent: `matrix` is an index, -1 for the whole layer."""

    layer: str
    kept_as: str
    matrix: int
    count: Count
    together: int


def _asked(question: Question) -> _Asked:
    layer = question.layer
    at = layer.matrices.index(question.matrix) if question.matrix in layer.matrices else -1
    return _Asked(layer.name, layer.kept_as, at, question.count, question.together)


class Opened(Protocol):
    """What a process that answers has opened."""

    @property
    def model(self) -> Model:
        """The model that is asked about."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """Answers questions in order, in another process."""

    asked: tuple[_Asked, ...]

    def steps(self, engine: Engine, opened: Opened) -> Generator[Event, None, list[Counts]]:
        """See `studio.core.running.spread.Task`. Raises StudioError."""
        found, done = [], 0
        for question, counts in answers(engine, [_question(one, opened.model) for one in self.asked]):
            found.append(counts)
            done += question.nbytes
            yield Progress("prove", done, question.layer.name)
        return found


def _question(asked: _Asked, model: Model) -> Question:
    layer = replace(model.by_name[asked.layer], kept_as=asked.kept_as)
    matrix = layer.whole if asked.matrix < 0 else layer.matrices[asked.matrix]
    return Question(layer, matrix, asked.count, asked.together)


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


@dataclass(frozen=True, slots=True)
class Castable:
    """How many blocks a cast to `row` with the tensor scale `g` writes exactly, of how many: [2].

    Scales of integers are to be in the dtype that the layer is kept in.
    """

    row: Format
    g: float

    def __call__(self, _engine: Engine, slab: Slab) -> Counts:
        """The counts of a slab."""
        dtype = WEIGHT_DTYPES[slab.layer.kept_dtype] if self.row.affine else None
        exact = exact_blocks(slab.layer.source.packed(slab.matrix, slab.start, slab.stop), self.row, self.g, dtype)
        return np.array([exact.sum(), exact.size], np.float64)


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
