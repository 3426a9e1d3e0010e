"""Reading weights: slabs of rows as arrays, FP8 widened, nothing larger than a slab in memory."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from studio.core.containers.dtypes import ARRAY_DTYPES, WEIGHT_DTYPES
from studio.core.model import Layer, Matrix, Stored

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
        """Bytes on disk."""
        return (self.stop - self.start) * self.matrix.columns * _itemsize(self.layer)


def slabs(layer: Layer, matrix: Matrix, nbytes: int = SLAB_NBYTES) -> Iterator[Slab]:
    """The matrix cut into slabs of about `nbytes`, whole blocks of an FP8 source."""
    unit = layer.scale_block[0] if layer.scale_block[0] < matrix.rows else 1
    height = max(nbytes // (matrix.columns * _itemsize(layer)) // unit, 1) * unit
    for start in range(0, matrix.rows, height):
        yield Slab(layer, matrix, start, min(start + height, matrix.rows))


def slab_memory(layer: Layer, nbytes: int = SLAB_NBYTES) -> int:
    """Upper bound in bytes of the memory that one task needs for a slab of `layer`: input, wide copies, output."""
    rows = [next(slabs(layer, matrix, nbytes)) for matrix in layer.matrices]
    widest = max((slab.nbytes for slab in rows), default=nbytes)
    return widest * (10 if layer.scale is not None else 3)


class Scratch(threading.local):
    """One buffer per thread, used again for every slab: memory that is new costs more than the read itself."""

    def __init__(self) -> None:
        self._buffer = np.empty(0, np.uint8)

    def take(self, nbytes: int) -> NDArray[np.uint8]:
        """`nbytes` of this thread's buffer, valid until it is taken again."""
        if self._buffer.size < nbytes:
            self._buffer = np.empty(nbytes, np.uint8)
        return self._buffer[:nbytes]


def read_slab(slab: Slab, scratch: Scratch | None = None) -> NDArray[Any]:
    """The weights of a slab [rows, columns] in bf16, fp16 or fp32; an FP8 source becomes bf16.

    With `scratch` the array lives in the thread's buffer and is valid until the next slab is read there.
    """
    layer, matrix = slab.layer, slab.matrix
    shape = (slab.stop - slab.start, matrix.columns)
    first = matrix.first + slab.start * matrix.columns
    stored = read_elements(layer.stored, first, shape[0] * shape[1], scratch).reshape(shape)
    return stored if layer.scale is None else _widen(stored, slab)


def read_elements(stored: Stored, first: int, count: int, scratch: Scratch | None = None) -> NDArray[Any]:
    """`count` elements of a stored tensor from element `first` on, flat."""
    dtype = ARRAY_DTYPES[stored.tensor.dtype]
    nbytes = count * dtype.itemsize
    raw = scratch.take(nbytes) if scratch else np.empty(nbytes, np.uint8)
    stored.file.read_into(raw.data, stored.tensor.start + first * dtype.itemsize)
    return raw.view(dtype)


def _itemsize(layer: Layer) -> int:
    return ARRAY_DTYPES[layer.tensor.dtype].itemsize


def _widen(stored: NDArray[Any], slab: Slab) -> NDArray[Any]:
    """FP8 x scale in float32, rounded to bf16; the scale of a weight is that of its block."""
    assert slab.layer.scale is not None
    rows, columns = slab.layer.scale_block
    scale = slab.layer.scale
    grid = read_elements(scale, 0, scale.tensor.nbytes // WEIGHT_DTYPES[scale.tensor.dtype].itemsize)
    grid = grid.astype(np.float32).reshape(-(-slab.layer.shape[0] // rows), -1)
    chosen = grid[np.arange(slab.start, slab.stop) // rows]
    factors = np.repeat(chosen, columns, axis=1)[:, : stored.shape[1]]
    with np.errstate(over="ignore", invalid="ignore"):  # Inf and NaN are counted and refused with their numbers
        return (stored.astype(np.float32) * factors).astype(ml_dtypes.bfloat16)
