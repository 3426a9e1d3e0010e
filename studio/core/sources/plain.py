"""Plain: weights stored as the numbers they are; and the one place that knows where the rows of a matrix lie."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from studio.core.containers.dtypes import ARRAY_DTYPES, BITS
from studio.core.model import Matrix, Stored
from studio.core.scratch import Scratch, memory


def read_rows(stored: Stored, matrix: Matrix, start: int, stop: int, scratch: Scratch | None = None) -> NDArray[Any]:
    """Rows `start` .. `stop` of a matrix, as they are stored."""
    count = (stop - start) * matrix.columns
    flat = read_elements(stored, matrix.first + start * matrix.columns, count, scratch)
    return flat.reshape(stop - start, matrix.columns)


def read_elements(stored: Stored, first: int, count: int, scratch: Scratch | None = None) -> NDArray[Any]:
    """`count` elements of a stored tensor from element `first` on, flat."""
    dtype = ARRAY_DTYPES[stored.tensor.dtype]
    raw = memory(count * dtype.itemsize, scratch)
    stored.file.read_into(raw.data, stored.tensor.start + first * dtype.itemsize)
    return raw.view(dtype)


@dataclass(frozen=True, slots=True)
class Plain:
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
