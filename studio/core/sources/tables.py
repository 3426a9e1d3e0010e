"""Tables: numbers and codes with a row per row of weights, stored row by row or turned, packed along either side."""

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.streams import unpack_stream
from studio.core.model import Matrix, Stored
from studio.core.sources.plain import dtype_of, read_elements, read_rows

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

_BAND_NBYTES = 4 << 20
"""Of the rows of a turned table that are read, and kept for a while, at once."""

WORD = 32
"""Bits of the words that codes are packed in."""


@dataclass(frozen=True, slots=True)
class Table:
    """Numbers [rows, width] of a stored tensor; `turned`: stored [width, rows]; `single`: one for all rows."""

    stored: Stored
    rows: int
    width: int
    turned: bool = False
    single: bool = False

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows `start` .. `stop`, of the stored dtype; [1, 1] of a single number."""
        if self.single:
            return read_elements(self.stored, 0, 1).reshape(1, 1)
        if not self.turned or self.stored.tensor.nbytes <= _BAND_NBYTES:
            return self.read_anew(start, stop)
        height = max(_BAND_NBYTES // (self.width * dtype_of(self.stored).itemsize), 1)
        bands = range(start // height * height, stop, height)
        parts = [_band(self, row, min(row + height, self.rows))[max(start - row, 0) : stop - row] for row in bands]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def read_anew(self, start: int, stop: int) -> NDArray[Any]:
        """`read` of a table of many numbers, from the file."""
        step, column_step = (1, self.rows) if self.turned else (self.width, 1)
        matrix = Matrix(self.stored.tensor.name, self.rows, self.width, row_step=step, column_step=column_step)
        return read_rows(self.stored, matrix, start, stop)


@lru_cache(maxsize=4)
def _band(table: Table, start: int, stop: int) -> NDArray[Any]:
    """Rows of a turned table, for all slabs that want some of them: to read any, the whole table is gone through."""
    found = table.read_anew(start, stop)
    found.flags.writeable = False
    return found


@dataclass(frozen=True, slots=True)
class Packing:
    """How codes of `bits` lie in words of 32 bits.

    order: for each code of a word how many codes are below it; empty for a stream that goes from word to word. places:
    of a stream, for each of so many codes in a row which of them it is; empty where they follow each other.
    """

    bits: int
    order: tuple[int, ...] = ()
    places: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.bits} bits{', so many as a word holds whole' if self.order else ''}"

    @property
    def together(self) -> tuple[int, int]:
        """So many codes begin and end with so many words."""
        return (len(self.order), 1) if self.order else (WORD, self.bits)

    def words(self, count: int) -> int:
        """How many words hold `count` codes."""
        return -(-count // len(self.order)) if self.order else -(-count * self.bits // WORD)

    def along(self, words: NDArray[Any]) -> Bytes:
        """All codes [rows, codes] of words [rows, words], those of the padding behind them too."""
        if not self.order:
            stream = np.ascontiguousarray(words).view(np.uint8)
            found = unpack_stream(stream, self.bits, words.shape[1] * WORD // self.bits)
            return self._in_place(found) if self.places else found
        codes = np.empty((*words.shape, len(self.order)), np.uint8)
        for place in range(len(self.order)):
            codes[..., place] = self._code(words, place)
        return codes.reshape(len(words), -1)

    def down(self, words: NDArray[Any]) -> Bytes:
        """All codes [codes, columns] of words [words, columns]."""
        if not self.order:
            return np.ascontiguousarray(self.along(words.T).T)
        codes = np.empty((len(words), len(self.order), words.shape[1]), np.uint8)
        for place in range(len(self.order)):
            codes[:, place] = self._code(words, place)
        return codes.reshape(-1, words.shape[1])

    def _in_place(self, codes: Bytes) -> Bytes:
        each: Bytes = codes.reshape(len(codes), -1, len(self.places))[..., list(self.places)]
        return each.reshape(codes.shape)

    def _code(self, words: NDArray[Any], place: int) -> NDArray[Any]:
        code: NDArray[Any] = words >> (self.bits * self.order[place]) & ((1 << self.bits) - 1)
        return code


class Codes(Protocol):
    """Whole numbers below 512, [rows, width]."""

    @property
    def stored(self) -> Stored:
        """The tensor that they are read from."""
        ...

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows `start` .. `stop`, unsigned."""
        ...


@dataclass(frozen=True, slots=True)
class Along:
    """Codes packed along the rows: `width` of them in each row of the words."""

    table: Table
    packing: Packing
    width: int

    @property
    def stored(self) -> Stored:
        """See `Codes`."""
        return self.table.stored

    def read(self, start: int, stop: int) -> Bytes:
        """See `Codes.read`."""
        return self.packing.along(self.table.read(start, stop))[:, : self.width]


@dataclass(frozen=True, slots=True)
class Down:
    """Codes packed down the columns, from row to row, in slices of `height` rows that begin with a word.

    more: what is added to each; flip: the bits that are turned over in each before.
    """

    table: Table
    packing: Packing
    height: int
    more: int = 0
    flip: int = 0

    @property
    def stored(self) -> Stored:
        """See `Codes`."""
        return self.table.stored

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """See `Codes.read`."""
        cuts = [start, *range((start // self.height + 1) * self.height, stop, self.height), stop]
        parts = [self._of_slice(*rows) for rows in pairwise(cuts)]
        codes = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if self.flip:
            codes ^= np.uint8(self.flip)
        return codes.astype(np.uint16) + np.uint16(self.more) if self.more else codes

    def _of_slice(self, start: int, stop: int) -> Bytes:
        codes, words = self.packing.together
        whole, low = divmod(start, self.height)
        high, first = low + stop - start, whole * self.packing.words(self.height)
        last = min(-(-high // codes) * words, self.packing.words(self.height))
        found = self.table.read(first + low // codes * words, first + last)
        return self.packing.down(found)[low % codes : low % codes + stop - start]


@dataclass(frozen=True, slots=True)
class Signed:
    """Codes of 8 bits with a sign, as codes from 0 on: -128 is 0."""

    table: Table
    half: int = field(default=128)

    @property
    def stored(self) -> Stored:
        """See `Codes`."""
        return self.table.stored

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """See `Codes.read`."""
        return (self.table.read(start, stop).astype(np.int16) + self.half).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Codes of four bits with a sign, those of two rows in a byte, the first in its low nibble; as codes from 0 on."""

    table: Table

    @property
    def stored(self) -> Stored:
        """See `Codes`."""
        return self.table.stored

    def read(self, start: int, stop: int) -> Bytes:
        """See `Codes.read`."""
        low = start // 2
        packed = self.table.read(low, -(-stop // 2)).astype(np.uint8, copy=False)
        codes = np.empty((2 * len(packed), packed.shape[1]), np.uint8)
        codes[0::2], codes[1::2] = packed & np.uint8(15), packed >> np.uint8(4)
        codes ^= np.uint8(8)
        return codes[start - 2 * low : stop - 2 * low]
