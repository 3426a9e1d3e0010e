"""Plain: weights stored as the numbers they are; and the one place that knows where the rows of a matrix lie."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.core.containers.dtypes import ARRAY_DTYPES, BITS
from studio.core.model import Matrix, Stored, Unpacked
from studio.core.running.scratch import Scratch, memory

PLAIN_BITS = 16
"""Bits of a weight from which on it is stored as a number, not as a code."""

TURNED_NBYTES = 1 << 20
"""Bytes of stored rows that are read at once for a matrix that lies across them."""


def read_rows(stored: Stored, matrix: Matrix, start: int, stop: int, scratch: Scratch | None = None) -> NDArray[Any]:
    """Rows `start` .. `stop` of a matrix, as they are stored."""
    if matrix.column_step != 1:
        return _read_turned(stored, matrix, start, stop, scratch)
    shape = (stop - start, matrix.columns)
    if matrix.is_contiguous:
        return read_elements(stored, matrix.first + start * matrix.columns, shape[0] * shape[1], scratch).reshape(shape)
    rows = memory(shape[0] * shape[1] * dtype_of(stored).itemsize, scratch).view(dtype_of(stored)).reshape(shape)
    for row in range(start, stop):
        _read_into(stored, matrix.first + row * matrix.row_step, rows[row - start])
    return rows


def _read_turned(stored: Stored, matrix: Matrix, start: int, stop: int, scratch: Scratch | None) -> NDArray[Any]:
    """Rows of a matrix that is stored [inputs, outputs]: columns of stored rows, which are read many at a time.

    What is read beside them comes from the page cache: that costs less than a call per stored row.
    """
    dtype, width = dtype_of(stored), matrix.column_step
    row, column = divmod(matrix.first, width)
    wanted = slice(column + start * matrix.row_step, column + (stop - 1) * matrix.row_step + 1, matrix.row_step)
    turned = memory((stop - start) * matrix.columns * dtype.itemsize, scratch).view(dtype).reshape(stop - start, -1)
    height = max(TURNED_NBYTES // (width * dtype.itemsize), 1)
    for first in range(0, matrix.columns, height):
        count = min(height, matrix.columns - first)
        tile = memory(count * width * dtype.itemsize, scratch, 1).view(dtype).reshape(count, width)
        _read_into(stored, (row + first) * width, tile)
        np.copyto(turned[:, first : first + count], tile[:, wanted].T)
    return turned


def _read_into(stored: Stored, first: int, out: NDArray[Any]) -> None:
    stored.file.read_into(out.reshape(-1).view(np.uint8).data, stored.tensor.start + first * out.itemsize)


def dtype_of(stored: Stored) -> np.dtype[Any]:
    """The numpy dtype of a stored tensor."""
    return ARRAY_DTYPES[stored.tensor.dtype]


def read_elements(stored: Stored, first: int, count: int, scratch: Scratch | None = None) -> NDArray[Any]:
    """`count` elements of a stored tensor from element `first` on, flat."""
    dtype = dtype_of(stored)
    raw = memory(count * dtype.itemsize, scratch)
    stored.file.read_into(raw.data, stored.tensor.start + first * dtype.itemsize)
    return raw.view(dtype)


@dataclass(frozen=True, slots=True)
class Plain(Unpacked):
    """A tensor of any dtype, see `Source`; rows are read of the dtypes that can be quantized."""

    stored: Stored

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Source`."""
        return self.stored.tensor.shape

    @property
    def dtype(self) -> str:
        """See `Source`."""
        return self.stored.tensor.dtype

    @property
    def kept_dtype(self) -> str:
        """See `Source`."""
        return self.stored.tensor.dtype

    @property
    def bits(self) -> int:
        """See `Source`."""
        return BITS[self.stored.tensor.dtype]

    @property
    def nbytes(self) -> int:
        """See `Source`."""
        return self.stored.tensor.nbytes

    @property
    def meaning(self) -> str:
        """See `Source`."""
        return self.stored.tensor.dtype

    def rows(self, matrix: Matrix, start: int, stop: int, scratch: Scratch | None = None) -> NDArray[Any]:
        """See `Source.rows`."""
        return read_rows(self.stored, matrix, start, stop, scratch)
