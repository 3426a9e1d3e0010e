"""Lookup: codes of four bits that stand for places in a table, with a scale for so many weights in a row."""

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
class Nested:
    """Scales that are bytes: values[byte] x scale + offset, with a scale for each `block` of them.

    values: float32 [256]. scales: float32 [ceil(bytes / block)].
    """

    values: Stored
    scales: Stored
    block: int
    offset: np.float32

    def decode(self, codes: NDArray[np.uint8], first: int) -> Floats:
        """The scales of bytes, of which the first is number `first`."""
        values = read_elements(self.values, 0, 256)
        low, high = first // self.block, -(-(first + len(codes)) // self.block)
        scales = read_elements(self.scales, low, high - low)
        wide: Floats = values[codes] * scales[np.arange(first, first + len(codes)) // self.block - low]
        return wide + self.offset


@dataclass(frozen=True, slots=True)
class Lookup(DecodedOnly):
    """Rows of `columns` weights, see `Encoding`: values[code] x scale of its block, in float32.

    Weights are stored one after the other, two in a byte, the first in the high nibble, and so are blocks, wherever
    rows end. values: float32 [16], which must be `known`. scales: float32, or bytes of `nested`, one for each block.
    """

    columns: int
    block: int
    codes: Stored
    scales: Stored
    values: Stored
    known: tuple[float, ...]
    title: str
    maker: str
    nested: Nested | None = None

    @property
    def bits(self) -> int:
        """See `Encoding`."""
        return 4

    @property
    def parts(self) -> tuple[Stored, ...]:
        """See `Encoding`."""
        more = (self.nested.values, self.nested.scales) if self.nested else ()
        return self.codes, self.scales, self.values, *more

    @property
    def meaning(self) -> str:
        """See `Encoding`."""
        nested = ", scales of 8 bits" if self.nested else ""
        return f"{self.title}, blocks of {self.block}{nested}, {self.maker}"

    def decode(self, start: int, stop: int) -> Floats:
        """See `Encoding.decode`."""
        first, last = start * self.columns, stop * self.columns
        low, high = first // self.block, -(-last // self.block)
        weights = self._values()[self._codes(first, last)]
        scales = np.repeat(self._scales(low, high), self.block)[first - low * self.block :][: last - first]
        with np.errstate(over="ignore", under="ignore"):
            weights *= scales
        return weights.reshape(stop - start, self.columns)

    def _codes(self, first: int, last: int) -> NDArray[np.uint8]:
        low, high = first // 2, -(-last // 2)
        raw = np.empty(high - low, np.uint8)
        self.codes.file.read_into(raw.data, self.codes.tensor.start + low)
        codes = np.empty((len(raw), 2), np.uint8)
        codes[:, 0], codes[:, 1] = raw >> 4, raw & 15
        return codes.reshape(-1)[first - 2 * low : last - 2 * low]

    def _values(self) -> Floats:
        values: Floats = read_elements(self.values, 0, 16)
        if not np.allclose(values, self.known, rtol=0, atol=1e-6):
            raise self._fault(f"has other values in {printable(self.values.tensor.name)} than those of {self.title}")
        return values

    def _scales(self, low: int, high: int) -> Floats:
        stored = read_elements(self.scales, low, high - low)
        scales: Floats = self.nested.decode(stored, low) if self.nested else stored
        if bad := int((~np.isfinite(scales)).sum()):
            raise self._fault(f"{bad:,} of its scales in {printable(self.scales.tensor.name)} are not numbers")
        return scales

    def _fault(self, what: str) -> CheckpointError:
        return CheckpointError(what, file=self.codes.file.path.name, tensor=self.codes.tensor.name)
