"""open_statistics: a statistics file or an importance file of llama.cpp, whichever it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from studio.core.containers.files import SourceFile
from studio.core.model import Layer, Matrix, Model
from studio.core.statistics.file import GatheredFile
from studio.core.statistics.imatrix import ImatrixFile, is_imatrix
from studio.core.statistics.inputs import LayerInputs

_ROLES = ("linear", "expert")


class StatisticsFile(Protocol):
    """Statistics of a model.

    `kind` is "statistics" or "imatrix" (which knows mean squares only), `digest` the SHA-256 of its data, `about` what
    the file says of itself.
    """

    kind: str
    path: Path
    digest: str

    @property
    def about(self) -> Mapping[str, str]:
        """What the file says of where it comes from."""
        ...

    def tokens_of(self, layer: Layer, matrix: Matrix) -> int | None:
        """How many inputs of a matrix were seen, None when nothing is known of it."""
        ...

    def peak_of(self, layer: Layer, matrix: Matrix) -> tuple[int, float]:
        """How many inputs of a matrix were seen, and the largest magnitude among them; (0, 0) where it is unknown."""
        ...

    def of(self, layer: Layer, matrix: Matrix) -> LayerInputs | None:
        """What is known of the inputs of a matrix, None when nothing is; raises CheckpointError for a damaged file."""
        ...


def open_statistics(path: Path, model: Model) -> StatisticsFile:
    """Open a file of statistics for `model`.

    Raises CheckpointError for a file that is malformed, damaged or of another kind, PlanError for statistics of
    another model.
    """
    with SourceFile(path) as file:
        start = bytes(file.read(0, min(file.size, 4096)))
    return ImatrixFile(path, model) if is_imatrix(start) else GatheredFile(path, model)


def unseen(statistics: StatisticsFile, model: Model) -> tuple[list[Layer], list[Matrix]]:
    """Linear layers and experts of which nothing is known, and matrices of experts that no token was routed to."""
    layers, idle = [], []
    for layer in model.layers:
        if layer.role in _ROLES and layer.matrices:
            found = [(matrix, statistics.tokens_of(layer, matrix)) for matrix in layer.matrices]
            if any(tokens is None for _, tokens in found):
                layers.append(layer)
            idle += [matrix for matrix, tokens in found if tokens == 0]
    return layers, idle
