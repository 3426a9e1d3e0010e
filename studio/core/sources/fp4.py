"""PackedFp4: E2M1 codes two in a byte with an E8M0 scale per 32, as DeepSeek V4 stores its experts in I8."""

from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from kernels.reference import e2m1_decode, unpack
from studio.core.model import Matrix, Stored
from studio.core.running.scratch import Scratch, memory
from studio.core.sources.plain import read_rows
from studio.core.sources.scales import Scales


@dataclass(frozen=True, slots=True)
class PackedFp4:
    """weight = E2M1 code x scale in float32, see `Source`; the even element is in the low nibble."""

    stored: Stored
    scales: Scales
    dtype: str = field(default="F32", init=False)
    kept_dtype: str = field(default="BF16", init=False)
    bits: int = field(default=4, init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Source`: twice as wide as what is stored."""
        *rows, width = self.stored.tensor.shape
        return (*rows, 2 * width)

    @property
    def nbytes(self) -> int:
        """See `Source`."""
        return self.stored.tensor.nbytes + self.scales.stored.tensor.nbytes

    @property
    def meaning(self) -> str:
        """See `Source`."""
        return f"F4_E2M1 x {self.scales.meaning}"

    def rows(self, matrix: Matrix, start: int, stop: int, scratch: Scratch | None = None) -> NDArray[np.float32]:
        """See `Source.rows`."""
        packed = replace(matrix, columns=matrix.columns // 2, first=matrix.first // 2, row_step=matrix.row_step // 2)
        codes = read_rows(self.stored, packed, start, stop, scratch).view(np.uint8)
        pairs = memory(8 * codes.size, scratch, 1).view(np.uint64).reshape(codes.shape)
        np.take(_pairs(), codes, out=pairs, mode="clip")
        weights = pairs.view(np.float32)
        self.scales.apply(weights, matrix, start, self.stored)
        return weights


@cache
def _pairs() -> NDArray[np.uint64]:
    """The two float32 values of every byte."""
    values = e2m1_decode(unpack(np.arange(256, dtype=np.uint8)[:, None]))
    return np.ascontiguousarray(values).view(np.uint64).reshape(-1)
