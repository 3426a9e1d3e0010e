"""Gathering: the rows of a whole weight, put together from those of its matrices, wherever these lie in it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.core.model import Matrix

_AT_ONCE = 1 << 20
"""Weights that are decoded at once where only some columns are wanted."""

Rows = Callable[[Matrix, int, int], NDArray[Any]]
"""Rows `start` .. `stop` of a matrix."""


def gathered(
    rows: Rows, own: Sequence[Matrix], dtype: "np.dtype[Any]", whole: Matrix, start: int, stop: int
) -> NDArray[Any]:
    """Rows of a layer as one matrix, in stored order, from the `rows` of its matrices, which cover all of it.

    A row of a matrix is a row of the whole, some columns of one that follow each other in equal steps, or a column.
    """
    found = np.empty((stop - start, whole.columns), dtype)
    for one in own:
        row, column = divmod(one.first, whole.columns)
        if one.column_step < whole.columns:
            step = (one.row_step or one.columns) // whole.columns
            some = range(*_inside(row, one.rows, step, start, stop))
            if some:
                columns = slice(column, column + (one.columns - 1) * one.column_step + 1, one.column_step)
                found[row + some.start * step - start :: step, columns][: len(some)] = rows(one, some.start, some.stop)
        else:
            _turn(found, rows, one, column, *_inside(row, one.columns, 1, start, stop), row - start)
    return found


def _turn(out: NDArray[Any], rows: Rows, own: Matrix, column: int, low: int, high: int, shift: int) -> None:
    """Write columns `low` .. `high` of a matrix that was stored [inputs, outputs] as rows of `out`."""
    height = max(_AT_ONCE // own.columns, 1)
    for start in range(0, own.rows if low < high else 0, height):
        stop = min(start + height, own.rows)
        places = column + np.arange(start, stop) * own.row_step
        out[low + shift : high + shift, places] = rows(own, start, stop)[:, low:high].T


def _inside(first: int, count: int, step: int, start: int, stop: int) -> tuple[int, int]:
    """Which of `count` places, `step` apart from `first` on, lie in `start` .. `stop`."""
    return max(-(-(start - first) // step), 0), min(-(-(stop - first) // step), count)
