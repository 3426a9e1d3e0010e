"""Tallies: what is known of a layer, folded as its slabs come in; the result does not depend on how they were cut."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from kernels import Census, Fidelity
from kernels.backend import Backend
from kernels.fidelity import FEW, AnyCensus, SmallCensus

_ALL_LOST = 1e-6
_MANY_TERMS = 1024


class CensusTally:
    """The censuses of slabs, added up. Sums of floats are kept apart in a task and added in the order of the slabs."""

    def __init__(self) -> None:
        self._counts: NDArray[np.uint64] | None = None
        self._alone: SmallCensus | None = None
        self._sums: list[tuple[float, float, float]] = []

    def add(self, census: AnyCensus) -> None:
        """The next slab; its counts are taken over."""
        self._add(census if isinstance(census, SmallCensus) else census.counts)
        self._sums.append((census.max_abs, census.sum2, census.sum4))

    def merge(self, later: "CensusTally") -> None:
        """The slabs that follow."""
        for part in (later._counts, later._alone):
            if part is not None:
                self._add(part)
        self._sums = [_added([*self._sums, *later._sums])]

    def census(self) -> AnyCensus:
        """The census of all slabs."""
        if self._alone is not None:
            return self._alone
        counts = Census.empty().counts if self._counts is None else self._counts
        return Census(counts, *_added(self._sums))

    def _add(self, part: NDArray[np.uint64] | SmallCensus) -> None:
        is_first = self._counts is None and self._alone is None
        if isinstance(part, SmallCensus):
            if is_first:
                self._alone = part
            else:
                self._dense()[part.bins] += part.counts
        elif is_first:
            self._counts = part
        else:
            counts = self._dense()
            counts += part

    def _dense(self) -> NDArray[np.uint64]:
        """The counts in all bins, to be added to."""
        if self._counts is None:
            self._counts = Census.empty().counts
            if self._alone is not None:
                self._counts[self._alone.bins] = self._alone.counts
                self._alone = None
        return self._counts


def census_of(backend: Backend, weight: NDArray[Any]) -> AnyCensus:
    """The census of a contiguous weight of any shape, in the form that costs less."""
    if weight.dtype == ml_dtypes.bfloat16 and weight.size <= FEW:
        return SmallCensus.of(weight)
    return backend.census(weight)


def _added(sums: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    largest, sum2, sum4 = 0.0, 0.0, 0.0
    for one, two, four in sums:
        largest, sum2, sum4 = max(largest, one), sum2 + two, sum4 + four
    return largest, sum2, sum4


@dataclass(slots=True)
class ErrorTally:
    """The fidelity of slabs, added up. The sums are kept as few terms that add up to them without any rounding."""

    squares: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    max_error: float = 0.0
    vanished: int = 0
    rows: int = 0
    vanished_rows: int = 0
    scale_counts: NDArray[np.uint64] | None = None

    def add(self, part: Fidelity) -> None:
        """The next slab."""
        squares, errors = exact_terms(part.row_squares.tolist()), exact_terms(part.row_error.tolist())
        rows, lost = len(part.row_error), _vanished_rows(part)
        self.merge(ErrorTally(squares, errors, part.max_error, part.vanished, rows, lost, part.scale_counts))

    def merge(self, later: "ErrorTally") -> None:
        """The slabs that follow."""
        self.squares = _few([*self.squares, *later.squares])
        self.errors = _few([*self.errors, *later.errors])
        self.max_error = max(self.max_error, later.max_error)
        self.vanished += later.vanished
        self.rows += later.rows
        self.vanished_rows += later.vanished_rows
        if self.scale_counts is None:
            self.scale_counts = later.scale_counts
        elif later.scale_counts is not None:
            self.scale_counts = self.scale_counts + later.scale_counts

    @property
    def sum_squares(self) -> float:
        """Sum of w**2, rounded once."""
        return math.fsum(self.squares)

    @property
    def sum_error(self) -> float:
        """Sum of squared errors, rounded once."""
        return math.fsum(self.errors)


def exact_terms(values: list[float]) -> list[float]:
    """The fewest floats whose exact sum is that of `values`: its rounded sum, then what that leaves, and so on."""
    if len(values) < 2:
        return values
    terms: list[float] = []
    rest = values.copy()
    while (term := math.fsum(rest)) and math.isfinite(term):
        terms.append(term)
        rest.append(-term)
    return [*terms, term] if term else terms


def _few(terms: list[float]) -> list[float]:
    return exact_terms(terms) if len(terms) > _MANY_TERMS else terms


def _vanished_rows(part: Fidelity) -> int:
    """Rows that hold weights and decode to zero: their error is all that there was."""
    squares = part.row_squares
    return int(np.count_nonzero((squares > 0) & (part.row_error >= squares * (1 - _ALL_LOST))))
