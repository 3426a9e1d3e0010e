"""PackedSource: weights stored in parts, row by row, in any encoding; and where the rows of a matrix lie in them."""

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kernels import Format, Quantized
from studio.core.model import Matrix, Stored
from studio.core.running.scratch import Scratch
from studio.core.sources.in_format import TensorScale

_TILE = 1 << 20
"""Weights that are decoded at once for a matrix that lies across the stored rows."""


class Encoding(Protocol):
    """How rows of weights are stored: [rows, columns], the matrices of a stack one above the other."""

    @property
    def columns(self) -> int:
        """Weights of a row."""
        ...

    @property
    def bits(self) -> int:
        """Bits of a code."""
        ...

    @property
    def parts(self) -> tuple[Stored, ...]:
        """All tensors that are read, that of the codes first."""
        ...

    @property
    def meaning(self) -> str:
        """How codes become weights: for people, and to tell two readings of the same bytes apart."""
        ...

    @property
    def format(self) -> Format | None:
        """The format whose bytes `packed` gives; None for an encoding that can only be decoded."""
        ...

    @property
    def scale_dtype(self) -> str:
        """See `Source.scale_dtype`."""
        ...

    def decode(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows `start` .. `stop`, [rows, columns]; raises CheckpointError for scales that are no numbers."""
        ...

    def packed(self, start: int, stop: int) -> Quantized:
        """Rows `start` .. `stop` of one matrix as they are stored; raises CheckpointError as `decode` does."""
        ...

    def multiplier(self, row: int) -> float:
        """The tensor scale of a row, see `Source.multiplier`."""
        ...


class DecodedOnly:
    """What encodings in no format that can be handed on have in common, see `Encoding`."""

    __slots__ = ()

    @property
    def format(self) -> Format | None:
        """See `Encoding`."""
        return None

    @property
    def scale_dtype(self) -> str:
        """See `Encoding`."""
        return ""

    def packed(self, start: int, stop: int) -> Quantized:
        """See `Encoding.packed`; an error here."""
        raise ValueError(f"[packed] {type(self).__name__} is no format that can be handed on")

    def multiplier(self, row: int) -> float:
        """See `Encoding.multiplier`."""
        return 1.0


@dataclass(frozen=True, slots=True)
class PackedSource:
    """Weights of `shape` in an encoding, see `Source`; rows are decoded to float32.

    turned: weights [..., inputs, outputs] whose rows are stored as outputs, which a plain checkpoint stores as columns.
    inputs: the scale that readers quantize the inputs of all of it with, where they do.
    """

    encoding: Encoding
    shape: tuple[int, ...]
    kept_dtype: str = "BF16"
    turned: bool = False
    inputs: TensorScale | None = None
    dtype: str = field(default="F32", init=False)

    @property
    def stored(self) -> Stored:
        """See `Source`."""
        return self.encoding.parts[0]

    @property
    def bits(self) -> int:
        """See `Source`."""
        return self.encoding.bits

    @property
    def nbytes(self) -> int:
        """See `Source`."""
        return sum(part.tensor.nbytes for part in self.encoding.parts)

    @property
    def meaning(self) -> str:
        """See `Source`."""
        return self.encoding.meaning

    @property
    def format(self) -> Format | None:
        """See `Source`."""
        return self.encoding.format

    @property
    def scale_dtype(self) -> str:
        """See `Source`."""
        return self.encoding.scale_dtype

    def across(self) -> "PackedSource":
        """The same weights [outputs, inputs] for a plain checkpoint that stores them [inputs, outputs]."""
        return replace(self, shape=self.shape[::-1], turned=True)

    def rows(self, matrix: Matrix, start: int, stop: int, scratch: Scratch | None = None) -> NDArray[np.float32]:
        """See `Source.rows`."""
        if self.turned != (matrix.column_step != 1):
            return self._across(matrix, start, stop)
        first, step = self._place(matrix)
        low = first + start * step
        rows = self.encoding.decode(low, low + (stop - start - 1) * step + 1)
        return np.ascontiguousarray(rows[::step])

    def packed(self, matrix: Matrix, start: int, stop: int) -> Quantized:
        """See `Source.packed`."""
        if self.turned != (matrix.column_step != 1):
            raise ValueError(f"[packed] {matrix.name} lies across the stored rows")
        first, step = self._place(matrix)
        low = first + start * step
        found = self.encoding.packed(low, low + (stop - start - 1) * step + 1)
        return _every(found, step) if step > 1 else found

    def multiplier(self, matrix: Matrix) -> float:
        """See `Source.multiplier`."""
        return self.encoding.multiplier(self._place(matrix)[0])

    def _place(self, matrix: Matrix) -> tuple[int, int]:
        """The stored row of a matrix's first one, and how many there are from one to the next."""
        if not self.turned:
            return matrix.first // matrix.columns, (matrix.row_step or matrix.columns) // matrix.columns
        outputs = self.shape[-1]
        expert, output = divmod(matrix.first, outputs * matrix.columns)
        return expert * outputs + output, matrix.row_step

    def _across(self, matrix: Matrix, start: int, stop: int) -> NDArray[np.float32]:
        """Rows of a matrix that are columns of the stored rows, which are decoded a tile at a time."""
        row, column, step = self._crossing(matrix)
        slice_height = self.shape[-1] if self.turned else 0
        wanted = np.arange(start, stop) * step + column
        found = np.empty((stop - start, matrix.columns), np.float32)
        for place, group in _same_slice(wanted, self.encoding.columns):
            first = row + (int(wanted[place]) // self.encoding.columns) * slice_height
            self._fill(found[place : place + len(group)], first, group)
        return found

    def _crossing(self, matrix: Matrix) -> tuple[int, int, int]:
        """The first stored row of a matrix, the column where it begins there, and the columns from row to row."""
        if self.turned:
            return 0, matrix.first // matrix.columns, (matrix.row_step or matrix.columns) // matrix.columns
        row, column = divmod(matrix.first, matrix.column_step)
        return row, column, matrix.row_step

    def _fill(self, out: NDArray[np.float32], first: int, columns: NDArray[np.int64]) -> None:
        """Write `columns` of the stored rows from `first` on, as many as `out` has columns, to the rows of `out`."""
        height = max(_TILE // self.encoding.columns, 1)
        for start in range(0, out.shape[1], height):
            stop = min(start + height, out.shape[1])
            out[:, start:stop] = self.encoding.decode(first + start, first + stop)[:, columns].T


def _same_slice(places: NDArray[np.int64], width: int) -> list[tuple[int, NDArray[np.int64]]]:
    """Columns counted through all slices, cut where a slice of `width` ends: (index of the first, columns of it)."""
    slices = places // width
    starts = np.flatnonzero(np.diff(slices, prepend=-1))
    return [(int(start), part % width) for start, part in zip(starts, np.split(places, starts[1:]), strict=True)]


def _every(found: Quantized, step: int) -> Quantized:
    codes, scales = (np.ascontiguousarray(part[::step]) for part in (found.codes, found.scales))
    biases = None if found.biases is None else np.ascontiguousarray(found.biases[::step])
    return Quantized(found.format, codes, scales, biases, found.tensor_scale)
