"""Guides from statistics: what a method may know of the inputs of a layer."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from kernels import Context, importance_of, moments_of
from kernels.search import GUIDED_EDITION
from studio.core.counting import counted
from studio.core.model import Layer, Matrix, Model
from studio.core.names import printable
from studio.core.statistics.inputs import BLOCK, COLUMNS, ROWS, LayerInputs
from studio.core.statistics.opening import StatisticsFile, unseen

PRIOR_TOKENS = 1
"""Tokens that say that the columns of a block are alike: one or two tokens do not tell all of an expert."""


@dataclass(frozen=True, slots=True)
class StatisticsGuide:
    """What a statistics file knows of the inputs of a layer, see `Guide`."""

    name: str
    digest: str
    known: frozenset[str]
    layer: Layer = field(compare=False, repr=False)
    statistics: StatisticsFile = field(compare=False, repr=False)

    origin = "statistics"

    @property
    def meaning(self) -> str:
        """See `Guide`."""
        return f"statistics {self.digest}, {GUIDED_EDITION}"

    def context(self, matrix: Matrix) -> Context:
        """See `Guide.context`; an expert that no token was routed to has none."""
        inputs = self.statistics.of(self.layer, matrix)
        return context_of(inputs) if inputs and inputs.tokens and matrix.columns % BLOCK == 0 else Context()

    def moments(self, matrix: Matrix) -> tuple[int, NDArray[np.float32]] | None:
        """See `Guide.moments`; an expert that no token was routed to was used zero times."""
        inputs = self.statistics.of(self.layer, matrix)
        if inputs is None:
            return None
        return inputs.tokens, inputs.mean_square if inputs.moments is None else _squares(inputs.moments)

    def peak(self, matrix: Matrix) -> tuple[int, float]:
        """See `Guide.peak`."""
        return self.statistics.peak_of(self.layer, matrix)


def context_of(inputs: LayerInputs) -> Context:
    """What inputs tell, `PRIOR_TOKENS` that know nothing counted among their tokens."""
    share = PRIOR_TOKENS / (PRIOR_TOKENS + inputs.tokens)
    squares = inputs.mean_square.astype(np.float64).reshape(-1, BLOCK)
    mean = squares.mean(axis=1, keepdims=True)
    importance = importance_of((squares * (1 - share) + mean * share).reshape(-1).astype(np.float32))
    return Context(importance, None if inputs.moments is None else moments_of(_blended(inputs.moments, mean, share)))


def _squares(triangles: NDArray[np.float32]) -> NDArray[np.float32]:
    """Symmetric matrices [blocks, 16, 16] from their upper triangles [blocks, 136]."""
    found = np.empty((len(triangles), BLOCK, BLOCK), np.float32)
    found[:, ROWS, COLUMNS] = found[:, COLUMNS, ROWS] = triangles
    return found


def _blended(moments: NDArray[np.float32], mean: NDArray[np.float64], share: float) -> NDArray[np.float32]:
    blended = moments.astype(np.float64) * (1 - share)
    blended[:, ROWS == COLUMNS] += mean * share
    return blended.astype(np.float32)


def with_statistics(model: Model, statistics: StatisticsFile) -> Model:
    """The model with the inputs of its layers known as far as the file knows them; its files stay shared."""
    return replace(model, layers=tuple(_guided(layer, statistics) for layer in model.layers))


def _guided(layer: Layer, statistics: StatisticsFile) -> Layer:
    if not any(statistics.tokens_of(layer, matrix) for matrix in layer.matrices):
        return layer
    known = {"importance"} if statistics.kind == "imatrix" else {"importance", "moments", "factor"}
    guide = StatisticsGuide(layer.name, statistics.digest, frozenset(known), layer, statistics)
    return replace(layer, guide=guide)


def gaps(model: Model, statistics: StatisticsFile) -> Iterator[str]:
    """What the statistics do not know of `model`, in words."""
    layers, idle = unseen(statistics, model)
    if layers:
        first = printable(layers[0].name)
        yield f"the statistics know nothing of {counted(len(layers), 'layer')}, {first} first: these go without them"
    if idle:
        first = printable(idle[0].name)
        text = "no token of the text was routed to"
        yield f"{text} {counted(len(idle), 'expert matrix', 'expert matrices')}, {first} first: scales by search there"
