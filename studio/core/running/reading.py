"""Reading weights: slabs of rows as arrays, nothing larger than a slab in memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.model import Layer, Matrix
from studio.core.running.scratch import Scratch
from studio.core.sources.plain import TURNED_NBYTES

SLAB_NBYTES = 4 << 20
"""Bytes of weights that one task works on: large enough to hide the overhead of a task, small enough for a cache."""


@dataclass(frozen=True, slots=True)
class Slab:
    """Rows `start` .. `stop` of a matrix."""

    layer: Layer
    matrix: Matrix
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        """Bytes on disk, scales left out."""
        return (self.stop - self.start) * self.matrix.columns * self.layer.source.bits // 8


def slabs(layer: Layer, matrix: Matrix, nbytes: int = SLAB_NBYTES, together: int = 1) -> Iterator[Slab]:
    """The matrix cut into slabs of about `nbytes` once read, that many rows `together`."""
    height = _whole(slab_height(layer, matrix, nbytes), together)
    for start in range(0, matrix.rows, height):
        yield Slab(layer, matrix, start, min(start + height, matrix.rows))


def slab_height(layer: Layer, matrix: Matrix, nbytes: int) -> int:
    """Rows of a slab of about `nbytes` once read; one at least."""
    return max(nbytes // (max(matrix.columns, 1) * WEIGHT_DTYPES[layer.dtype].itemsize), 1)


def _whole(rows: int, together: int) -> int:
    return max(rows // together, 1) * together


def slab_memory(layer: Layer, nbytes: int = SLAB_NBYTES, together: int = 1) -> int:
    """Upper bound in bytes of the memory that one task needs for a slab of `layer`: input, wide copies, output.

    together: rows that formats take together.
    """
    matrices = [layer.whole] if layer.widened else layer.matrices
    itemsize = WEIGHT_DTYPES[layer.dtype].itemsize if matrices else 1
    heights = (_whole(slab_height(layer, matrix, nbytes), together) for matrix in matrices)
    tallest = (min(m.rows, height) * m.columns for m, height in zip(matrices, heights, strict=True))
    turned = max((m.column_step * itemsize for m in layer.matrices if m.column_step != 1), default=0)
    rows = max((weights * itemsize for weights in tallest), default=nbytes)
    return rows * (4 if layer.widened else 3) + (max(turned, TURNED_NBYTES) if turned else 0)


def read_slab(slab: Slab, scratch: Scratch | None = None) -> NDArray[Any]:
    """The weights of a slab [rows, columns] in bf16, fp16 or fp32, multiplied by the layer's power of two.

    With `scratch` the array lives in the thread's buffers and is valid until the next slab is read there.
    """
    weights = slab.layer.source.rows(slab.matrix, slab.start, slab.stop, scratch)
    if slab.layer.lift:
        with np.errstate(over="ignore", invalid="ignore"):  # what is NaN or Inf stays so, and is refused or warned of
            np.multiply(weights, weights.dtype.type(2.0**slab.layer.lift), out=weights)
    return weights


def whole_slab(layer: Layer) -> Slab:
    """All of a layer at once, for one that is small: a norm, or biases."""
    return Slab(layer, layer.whole, 0, layer.whole.rows)


def kept_slabs(layer: Layer, *, by_matrix: bool, nbytes: int = SLAB_NBYTES) -> Iterator[tuple[Slab, int]]:
    """The slabs of a kept layer that is not copied byte for byte, each with the number of weights written before it.

    by_matrix: its matrices follow each other, otherwise the weights keep their stored order.
    """
    before = 0
    for matrix in layer.matrices if by_matrix else [layer.whole]:
        for slab in slabs(layer, matrix, nbytes):
            yield slab, before + slab.start * matrix.columns
        before += matrix.rows * matrix.columns


def kept_bytes(slab: Slab, weights: NDArray[Any]) -> NDArray[np.uint8]:
    """What is written of the `weights` of a slab of a layer that is kept; each is rounded once."""
    with np.errstate(over="ignore", invalid="ignore"):  # what was Inf or NaN stays so, and is warned of
        rounded = weights.astype(WEIGHT_DTYPES[slab.layer.kept_dtype], copy=False)
    return rounded.reshape(-1).view(np.uint8)
