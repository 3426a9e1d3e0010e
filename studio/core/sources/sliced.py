"""Sliced: codes of which the first slice of a weight, the second and so on share words, with floats as zeros."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from studio.core.errors import CheckpointError
from studio.core.model import Stored
from studio.core.names import printable
from studio.core.sources.packed import DecodedOnly
from studio.core.sources.plain import read_elements

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sliced(DecodedOnly):
    """Rows of `columns` weights, one after the other, see `Encoding`: (code - zero) x scale, in float32.

    codes: as many words as a slice has codes; `shifts`: how many bits are below the code of each slice. scales, zeros:
    a number for each `group` weights in a row, or where `turned`, one for every weight of a group: weight number n has
    the number n modulo their count. less: zeros are taken from code x scale instead.
    """

    columns: int
    bits: int
    codes: Stored
    shifts: tuple[int, ...]
    scales: Stored
    zeros: Stored
    group: int
    count: int
    maker: str
    turned: bool = False
    less: bool = False

    @property
    def parts(self) -> tuple[Stored, ...]:
        """See `Encoding`."""
        return self.codes, self.scales, self.zeros

    @property
    def meaning(self) -> str:
        """See `Encoding`."""
        across = " across rows" if self.turned else ""
        return f"INT{self.bits}, groups of {self.group}{across}, {self.maker}"

    def decode(self, start: int, stop: int) -> Floats:
        """See `Encoding.decode`."""
        first, last = start * self.columns, stop * self.columns
        weights = self._codes(first, last).astype(np.float32)
        scales, zeros = self._numbers(self.scales, first, last), self._numbers(self.zeros, first, last)
        with np.errstate(over="ignore", under="ignore"):
            if self.less:
                weights *= scales
                weights -= zeros
            else:
                weights -= zeros
                weights *= scales
        return weights.reshape(stop - start, self.columns)

    def _codes(self, first: int, last: int) -> NDArray[np.uint8]:
        found, size = np.empty(last - first, np.uint8), self.codes.tensor.nbytes // self._width
        for place in range(first // size, -(-last // size)):
            low, high = max(first, place * size), min(last, (place + 1) * size)
            words = read_elements(self.codes, low - place * size, high - low)
            found[low - first : high - first] = words >> self.shifts[place] & ((1 << self.bits) - 1)
        return found

    @property
    def _width(self) -> int:
        """Bytes of a word."""
        return 1 if self.codes.tensor.dtype == "U8" else 4

    def _numbers(self, part: Stored, first: int, last: int) -> Floats:
        """The number of each of these weights."""
        if self.turned:
            return self._checked(part, _around(part, self.count, first, last))
        low, high = first // self.group, -(-last // self.group)
        found = self._checked(part, read_elements(part, low, high - low))
        return np.repeat(found, self.group)[first - low * self.group :][: last - first]

    def _checked(self, part: Stored, numbers: NDArray[np.generic]) -> Floats:
        wide: Floats = numbers.astype(np.float32)
        if bad := int((~np.isfinite(wide)).sum()):
            what = f"{bad:,} of its scales in {printable(part.tensor.name)} are not numbers"
            raise CheckpointError(what, file=self.codes.file.path.name, tensor=self.codes.tensor.name)
        return wide


def _around(part: Stored, count: int, first: int, last: int) -> NDArray[np.generic]:
    """Numbers `first` .. `last`, of `count` that come again and again."""
    low, length = first % count, last - first
    if length >= count:
        whole = read_elements(part, 0, count)
        return np.resize(np.roll(whole, -low), length)
    if low + length <= count:
        return read_elements(part, low, length)
    return np.concatenate([read_elements(part, low, count - low), read_elements(part, 0, low + length - count)])
