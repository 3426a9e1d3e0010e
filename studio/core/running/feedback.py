"""Error feedback: the model runs block after block, and each matrix is quantized while its inputs are known."""

from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from kernels import Context, Factor, factor_of
from studio.core.counting import counted
from studio.core.events import Event, Progress, Started, Warned
from studio.core.model import Matrix
from studio.core.names import printable
from studio.core.planning.plan import Choice
from studio.core.running.engine import Engine, Sink
from studio.core.running.passes import FirstPass, multipliers
from studio.core.running.pipeline import scopes
from studio.core.running.reading import Slab, read_slab, slabs
from studio.core.running.solved import Solved, Writer

Moments = tuple[Sequence[str], NDArray[np.float32] | None]
"""Names of matrices with one input, and its second moments [K, K]; None for an expert that too few tokens reached."""


def feed_forward(
    engine: Engine,
    choices: Sequence[Choice],
    solved: Solved,
    moments: Callable[[Sequence[str]], Iterator[Moments]],
    sink: Sink,
) -> Generator[Event, None, Engine]:
    """Quantize the matrices whose method is feedback; the engine that is returned has them.

    `moments` runs the model for the matrices of these names; `sink` says what multiplier readers will compute. What a
    stopped run left in `solved` is not done again. Matrices of which nothing comes are quantized as `Method.otherwise`
    says, with a warning. Raises what `moments` and reading raise.
    """
    chosen = [choice for choice in choices if choice.method == "feedback"]
    if not chosen:
        return engine
    solved.begin(_identity(chosen))
    work = _Work(engine, choices, solved, sink)
    yield Started("feedback", sum(choice.layer.nbytes for choice in chosen), len(chosen))
    left = [matrix.name for choice in chosen for matrix in choice.layer.matrices if not solved.holds(matrix)]
    yield from work.skip(chosen)
    for names, square in moments(left) if left else ():
        yield from work.solve(names, square)
    yield from work.rest(chosen)
    return replace(engine, solved=solved)


def _identity(chosen: Sequence[Choice]) -> str:
    digest = sha256()
    for choice in chosen:
        stored, guide = choice.layer.stored, choice.guide.meaning if choice.guide else ""
        file = (stored.file.path.name, stored.file.fingerprint.size, stored.file.fingerprint.mtime_ns)
        digest.update(repr((choice.layer.name, choice.recipe, guide, choice.layer.source.meaning, file)).encode())
    return digest.hexdigest()


class _Work:
    def __init__(self, engine: Engine, choices: Sequence[Choice], solved: Solved, sink: Sink) -> None:
        self._engine, self._solved, self._sink = engine, solved, sink
        self._choice = {m.name: choice for choice in choices for m in choice.layer.matrices if choice.recipe}
        self._scope = {choice.layer.name: scope for scope in scopes(choices) for choice in scope}
        self._known: tuple[int, dict[tuple[str, str], float]] = (0, {})
        self._missed: dict[str, list[str]] = defaultdict(list)
        self._done = 0

    def skip(self, chosen: Sequence[Choice]) -> Iterator[Event]:
        """Count what a stopped run left."""
        for choice, matrix in _matrices(chosen):
            if self._solved.holds(matrix):
                yield self._advance(choice, matrix)

    def solve(self, names: Sequence[str], square: NDArray[np.float32] | None) -> Iterator[Event]:
        """Quantize the matrices that have one input."""
        wanted = [name for name in names if name in self._choice and self._choice[name].method == "feedback"]
        if not wanted or square is None:
            return
        try:
            factor = factor_of(square, threads=self._engine.threads)
        except ValueError as error:
            self._missed[str(error).partition("] ")[2]] += wanted
            return
        for name in wanted:
            matrix = next(m for m in self._choice[name].layer.matrices if m.name == name)
            if not self._solved.holds(matrix):
                self._encode(self._choice[name], matrix, factor)
                yield self._advance(self._choice[name], matrix)

    def rest(self, chosen: Sequence[Choice]) -> Iterator[Event]:
        """Quantize without feedback what could not have it, and say so."""
        left = [(choice, matrix) for choice, matrix in _matrices(chosen) if not self._solved.holds(matrix)]
        for choice, matrix in left:
            self._encode(choice, matrix, None)
            yield self._advance(choice, matrix)
        told = {name for names in self._missed.values() for name in names}
        silent = [matrix.name for _, matrix in left if matrix.name not in told]
        for why, names in [*self._missed.items(), ("no inputs reached it", silent)]:
            if names:
                many = counted(len(names), "matrix", "matrices")
                yield Warned(f"{many}, {printable(names[0])} first, without feedback: {why}")

    def _advance(self, choice: Choice, matrix: Matrix) -> Progress:
        share = matrix.rows * matrix.columns / choice.layer.count
        self._done += round(choice.layer.nbytes * share)
        return Progress("feedback", self._done, choice.layer.name)

    def _encode(self, choice: Choice, matrix: Matrix, factor: Factor | None) -> None:
        assert choice.recipe is not None
        g = self._multipliers(choice).get((choice.layer.name, matrix.name), 1.0)
        known = choice.guide.context(matrix) if choice.guide else Context()
        context = replace(known, factor=factor)
        parts = list(slabs(choice.layer, matrix, self._engine.slab_nbytes))
        with self._solved.writing(matrix, choice.recipe.format, g) as writer, self._engine.tasks() as tasks:
            for _ in tasks.in_order(partial(self._slab, choice, slab, g, context, writer) for slab in parts):
                pass

    def _slab(self, choice: Choice, slab: Slab, g: float, context: Context, writer: Writer) -> None:
        assert choice.recipe is not None
        weights = read_slab(slab, self._engine.scratch)
        encoded = self._engine.backend.encode(weights, choice.recipe, g, context=context, measure=False)
        writer.write(slab.start, encoded.quantized)

    def _multipliers(self, choice: Choice) -> dict[tuple[str, str], float]:
        """The tensor scales of all matrices that share one with a layer: as the run will find them."""
        scope = self._scope[choice.layer.name]
        if self._known[0] != id(scope):
            with self._engine.tasks() as tasks:
                first = FirstPass(self._engine, tasks, scope, Sink())
                for _ in first.gather():
                    pass
            self._known = id(scope), multipliers(scope, first.peaks, self._sink)
        return self._known[1]


def _matrices(chosen: Sequence[Choice]) -> Iterator[tuple[Choice, Matrix]]:
    return ((choice, matrix) for choice in chosen for matrix in choice.layer.matrices)
