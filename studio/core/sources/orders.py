"""Orders: where the bytes of a row lie in a stored part: row by row, in columns of a stack, in tiles."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from studio.core.model import Matrix, Stored
from studio.core.sources.plain import read_rows


class Order(Protocol):
    """How the rows of a part are stored."""

    @property
    def height(self) -> int:
        """Rows of a slice, beyond which no read may go at once; 0 where rows simply follow each other."""
        ...

    def rows(self, part: Stored, start: int, stop: int, nbytes: int) -> NDArray[np.uint8]:
        """Rows `start` .. `stop`, [rows, nbytes]."""
        ...


@dataclass(frozen=True, slots=True)
class ByRow:
    """Row after row."""

    height: ClassVar[int] = 0

    def rows(self, part: Stored, start: int, stop: int, nbytes: int) -> NDArray[np.uint8]:
        """See `Order.rows`."""
        raw = part.file.read(part.tensor.start + start * nbytes, (stop - start) * nbytes)
        return np.frombuffer(raw, np.uint8).reshape(stop - start, nbytes)


@dataclass(frozen=True, slots=True)
class Turned:
    """[slices, nbytes, height]: a row is a column of its slice, as products of batches of experts want it."""

    height: int

    def rows(self, part: Stored, start: int, stop: int, nbytes: int) -> NDArray[np.uint8]:
        """See `Order.rows`."""
        number, first = divmod(start, self.height)
        place = number * nbytes * self.height
        across = Matrix("", self.height, nbytes, place, row_step=1, column_step=self.height)
        return read_rows(part, across, first, first + stop - start).view(np.uint8)


@dataclass(frozen=True, slots=True)
class Tiled:
    """Bytes in tiles of 128 rows x 4, which follow each other row by row; both sides are filled up to whole tiles.

    Byte (32 a + b, c) of a tile is its byte 16 b + 4 a + c: the order in which tensor cores of NVIDIA want scales.
    """

    height: ClassVar[int] = 0

    def rows(self, part: Stored, start: int, stop: int, nbytes: int) -> NDArray[np.uint8]:
        """See `Order.rows`."""
        across, first, last = -(-nbytes // 4), start // 128, -(-stop // 128)
        raw = part.file.read(part.tensor.start + first * across * 512, (last - first) * across * 512)
        tiles = np.frombuffer(raw, np.uint8).reshape(last - first, across, 32, 4, 4)
        every = tiles.transpose(0, 3, 2, 1, 4).reshape((last - first) * 128, across * 4)
        return np.ascontiguousarray(every[start - first * 128 : stop - first * 128, :nbytes])


@dataclass(frozen=True, slots=True)
class Twice:
    """Row after row, every byte of which stands for two."""

    height: ClassVar[int] = 0

    def rows(self, part: Stored, start: int, stop: int, nbytes: int) -> NDArray[np.uint8]:
        """See `Order.rows`."""
        return np.repeat(BY_ROW.rows(part, start, stop, nbytes // 2), 2, axis=1)


BY_ROW = ByRow()
