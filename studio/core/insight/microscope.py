"""The error of every block as a map of bounded size, and the places of the worst blocks."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LARGEST_MAP = 1000
WORST_BLOCKS = 24


@dataclass(frozen=True, slots=True)
class Place:
    """A block: its matrix, row, number in the row, and root mean square error in units of the layer's sigma."""

    matrix: int
    row: int
    block: int
    error: float


@dataclass(frozen=True, slots=True, eq=False)
class ErrorMap:
    """Root mean square error per cell in units of the layer's sigma.

    cells: float32 [height, width], at most 1000 x 1000. A cell covers `rows` output rows and `columns` input columns;
    those at the end may cover fewer. Matrices of a stack follow one another.
    """

    cells: NDArray[np.float32]
    rows: int
    columns: int


class MapBuilder:
    """Adds up squared errors of blocks, slab by slab."""

    def __init__(self, shapes: Sequence[tuple[int, int]], block: int, sigma: float) -> None:
        self._firsts = np.cumsum([0, *(rows for rows, _ in shapes)])
        self._sigma, self._block = sigma or 1.0, block
        total, blocks = int(self._firsts[-1]), max(columns for _, columns in shapes) // block
        self._rows, self._blocks = -(-total // LARGEST_MAP), -(-blocks // LARGEST_MAP)
        self._sums = np.zeros((-(-total // self._rows), -(-blocks // self._blocks)))
        tall = np.bincount(np.arange(total) // self._rows)
        wide = np.bincount(np.arange(blocks) // self._blocks) * block
        self._weights = tall[:, None] * wide[None, :]
        self._worst: list[tuple[float, int, int, int]] = []

    def add(self, matrix: int, start: int, errors: NDArray[np.float32]) -> None:
        """Take the sums of squared errors [rows, blocks] of the rows from `start` on."""
        columns = np.add.reduceat(errors, np.arange(0, errors.shape[1], self._blocks), axis=1, dtype=np.float64)
        first = int(self._firsts[matrix]) + start
        cells = np.arange(first, first + len(errors)) // self._rows
        edges = np.flatnonzero(np.diff(cells, prepend=-1))
        self._sums[cells[edges], : columns.shape[1]] += np.add.reduceat(columns, edges, axis=0)
        self._remember(matrix, start, errors)

    def _remember(self, matrix: int, start: int, errors: NDArray[np.float32]) -> None:
        flat = errors.reshape(-1)
        count = min(WORST_BLOCKS, flat.size)
        for place in np.argpartition(flat, flat.size - count)[-count:]:
            row, block = divmod(int(place), errors.shape[1])
            entry = (float(flat[place]), -matrix, -(start + row), -block)
            if len(self._worst) < WORST_BLOCKS:
                heapq.heappush(self._worst, entry)
            else:
                heapq.heappushpop(self._worst, entry)

    def finish(self) -> ErrorMap:
        """The map."""
        cells = np.sqrt(self._sums / self._weights) / self._sigma
        return ErrorMap(cells.astype(np.float32), self._rows, self._blocks * self._block)

    def worst(self) -> tuple[Place, ...]:
        """The worst blocks, worst first."""
        return tuple(
            Place(-matrix, -row, -block, (error / self._block) ** 0.5 / self._sigma)
            for error, matrix, row, block in sorted(self._worst, reverse=True)
        )
