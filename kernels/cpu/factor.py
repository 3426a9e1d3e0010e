"""The Cholesky factorization of `kernels.feedback` in the C++ library, on several threads."""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np

from kernels.context import BLOCK
from kernels.cpu import library
from kernels.feedback import Float64, not_positive

PANEL = 128
"""Columns that are factored together, as factor.h has it."""


def fastest() -> int:
    """The number of the fastest variant that runs here. Raises OSError or ValueError when there is none."""
    found = library.variants()
    if not found:
        raise ValueError("[factor_of] the library has no variant for this processor")
    return next(iter(found.values()))


def cholesky(matrix: Float64, variant: int, threads: int = 1) -> None:
    """`kernels.feedback.cholesky` to the bit for any variant and number of threads; K is a multiple of 16.

    What lies below the diagonal is overwritten. Takes 1 KiB a column beside the matrix.
    """
    size = len(matrix)
    panel, corner = np.zeros((PANEL, size)), np.zeros((PANEL, PANEL))
    task = library.FactorTask(library.address(matrix), library.address(panel), library.address(corner), size)
    call = partial(library.load().nvfp4_factor, variant)
    with ThreadPoolExecutor(threads) as pool:
        for stop in range(size, 0, -PANEL):
            task.start, task.stop = max(0, stop - PANEL), stop
            call(ctypes.byref(task))
            if task.failed >= 0:
                raise not_positive(matrix[task.failed, task.failed], task.failed)
            list(pool.map(call, map(ctypes.byref, _parts(task, threads))))


def _parts(task: library.FactorTask, threads: int) -> list[library.FactorTask]:
    """The rows above a panel in equal parts."""
    edges = [task.start // BLOCK * part // threads * BLOCK for part in range(threads + 1)]
    return [_part(task, first, last) for first, last in pairwise(edges) if first < last]


def _part(task: library.FactorTask, first: int, last: int) -> library.FactorTask:
    part = library.FactorTask.from_buffer_copy(task)
    part.first, part.last = first, last
    return part
