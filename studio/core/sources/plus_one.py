"""PlusOne: norms that are stored with 1 added, as the weights that others have."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.core.containers.dtypes import BITS, WEIGHT_DTYPES
from studio.core.model import Matrix, Stored, Unpacked
from studio.core.running.scratch import Scratch
from studio.core.sources.plain import read_elements, read_rows


@dataclass(frozen=True, slots=True)
class PlusOne(Unpacked):
    """A norm that is stored with 1 added, see `Source`; float32. `kept_dtype` holds what is left without that."""

    norm: Stored
    kept_dtype: str
    dtype: str = field(default="F32", init=False)

    @property
    def stored(self) -> Stored:
        """See `Source`."""
        return replace(self.norm, tensor=replace(self.norm.tensor, dtype=self.meaning))

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Source`."""
        return self.norm.tensor.shape

    @property
    def bits(self) -> int:
        """See `Source`."""
        return BITS[self.norm.tensor.dtype]

    @property
    def nbytes(self) -> int:
        """See `Source`."""
        return self.norm.tensor.nbytes

    @property
    def meaning(self) -> str:
        """See `Source`."""
        return f"{self.norm.tensor.dtype} plus 1"

    def rows(self, matrix: Matrix, start: int, stop: int, scratch: Scratch | None = None) -> NDArray[np.float32]:
        """See `Source.rows`."""
        return less_one(read_rows(self.norm, matrix, start, stop))


def plus_one(norm: Stored) -> PlusOne:
    """The source of a norm; reads it to see whether its own dtype holds what is left."""
    left = less_one(read_elements(norm, 0, math.prod(norm.tensor.shape)))
    dtype = norm.tensor.dtype
    exact = np.array_equal(left.astype(WEIGHT_DTYPES[dtype]).astype(np.float32), left, equal_nan=True)
    return PlusOne(norm, dtype if exact else "F32")


def less_one(values: NDArray[Any]) -> NDArray[np.float32]:
    """Values without the 1 that was added, in float32."""
    found: NDArray[np.float32] = values.astype(np.float32) - np.float32(1)
    return found
