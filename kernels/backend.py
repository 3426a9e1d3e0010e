"""Backend: what a machine must offer, whichever it is."""

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.context import Context
from kernels.fidelity import Census, Fidelity
from kernels.formats import Recipe
from kernels.quantized import Quantized

Weight = NDArray[Any]
"""A weight [rows, K], C-contiguous: float32, float16 or ml_dtypes.bfloat16."""


class Encoded(NamedTuple):
    """A quantized weight and, when it was measured, what that cost."""

    quantized: Quantized
    fidelity: Fidelity | None


class Backend(Protocol):
    """Encodes and decodes weights; every backend gives the bytes of `kernels.reference`.

    A call handles one slab of rows on the calling thread, releases the GIL where it can, and may run on several threads
    at once. Inputs are 2-D and C-contiguous; TypeError for another dtype, ValueError for a shape that does not fit.
    """

    name: str
    title: str

    def census(self, weight: Weight) -> Census:
        """Count the magnitudes of a weight [rows, K]; K is free."""
        ...

    def encode(
        self,
        weight: Weight,
        recipe: Recipe,
        tensor_scale: float = 1.0,
        *,
        context: Context | None = None,
        measure: bool = True,
        blocks: bool = False,
    ) -> Encoded:
        """Quantize finite weights [rows, K] with the multiplier `tensor_scale` (1.0 for formats without one).

        `context` is what is known of the inputs [K]; a method that needs more does what `Method.otherwise` says.
        `measure` sums the error in the same pass; `blocks` also keeps it per block.
        """
        ...

    def decode(self, quantized: Quantized, dtype: Any = np.float32) -> Weight:
        """Weights [rows, K] in float32, float16 or bfloat16, rounded to nearest even from float32."""
        ...

    def squared_error(self, weight: Weight, quantized: Quantized) -> float:
        """Sum of (weight - decoded)**2 over weights [rows, K], within 1e-6 of its float64 value."""
        ...
