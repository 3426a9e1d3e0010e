"""Smoothed: weights whose inputs are multiplied by a vector, as SmoothQuant and AWQ leave them; it is put back."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.counting import counted
from studio.core.errors import CheckpointError
from studio.core.model import Stored
from studio.core.names import printable
from studio.core.sources.found import UnreadError
from studio.core.sources.packed import DecodedOnly, Encoding, PackedSource
from studio.core.sources.plain import read_elements

INPUT_FACTORS = "pre_quant_scale"
"""ModelOpt's name for what the inputs of a module are multiplied by."""


@dataclass(frozen=True, slots=True)
class Smoothed(DecodedOnly):
    """Rows of weights, each multiplied by the factor of its input, see `Encoding`; `factors`: [columns]."""

    encoding: Encoding
    factors: Stored

    @property
    def columns(self) -> int:
        """See `Encoding`."""
        return self.encoding.columns

    @property
    def bits(self) -> int:
        """See `Encoding`."""
        return self.encoding.bits

    @property
    def parts(self) -> tuple[Stored, ...]:
        """See `Encoding`."""
        return (*self.encoding.parts, self.factors)

    @property
    def meaning(self) -> str:
        """See `Encoding`."""
        return f"{self.encoding.meaning}, times what inputs are multiplied by"

    def decode(self, start: int, stop: int) -> NDArray[np.float32]:
        """See `Encoding.decode`."""
        factors = read_elements(self.factors, 0, self.columns).astype(np.float32)
        if bad := int((~(np.isfinite(factors) & (factors > 0))).sum()):
            what = f"{bad:,} of its factors of inputs in {printable(self.factors.tensor.name)} are no positive numbers"
            raise CheckpointError(what, file=self.factors.file.path.name, tensor=self.encoding.parts[0].tensor.name)
        weights = self.encoding.decode(start, stop)
        with np.errstate(over="ignore", under="ignore"):  # Inf is counted and refused later
            weights *= factors
        return weights


def smoothed(source: PackedSource, others: Mapping[str, Stored]) -> PackedSource:
    """A source with the factors of its inputs, if there are any. Raises UnreadError for those of another width."""
    factors = others.get(INPUT_FACTORS)
    if factors is None:
        return source
    tensor = factors.tensor
    if source.turned or tensor.dtype not in WEIGHT_DTYPES or math.prod(tensor.shape) != source.encoding.columns:
        shape = printable(list(tensor.shape))
        raise UnreadError(
            f"{INPUT_FACTORS} of {tensor.dtype} {shape} for rows of {counted(source.encoding.columns, 'weight')}"
        )
    return replace(source, encoding=Smoothed(source.encoding, factors))
