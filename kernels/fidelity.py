"""What quantizing did to a weight: counts and sums that add up over slabs, layers and models."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

MAGNITUDE_BINS = 32768
"""One bin per bfloat16 magnitude: the upper 16 bits of a float32 without its sign."""

INFINITY_BIN = 0x7F80

FEW = 1 << 16
"""Weights up to which a census that leaves empty bins out costs less than one of all bins."""


@lru_cache
def bin_values() -> NDArray[np.float64]:
    """The smallest magnitude of each bin, float64 [32768]; 0 for those of Inf and NaN. Not to be written to."""
    values = np.zeros(MAGNITUDE_BINS)
    values[:INFINITY_BIN] = (np.arange(INFINITY_BIN, dtype=np.uint32) << 16).view(np.float32)
    return values


@dataclass(frozen=True, slots=True)
class Census:
    """The magnitudes of a weight, counted: exact for bfloat16, on bfloat16's grid (truncated) for fp16 and float32.

    counts: uint64 [32768], weights per bfloat16 magnitude; bin 0x7F80 holds Inf, the last one NaN.
    max_abs: largest finite |w|, exact for every dtype. sum2, sum4: sums of w**2 and w**4 over finite weights.
    """

    counts: NDArray[np.uint64]
    max_abs: float
    sum2: float
    sum4: float

    @classmethod
    def from_bfloat16_counts(cls, counts: NDArray[np.uint64]) -> "Census":
        """The census of bfloat16 weights, where the counts alone tell everything exactly."""
        bins = _filled(counts)
        return cls(counts, *_moments(FilledBins.of(bins, counts[bins]), counts[bins]))

    @classmethod
    def empty(cls) -> "Census":
        """The census of no weights."""
        return cls(np.zeros(MAGNITUDE_BINS, np.uint64), 0.0, 0.0, 0.0)

    def __add__(self, other: "Census") -> "Census":
        return Census(
            self.counts + other.counts,
            max(self.max_abs, other.max_abs),
            self.sum2 + other.sum2,
            self.sum4 + other.sum4,
        )

    @property
    def finite(self) -> "FilledBins":
        """The bins of finite weights that are not empty: few of all, so several questions are best put to them."""
        bins = _filled(self.counts)
        return FilledBins.of(bins, self.counts[bins])

    @property
    def count(self) -> int:
        """Number of weights."""
        return int(self.counts.sum())

    @property
    def zeros(self) -> int:
        """Number of weights that are zero (for fp16 and float32: below bfloat16's smallest subnormal)."""
        return int(self.counts[0])

    @property
    def infinite(self) -> int:
        """Number of infinite weights."""
        return int(self.counts[INFINITY_BIN])

    @property
    def nan(self) -> int:
        """Number of weights that are not a number."""
        return int(self.counts[INFINITY_BIN + 1 :].sum())

    @property
    def sigma(self) -> float:
        """Root mean square of the weights, whose mean is taken as zero."""
        return math.sqrt(self.sum2 / self.count) if self.count else 0.0

    @property
    def kurtosis(self) -> float:
        """Fourth moment over squared second moment: 3 for a Gaussian; 0 when all weights are zero."""
        return self.sum4 * self.count / self.sum2**2 if self.sum2 > 0 else 0.0

    def above(self, threshold: float) -> int:
        """Number of finite weights with |w| > threshold, to the resolution of the bins."""
        return self.finite.above(threshold)

    def outliers(self, sigmas: float = 6.0) -> int:
        """Number of finite weights beyond `sigmas` standard deviations."""
        return self.above(sigmas * self.sigma)

    def quantiles(self, shares: Sequence[float]) -> tuple[float, ...]:
        """Magnitudes below or at which these shares of finite weights lie."""
        return self.finite.quantiles(shares)


@dataclass(frozen=True, slots=True)
class SmallCensus:
    """The census of few bfloat16 weights, which says the same as `Census` and takes no memory for empty bins.

    bins: the bins that hold weights, in order, int64 [n]; counts: how many each holds, uint64 [n]. `finite`, `max_abs`,
    `sum2` and `sum4` are those of `Census`.
    """

    bins: NDArray[np.int64]
    counts: NDArray[np.uint64]
    finite: "FilledBins"
    max_abs: float
    sum2: float
    sum4: float

    @classmethod
    def of(cls, weight: NDArray[Any]) -> "SmallCensus":
        """The census of a bfloat16 weight of any shape, contiguous."""
        magnitudes = weight.reshape(-1).view(np.uint16) & 0x7FFF
        low = magnitudes.min() if magnitudes.size else np.uint16(0)
        counted = np.bincount(magnitudes - low)  # from the least one on: nearly all bins are below
        filled = (counted != 0).nonzero()[0]
        bins: NDArray[np.int64] = filled + int(low)
        counts: NDArray[np.uint64] = counted[filled].view(np.uint64)
        if len(bins) and bins[-1] > INFINITY_BIN:
            stop = int(bins.searchsorted(INFINITY_BIN + 1))
            bins, counts = np.append(bins[:stop], MAGNITUDE_BINS - 1), np.append(counts[:stop], counts[stop:].sum())
        stop = len(bins) if not len(bins) or bins[-1] < INFINITY_BIN else int(bins.searchsorted(INFINITY_BIN))
        finite = FilledBins.of(bins[:stop], counts[:stop])
        return cls(bins, counts, finite, *_moments(finite, counts[:stop]))

    @property
    def count(self) -> int:
        """Number of weights."""
        return self.finite.count + self._odd

    @property
    def zeros(self) -> int:
        """Number of weights that are zero."""
        return int(self.counts[0]) if len(self.bins) and not self.bins[0] else 0

    @property
    def infinite(self) -> int:
        """Number of infinite weights."""
        return int(self.counts[self.bins == INFINITY_BIN].sum()) if self._odd else 0

    @property
    def nan(self) -> int:
        """Number of weights that are not a number."""
        return self._odd - self.infinite

    @property
    def _odd(self) -> int:
        finite = len(self.finite.values)
        return int(self.counts[finite:].sum()) if finite < len(self.bins) else 0


AnyCensus = Census | SmallCensus


@dataclass(frozen=True, slots=True)
class FilledBins:
    """Bins that hold finite weights, in order.

    values: their smallest magnitudes, float64 [n]. before: how many weights lie in the bins before each, and in all,
    uint64 [n + 1].
    """

    values: NDArray[np.float64]
    before: NDArray[np.uint64]

    @classmethod
    def of(cls, bins: NDArray[np.int64], counts: NDArray[np.uint64]) -> "FilledBins":
        """The bins of these numbers, in order, and how many weights each holds."""
        before = np.zeros(len(counts) + 1, np.uint64)
        np.add.accumulate(counts, out=before[1:])
        return cls(bin_values()[bins], before)

    @property
    def count(self) -> int:
        """Number of weights."""
        return int(self.before[-1])

    def above(self, threshold: float) -> int:
        """See `Census.above`."""
        return self.count - int(self.before[self.values.searchsorted(threshold, side="right")])

    def quantiles(self, shares: Sequence[float]) -> tuple[float, ...]:
        """See `Census.quantiles`."""
        count = self.count
        if not count:
            return (0.0,) * len(shares)
        ranks = np.array([min(max(math.ceil(q * count), 1), count) for q in shares], np.uint64)
        return tuple(self.values[self.before[1:].searchsorted(ranks)].tolist())

    def between(self, edges: NDArray[np.float64]) -> NDArray[np.uint64]:
        """Number of weights that are not zero below the first of these edges, from each up to the next, from the last.

        uint64 [len(edges) + 1]; a weight at an edge lies above it.
        """
        below = np.empty(len(edges) + 2, np.uint64)
        below[0] = self.before[1] if self.count and not self.values[0] else 0
        np.maximum(self.before[self.values.searchsorted(edges)], below[0], out=below[1:-1])
        below[-1] = self.before[-1]
        return below[1:] - below[:-1]


def _moments(filled: FilledBins, counts: NDArray[np.uint64]) -> tuple[float, float, float]:
    """Largest magnitude, sum of squares and of fourth powers of weights that are the smallest of their bins."""
    values, found = filled.values, counts.astype(np.float64)
    squares = values * values
    largest = float(values[-1]) if values.size else 0.0
    return largest, float(squares @ found), float((squares * squares) @ found)


def _filled(counts: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The bins that hold finite weights."""
    bins: NDArray[np.int64] = (counts[:INFINITY_BIN] != 0).nonzero()[0]  # of numbers it takes many times as long
    return bins


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Errors of one quantized weight. Row sums are kept, so a total does not depend on how rows were cut into slabs.

    row_squares, row_error: float64 [rows], sums of w**2 and of (w - decoded)**2, in units of the weight squared.
    max_error: largest |w - decoded|. vanished: non-zero weights whose code decodes to zero.
    scale_counts: uint64 [256], blocks per scale byte (zeros for affine formats). width: K.
    block_error: float32 [rows, K / block], sums of squared error per block, when asked for.
    """

    width: int
    row_squares: NDArray[np.float64]
    row_error: NDArray[np.float64]
    max_error: float
    vanished: int
    scale_counts: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(256, np.uint64))
    block_error: NDArray[np.float32] | None = None

    @property
    def count(self) -> int:
        """Number of weights."""
        return self.width * len(self.row_error)

    @property
    def sum_squares(self) -> float:
        """Sum of w**2."""
        return math.fsum(self.row_squares)

    @property
    def sum_error(self) -> float:
        """Sum of (w - decoded)**2."""
        return math.fsum(self.row_error)

    @property
    def rel_err(self) -> float:
        """||W - decoded|| / ||W||, the square root of the quotient of the sums; 0 when both are zero."""
        return relative_error(self.sum_error, self.sum_squares)

    @property
    def mse(self) -> float:
        """Mean squared error."""
        return self.sum_error / self.count if self.count else 0.0


def relative_error(sum_error: float, sum_squares: float) -> float:
    """sqrt(sum_error / sum_squares); 0 when both are zero, Inf when only the weight is."""
    if sum_squares > 0:
        return math.sqrt(sum_error / sum_squares)
    return math.inf if sum_error > 0 else 0.0


def snr_db(rel_err: float) -> float:
    """Signal-to-noise ratio in decibels of a relative error; Inf when there is none, NaN of NaN."""
    return rel_err if math.isnan(rel_err) else -20 * math.log10(rel_err) if rel_err > 0 else math.inf


def concatenate(parts: list[Fidelity]) -> Fidelity:
    """The fidelity of a weight from those of its slabs, in row order. Raises ValueError when there is none."""
    if not parts:
        raise ValueError("[concatenate] needs at least one part, got none")
    blocks = [part.block_error for part in parts if part.block_error is not None]
    return Fidelity(
        width=parts[0].width,
        row_squares=np.concatenate([part.row_squares for part in parts]),
        row_error=np.concatenate([part.row_error for part in parts]),
        max_error=max(part.max_error for part in parts),
        vanished=sum(part.vanished for part in parts),
        scale_counts=np.sum([part.scale_counts for part in parts], axis=0, dtype=np.uint64),
        block_error=np.concatenate(blocks) if len(blocks) == len(parts) else None,
    )


_SAFE_SQUARES = (1e-20, 1e30)
"""Sums of squares that float32 holds without a loss that matters."""


def squared_error(weight: NDArray[Any], decoded: NDArray[np.float32]) -> float:
    """Sum of (weight - decoded)**2 over [rows, columns]: float32 per row where that can hold it, float64 beyond."""
    with np.errstate(all="ignore"):
        difference = widen(weight) - decoded
        total = float(np.einsum("ij,ij->i", difference, difference).sum(dtype=np.float64))
        if _SAFE_SQUARES[0] < total < _SAFE_SQUARES[1]:
            return total
        exact = weight.astype(np.float64) - decoded
        return float(np.einsum("ij,ij->", exact, exact))


def widen(weight: NDArray[Any]) -> NDArray[np.float32]:
    """The weight in float32, contiguous."""
    if weight.dtype == ml_dtypes.bfloat16:
        words = weight.view(np.uint16).astype(np.uint32)
        words <<= 16
        return words.view(np.float32)
    return weight.astype(np.float32)
