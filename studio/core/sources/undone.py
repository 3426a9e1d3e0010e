"""Undone: what llama.cpp computes of weights while it stores them, turned back."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from studio.core.containers.dtypes import WEIGHT_DTYPES

_ULPS = 4
"""How far an exponential in float32 may lie from the true one, in units of its last place."""


class Undo(Protocol):
    """What gives weights back."""

    @property
    def meaning(self) -> str:
        """What was done, for people."""
        ...

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The weights that `values` were made of."""
        ...


@dataclass(frozen=True, slots=True)
class Less:
    """`number` was added."""

    number: float

    @property
    def meaning(self) -> str:
        """See `Undo`."""
        return f"plus {self.number:g}"

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Undo`."""
        return values - np.float32(self.number)


@dataclass(frozen=True, slots=True)
class LogOfNegative:
    """Minus the exponential of numbers of `dtype` was stored, of float32 where no shorter one is known."""

    dtype: str
    meaning: str = "minus exp"

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Undo`."""
        return _logs(values).astype(WEIGHT_DTYPES[self.dtype]).astype(np.float32)


def log_of_negative(values: NDArray[np.float32]) -> LogOfNegative:
    """What undoes it, of the shortest dtype in which there are numbers whose exponentials are all of `values`.

    Numbers of BF16 and F16 lie so far apart that they are found to the bit; those of F32 to the last place. Raises
    ValueError for values that are no such exponentials.
    """
    if not ((values < 0) & np.isfinite(values)).all():
        raise ValueError("numbers that are not below 0")
    logs = _logs(values)
    for dtype in ("BF16", "F16"):
        rounded: NDArray[Any] = logs.astype(WEIGHT_DTYPES[dtype]).astype(np.float64)
        if (np.abs(np.exp(rounded) + values) <= _ULPS * np.spacing(-values)).all():
            return LogOfNegative(dtype)
    return LogOfNegative("F32")


def _logs(values: NDArray[np.float32]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.log(-values.astype(np.float64))
    return found
