"""ScaledFp8: E4M3 codes, with scales or without, decoded in float32."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from studio.core.model import Matrix, Stored, Unpacked
from studio.core.running.scratch import Scratch, memory
from studio.core.sources.plain import read_rows
from studio.core.sources.scales import Scales

FP8 = "F8_E4M3"
_NAN = 0x7F
_SIGN_AND_MAGNITUDE = np.int32(-0x78100000)


@dataclass(frozen=True, slots=True)
class ScaledFp8(Unpacked):
    """weight = E4M3 code x scale in float32, see `Source`; without scales a weight is its code."""

    stored: Stored
    scales: Scales | None = None
    dtype: str = field(default="F32", init=False)
    kept_dtype: str = field(default="BF16", init=False)
    bits: int = field(default=8, init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Source`."""
        return self.stored.tensor.shape

    @property
    def nbytes(self) -> int:
        """See `Source`."""
        return self.stored.tensor.nbytes + (self.scales.stored.tensor.nbytes if self.scales else 0)

    @property
    def meaning(self) -> str:
        """See `Source`."""
        return f"{FP8} x {self.scales.meaning}" if self.scales else FP8

    def rows(self, matrix: Matrix, start: int, stop: int, scratch: Scratch | None = None) -> NDArray[np.float32]:
        """See `Source.rows`."""
        codes = read_rows(self.stored, matrix, start, stop, scratch).view(np.uint8)
        weights = memory(4 * codes.size, scratch, 1).view(np.float32).reshape(codes.shape)
        decode_e4m3(codes, weights)
        if self.scales:
            self.scales.apply(weights, matrix, start, self.stored)
        return weights


def decode_e4m3(codes: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
    """Write the values of E4M3 codes to `out`, of the same shape: `kernels.reference.e4m3_decode`, many times faster.

    Sign, exponent and mantissa move to their places in a float32, which then is 2**120 too small, subnormal or not.
    """
    bits = out.view(np.int32)
    np.left_shift(codes.view(np.int8), np.int32(24), out=bits, dtype=np.int32)
    np.right_shift(bits, np.int32(4), out=bits)
    np.bitwise_and(bits, _SIGN_AND_MAGNITUDE, out=bits)
    np.multiply(out, np.float32(2.0**120), out=out)
    magnitudes = codes & np.uint8(_NAN)
    if magnitudes.max(initial=0) == _NAN:
        out[magnitudes == _NAN] = np.nan
