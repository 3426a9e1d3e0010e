"""Distributions: the histograms of many layers, added up as results come in, and what a Gaussian would have."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from studio import core

EDGES = np.array(core.histogram_edges())
PLACES = np.log2(EDGES)
SIX_SIGMA = math.log2(6)


class Distributions:
    """The histograms of |w| / sigma of the layers that have one, and their sum."""

    def __init__(self) -> None:
        self._seen: dict[str, core.LayerResult] = {}
        self._all = np.zeros(len(EDGES) - 1, np.int64)

    def update(self, results: Sequence[core.LayerResult]) -> bool:
        """Take other results; False when they are the same objects. Only what is new is counted."""
        now = {result.name: result for result in results if result.statistics and result.quantized}
        new = [result for name, result in now.items() if self._seen.get(name) is not result]
        gone = [result for name, result in self._seen.items() if now.get(name) is not result]
        self._seen = now
        self._all = self._all + _sum(new) - _sum(gone)
        return bool(new or gone)

    def __len__(self) -> int:
        return len(self._seen)

    def chosen(self, names: Sequence[str]) -> list[core.LayerResult]:
        """The layers of these names that have a histogram."""
        return [self._seen[name] for name in names if name in self._seen]

    def layers(self) -> list[core.LayerResult]:
        """All layers that have a histogram."""
        return list(self._seen.values())

    def counts(self, layers: Sequence[core.LayerResult]) -> NDArray[np.int64]:
        """Weights per bin of these layers, or of all when there are none."""
        return _sum(layers) if layers else self._all


def _sum(layers: Sequence[core.LayerResult]) -> NDArray[np.int64]:
    return rows(layers).sum(axis=0) if layers else np.zeros(len(EDGES) - 1, np.int64)


def rows(layers: Sequence[core.LayerResult]) -> NDArray[np.int64]:
    """Histograms as [layers, bins]."""
    return np.array([layer.statistics.histogram for layer in layers if layer.statistics], np.int64)


def beyond(counts: NDArray[np.int64], total: int) -> NDArray[np.float64]:
    """Share of `total` weights beyond each edge, for counts [..., bins]."""
    above = np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1]
    return np.concatenate([above, np.zeros_like(above[..., :1])], axis=-1) / max(total, 1)


def gaussian_beyond(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of Gaussian weights beyond x sigma on either side."""
    return np.array([math.erfc(float(value) / math.sqrt(2)) for value in x])


def gaussian_bins() -> NDArray[np.float64]:
    """Share of Gaussian weights per bin."""
    outside = gaussian_beyond(EDGES)
    inside = outside[:-1] - outside[1:]
    inside[0] += 1 - outside[0]
    return inside


def sigma_text(value: float) -> str:
    """A multiple of sigma as text."""
    return f"{value:.3g} σ"
