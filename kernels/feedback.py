"""Error feedback: each column makes up for the errors of those before it; the definition that every backend follows.

The damped second moments H of a layer's inputs, columns in falling order of their diagonal, are R R^T with R upper
triangular. The squared error of the output, (w - q) H (w - q)^T, is then a sum over columns c of R_cc**2 times the
square of w_c - q_c + sum over i < c of (w_i - q_i) R_ic / R_cc, so q_c is the code nearest to w_c plus that sum. This
gives the codes of GPTQ without the inverse of H (LDLQ in QuIP, arXiv 2307.13304). Then columns are gone over again
(coordinate descent, as QuantEase, arXiv 2309.01885): q_c becomes the code nearest to w_c plus the sum over all other i
of (w_i - q_i) H_ic / H_cc, which is the best one while the others stand. Every sum has one order and no multiplication
is fused with an addition, so neither threads nor vectors change a bit.
"""

import importlib
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kernels.context import BLOCK, Factor

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bytes = NDArray[np.uint8]

DAMPING = 0.1
"""Share of itself that is added to the diagonal: inputs of a quantized model are not quite those that were seen, each
column in proportion to its size, so errors of large columns must not rely on cancelling each other."""

MEAN_DAMPING = 0.01
"""Share of the mean diagonal that is added as well: no column is free, and no matrix singular."""

SWEEPS = 1
"""How often columns are gone over again: a second time gains a quarter of what the first does."""

_SLAB = 256
"""Rows of a matrix handled at a time where a copy of all would cost memory."""


def factor_of(moments: Float32, *, threads: int = 1) -> Factor:
    """The `factor` of a `Context` from second moments X^T X of the input columns, float32 [K, K]; K a multiple of 16.

    Only relative sizes matter. Takes 12 K**2 bytes beside `moments`; `threads` change the time and no bit.
    Raises ValueError, saying why, for a matrix that is no sum of squares: the caller falls back to another method.
    """
    order = _order(moments)
    work = _damped(moments, order)
    diagonal = work.diagonal().copy()
    _cholesky(work, threads)
    feedback = _unit_columns(work)
    del work
    return Factor(order, feedback, _coupling(moments, order, diagonal))


def cholesky(matrix: Float64) -> None:
    """Turn the upper triangle of [K, K] into R with R R^T = matrix, in place, from the last column to the first.

    Raises ValueError when the matrix is not positive definite.
    """
    for k in range(len(matrix) - 1, -1, -1):
        if not 0 < matrix[k, k] < math.inf:
            raise not_positive(matrix[k, k], k)
        matrix[k, k] = np.sqrt(matrix[k, k])
        column = matrix[:k, k]
        column /= matrix[k, k]
        matrix[:k, :k] -= column[:, None] * column


def not_positive(square: float, column: int) -> ValueError:
    """The error for a matrix that leaves no positive square on the diagonal of a column."""
    return ValueError(f"[factor_of] moments must be positive definite, got {square:g} left of column {column}")


def feed_forward(weights: Float32, factor: Factor, quantize: Callable[[int, Float32], tuple[Bytes, Float32]]) -> Bytes:
    """Codes [rows, K] of float32 weights [rows, K].

    `quantize(column, targets)` gives the codes nearest to targets [rows] of a column, and what these decode to.
    Raises ValueError when the factor is that of another width.
    """
    factor.check(weights.shape[-1])
    codes = np.empty(weights.shape, np.uint8)
    errors = weights[:, factor.order]
    _in_turn(weights, errors.copy(), errors, factor.order, factor.feedback, quantize, codes)
    for _ in range(SWEEPS):
        targets = weights[:, factor.order]
        for step in range(1, len(factor.order)):
            targets[:, :step] += errors[:, step, None] * factor.coupling[step, :step]
        _in_turn(weights, targets, errors, factor.order, factor.coupling, quantize, codes)
    return codes


def _in_turn(
    weights: Float32,
    targets: Float32,
    errors: Float32,
    order: NDArray[np.int32],
    shares: Float32,
    quantize: Callable[[int, Float32], tuple[Bytes, Float32]],
    codes: Bytes,
) -> None:
    """Codes and errors of all columns in order, each target taking the new errors of those before it."""
    for step, column in enumerate(order):
        codes[:, column], decoded = quantize(column, targets[:, step])
        errors[:, step] = weights[:, column] - decoded
        targets[:, step + 1 :] += errors[:, step, None] * shares[step, step + 1 :]


def _order(moments: Float32) -> NDArray[np.int32]:
    """Columns by falling diagonal, equal ones as they come; refuses what can not be second moments."""
    if moments.ndim != 2 or moments.shape[0] != moments.shape[1] or not len(moments) or len(moments) % BLOCK:
        raise ValueError(f"[factor_of] moments must be [K, K], K a multiple of {BLOCK}, got {moments.shape}")
    if not all(np.isfinite(moments[start : start + _SLAB]).all() for start in range(0, len(moments), _SLAB)):
        raise ValueError("[factor_of] moments must be finite, got NaN or Inf")
    diagonal = moments.diagonal()
    if diagonal.min() < 0 or diagonal.max() == 0:
        raise ValueError(f"[factor_of] moments' diagonal must be squares, got {diagonal.min()} to {diagonal.max()}")
    return np.argsort(-diagonal, kind="stable").astype(np.int32)


def _damped(moments: Float32, order: NDArray[np.int32]) -> Float64:
    """The moments in float64 [K, K], columns in order, the diagonal damped."""
    found = np.empty(moments.shape, np.float64)
    for start in range(0, len(found), _SLAB):
        found[start : start + _SLAB] = moments[order[start : start + _SLAB]].take(order, axis=1)
    diagonal = np.einsum("ii->i", found)
    mean = math.fsum(diagonal) / len(diagonal)
    diagonal += DAMPING * diagonal + MEAN_DAMPING * mean
    return found


def _cholesky(matrix: Float64, threads: int) -> None:
    """`cholesky` by the C++ library, where it loads."""
    try:
        library = importlib.import_module("kernels.cpu.factor")
        number = library.fastest()
    except (OSError, ValueError):
        cholesky(matrix)
    else:
        library.cholesky(matrix, number, threads)


def _unit_columns(triangle: Float64) -> Float32:
    """R with each column over its diagonal, float32, zero on and below the diagonal."""
    found = np.zeros(triangle.shape, np.float32)
    diagonal = triangle.diagonal()
    for start in range(0, len(found), _SLAB):
        rows = triangle[start : start + _SLAB, start:]
        found[start : start + _SLAB, start:] = np.triu(rows / diagonal[start:], 1)
    return found


def _coupling(moments: Float32, order: NDArray[np.int32], diagonal: Float64) -> Float32:
    """The moments, columns in order, each column over its damped diagonal, float32, zero on the diagonal."""
    found = np.empty(moments.shape, np.float32)
    for start in range(0, len(found), _SLAB):
        found[start : start + _SLAB] = moments[order[start : start + _SLAB]].take(order, axis=1) / diagonal
    np.fill_diagonal(found, 0)
    return found
