"""Error feedback: the model runs block after block, and each matrix is quantized while its inputs are known."""

from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels import Context, Factor, factor_of
from studio.core.counting import counted
from studio.core.events import Event, Progress, Started, Warned
from studio.core.model import Matrix, Model
from studio.core.names import printable
from studio.core.planning.plan import Choice
from studio.core.running.engine import Engine, Sink
from studio.core.running.passes import FirstPass, multipliers
from studio.core.running.pipeline import scopes
from studio.core.running.reading import Slab, read_slab, slabs
from studio.core.running.solved import Solved, Writer
from studio.core.statistics.guides import StatisticsGuide
from studio.core.statistics.moments import second_moments


def feed_forward(
    engine: Engine, model: Model, choices: Sequence[Choice], folder: Path, sink: Sink
) -> Generator[Event, None, Engine]:
    """Quantize the matrices whose method is feedback into `folder`; the engine that is returned has them.

    The model runs in a process of its own. `sink` says what multiplier readers will compute. What a stopped run left in
    the folder is not done again. Matrices of which nothing comes are quantized as `Method.otherwise` says, with a
    warning. Raises StudioError.
    """
    chosen = [choice for choice in choices if choice.method == "feedback"]
    if not chosen:
        return engine
    solved = Solved(folder)
    solved.begin(_identity(chosen))
    work = _Work(engine, choices, solved, sink)
    yield Started("feedback", sum(choice.layer.nbytes for choice in chosen), len(chosen))
    yield from work.skip(chosen)
    if not all(solved.holds(matrix) for _, matrix in _matrices(chosen)):
        yield from work.run(model, chosen)
    yield from work.rest(chosen)
    return replace(engine, solved=solved)


def _identity(chosen: Sequence[Choice]) -> str:
    digest = sha256()
    for choice in chosen:
        stored, guide = choice.layer.stored, choice.guide.meaning if choice.guide else ""
        file = (stored.file.path.name, stored.file.fingerprint.size, stored.file.fingerprint.version)
        layer = choice.layer
        digest.update(repr((layer.name, choice.recipe, guide, layer.source.meaning, layer.lift, file)).encode())
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

    def run(self, model: Model, chosen: Sequence[Choice]) -> Iterator[Event]:
        """Run the model, and quantize the matrices of each input as its second moments come."""
        guides = (choice.guide for choice in chosen)
        path = next(guide.statistics.path for guide in guides if isinstance(guide, StatisticsGuide))
        with closing(second_moments(model.path, path)) as moments:
            for names, square in moments:
                yield Progress("feedback", self._done, "")  # a place to stop, while the model runs too
                yield from self.solve(names, square)

    def solve(self, names: Sequence[str], square: NDArray[np.float32] | None) -> Iterator[Event]:
        """Quantize the matrices that have one input."""
        wanted = [name for name in names if name in self._choice and self._choice[name].method == "feedback"]
        if square is None or all(self._solved.holds(self._matrix(name)) for name in wanted):
            return
        try:
            factor = factor_of(square, threads=self._engine.threads)
        except ValueError as error:
            self._missed[str(error).partition("] ")[2]] += wanted
            return
        for name in wanted:
            matrix = self._matrix(name)
            if not self._solved.holds(matrix):
                self._encode(self._choice[name], matrix, factor)
                yield self._advance(self._choice[name], matrix)

    def _matrix(self, name: str) -> Matrix:
        return next(matrix for matrix in self._choice[name].layer.matrices if matrix.name == name)

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
