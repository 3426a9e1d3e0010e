"""Norms in front of layers: without statistics, the square of a norm's weight tells how large each input column is."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import Context, importance_of
from kernels.search import GUIDED_EDITION
from studio.core.architectures import block_index
from studio.core.architectures.family import pattern
from studio.core.architectures.flows import flow_of
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.model import Layer, Matrix, Stored
from studio.core.sources.plain import read_elements


@dataclass(frozen=True, slots=True)
class NormGuide:
    """The weight of the norm whose output a layer reads, see `Guide`: it scales what has a mean square of 1."""

    stored: Stored

    origin = "norm"
    known = frozenset({"importance"})

    @property
    def meaning(self) -> str:
        """See `Guide`."""
        return f"norm {self.stored.tensor.name}, {GUIDED_EDITION}"

    def context(self, matrix: Matrix) -> Context:
        """See `Guide.context`."""
        found = self.moments(matrix)
        return Context() if found is None or matrix.columns % 16 else Context(importance_of(found[1]))

    def moments(self, matrix: Matrix) -> tuple[int, NDArray[np.float32]] | None:
        """See `Guide.moments`."""
        weight = read_elements(self.stored, 0, self.stored.tensor.shape[0]).astype(np.float32)
        fits = matrix.columns == weight.size and np.isfinite(weight).all()
        return (1, weight * weight) if fits else None

    def peak(self, matrix: Matrix) -> tuple[int, float]:
        """See `Guide.peak`: a norm does not tell how large its output becomes."""
        return 0, 0.0


def with_norms(layers: Iterable[Layer], stored: Mapping[str, Stored], config: Mapping[str, Any]) -> tuple[Layer, ...]:
    """The layers, those that read the output of a norm guided by its weight; none where the architecture is unknown."""
    layers = tuple(layers)
    flow = flow_of(config)
    if flow is None or flow.refused:
        return layers
    readers = [(norm, pattern(rf"^(?P<place>.*\.)??(?:{reader})$")) for norm, reader in flow.norms]
    norms = _norms(stored, [norm for norm, _ in flow.norms])
    return tuple(_guided(layer, readers, norms) for layer in layers)


def _norms(stored: Mapping[str, Stored], names: list[str]) -> dict[tuple[int, str], Stored]:
    """The norms of blocks that are one row of numbers: (block, pattern of the table) -> tensor."""
    found = {}
    for name in names:
        one = pattern(rf"(?:^|\.){name}\.weight$")
        for tensor, item in stored.items():
            plain = len(item.tensor.shape) == 1 and item.tensor.dtype in WEIGHT_DTYPES
            block = block_index(tensor) if plain and one.search(tensor) else None
            if block is not None:
                found[block, name] = item
    return found


def _guided(
    layer: Layer, readers: list[tuple[str, "re.Pattern[str]"]], norms: Mapping[tuple[int, str], Stored]
) -> Layer:
    if layer.block is None or not layer.matrices:
        return layer
    inside = layer.name.partition(f".{layer.block}.")[2]
    for norm, reader in readers:
        item = norms.get((layer.block, norm))
        if item and reader.search(inside) and item.tensor.shape[0] == layer.matrices[0].columns:
            return replace(layer, guide=NormGuide(item))
    return layer
