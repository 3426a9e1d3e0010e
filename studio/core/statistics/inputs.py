"""LayerInputs: what is known of the inputs of one matrix."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK = 16
"""Columns of a block of weights, whose inputs' second moments are kept."""

ROWS, COLUMNS = np.triu_indices(BLOCK)
PAIRS = len(ROWS)
"""Numbers in the upper triangle of a block: 136."""


@dataclass(frozen=True, slots=True, eq=False)
class LayerInputs:
    """The inputs x[t, k] of a matrix with K columns, over t = 0 .. tokens.

    peak: max |x| [K] float32, None where it is unknown. mean_square: mean of x^2 [K] float32. moments: mean of x_i x_j
    of the columns of each block of 16, [K/16, 136] float32 (the upper triangle, row by row), None where unknown. All
    are zero where no token was seen: an expert that nothing was routed to.
    """

    tokens: int
    mean_square: NDArray[np.float32]
    peak: NDArray[np.float32] | None = None
    moments: NDArray[np.float32] | None = None
