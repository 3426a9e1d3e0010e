"""MXFP6: codes of E2M3 or E3M2, four in three bytes, with an exponent for every 32; only decoded, not handed on."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from kernels.reference import e8m0_decode
from studio.core.model import Stored
from studio.core.sources.in_format import check_scale_bytes
from studio.core.sources.packed import DecodedOnly
from studio.core.sources.plain import read_elements

_BLOCK = 32


@cache
def _values(exponent_bits: int) -> NDArray[np.float32]:
    """The values of all 64 codes: a sign, bits of exponent, and what is left of five for the mantissa."""
    code, bias, bits = np.arange(64), (1 << (exponent_bits - 1)) - 1, 5 - exponent_bits
    exponent, mantissa = code >> bits & ((1 << exponent_bits) - 1), code & ((1 << bits) - 1)
    fraction = mantissa / (1 << bits)
    magnitude = np.where(exponent == 0, fraction * 2.0 ** (1 - bias), (1 + fraction) * 2.0 ** (exponent - bias))
    return np.where(code >> 5, -magnitude, magnitude).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Mxfp6(DecodedOnly):
    """Rows of `columns` weights, see `Encoding`; code i is bits 6 i .. 6 i + 5 of a row, little-endian.

    exponent_bits: 2 or 3 of each code.
    """

    columns: int
    codes: Stored
    scales: Stored
    maker: str
    exponent_bits: int = 2

    @property
    def bits(self) -> int:
        """See `Encoding`."""
        return 6

    @property
    def parts(self) -> tuple[Stored, ...]:
        """See `Encoding`."""
        return self.codes, self.scales

    @property
    def meaning(self) -> str:
        """See `Encoding`."""
        return f"MXFP6 (E{self.exponent_bits}M{5 - self.exponent_bits}), {self.maker}"

    def decode(self, start: int, stop: int) -> NDArray[np.float32]:
        """See `Encoding.decode`."""
        scales = self._bytes(self.scales, self.columns // _BLOCK, start, stop)
        check_scale_bytes(scales, "e8m0", self.scales, self.codes)
        triples = self._bytes(self.codes, self.columns * 6 // 8, start, stop).reshape(-1, 3)
        weights = _values(self.exponent_bits)[_four_of_three(triples)].reshape(stop - start, -1, _BLOCK)
        with np.errstate(under="ignore"):
            weights *= e8m0_decode(scales)[..., None]
        return weights.reshape(stop - start, self.columns)

    def _bytes(self, part: Stored, width: int, start: int, stop: int) -> NDArray[np.uint8]:
        raw = read_elements(part, start * width, (stop - start) * width).view(np.uint8)
        return raw.reshape(stop - start, width)


def _four_of_three(triples: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[n, 3] bytes as [n, 4] codes of 6 bits."""
    first, second, third = triples.T
    codes = np.empty((len(triples), 4), np.uint8)
    codes[:, 0] = first & 63
    codes[:, 1] = first >> 6 | (second & 15) << 2
    codes[:, 2] = second >> 4 | (third & 3) << 4
    codes[:, 3] = third >> 2
    return codes
