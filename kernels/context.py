"""Context: what is known of the inputs of one matrix, in whole numbers, so that every backend decides alike."""

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

BLOCK = 16
TRIANGLE = BLOCK * (BLOCK + 1) // 2
"""Numbers in the upper triangle of a 16 x 16 matrix, row after row."""

IMPORTANCE_MAX = 32767
MOMENTS_MAX = 16383
FLOOR = 1 / 16384
"""Share of a block's mean importance that every column has at least: a column never active is not free to be wrong."""

SHRINKAGE = 0.25
"""Share of the moments of two columns that does not count: inputs of a quantized model, or of another text, go together
less than those that were seen, so errors must not rely on cancelling each other."""

_Whole = TypeVar("_Whole", np.uint16, np.int16)

_ROWS, _COLUMNS = np.triu_indices(BLOCK)
_DIAGONAL = _ROWS == _COLUMNS


@dataclass(frozen=True, slots=True)
class Factor:
    """How errors are fed forward over the columns of a matrix [rows, K]; made by `kernels.feedback.factor_of`.

    order: int32 [K], the columns in the order in which they are quantized.
    feedback: float32 [K, K], C-contiguous, in that order: [i, c] is the share of the error of column i that column c
        makes up for; zero on and below the diagonal.
    coupling: float32 [K, K], the same while the codes of all other columns stand; zero on the diagonal.
    """

    order: NDArray[np.int32]
    feedback: NDArray[np.float32]
    coupling: NDArray[np.float32]

    def check(self, width: int) -> None:
        """Raise ValueError when this is not the factor of matrices [rows, `width`]."""
        parts = (self.feedback, self.coupling)
        shapes = [part.shape for part in parts]
        if self.order.shape != (width,) or shapes != [(width, width)] * 2:
            raise ValueError(f"[encode] factor must be of {width} columns, got {shapes}")
        if not np.array_equal(np.sort(self.order), np.arange(width)):
            raise ValueError("[encode] factor must have every column once in its order")
        fit = all(part.dtype == np.float32 and part.flags.c_contiguous for part in parts)
        if self.order.dtype != np.int32 or not fit:
            found = [str(part.dtype) for part in (self.order, *parts)]
            raise TypeError(f"[encode] factor must be int32 and C-contiguous float32, got {found}")


@dataclass(frozen=True, slots=True)
class Context:
    """What encoding one matrix [rows, K] may use beside its weights; any part may be missing.

    importance: uint16 [K], at most 32767, mean squares of the input columns, relative within each block of 16.
    moments: int16 [K / 16, 136], upper triangles of the second moments of each block of input columns, entries off the
        diagonal doubled, relative within each block: the largest on the diagonal is 16383.
    factor: how errors are fed forward.
    """

    importance: NDArray[np.uint16] | None = None
    moments: NDArray[np.int16] | None = None
    factor: Factor | None = None

    def guides(self, method: str) -> Literal["", "importance", "moments"]:
        """The part by which `method` weighs errors, "" where it knows of none."""
        if method in ("hessian", "feedback") and self.moments is not None:
            return "moments"
        asked = method in ("importance", "hessian", "feedback")
        return "importance" if asked and self.importance is not None else ""

    def used(self, method: str, width: int) -> tuple[NDArray[np.uint16] | None, NDArray[np.int16] | None]:
        """What `method` weighs errors by in a matrix of `width` columns: importance, moments or neither, contiguous.

        Raises ValueError when it is not that of so many columns.
        """
        part = self.guides(method)
        if part == "moments" and self.moments is not None:
            return None, _fitting(self.moments, np.int16, (width // BLOCK, TRIANGLE), part)
        if part == "importance" and self.importance is not None:
            return _fitting(self.importance, np.uint16, (width,), part), None
        return None, None


def importance_of(mean_square: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The `importance` of a `Context` from mean squares of input columns, float [K]; K is a multiple of 16.

    Raises ValueError for a negative number, NaN or Inf. A block of zeros counts all columns alike.
    """
    blocks = _checked(mean_square, "mean_square").reshape(-1, BLOCK)
    blocks = blocks + _mean(blocks)[:, None] * FLOOR
    largest = blocks.max(axis=1, keepdims=True)
    relative = np.where(largest > 0, blocks, 1.0) / np.where(largest > 0, largest, 1.0)
    whole: NDArray[np.uint16] = np.rint(relative * IMPORTANCE_MAX).astype(np.uint16).reshape(-1)
    return whole


def moments_of(triangles: NDArray[np.float32]) -> NDArray[np.int16]:
    """The `moments` of a `Context` from second moments of blocks of input columns, float [K / 16, 136].

    Those of two columns are shrunk by `SHRINKAGE`.
    Raises ValueError for NaN, Inf or a negative number on a diagonal. A block of zeros counts all columns alike.
    """
    found = triangles.astype(np.float64)
    if not np.isfinite(found).all():
        raise ValueError("[moments_of] triangles must be finite, got NaN or Inf")
    diagonal = _checked(found[:, _DIAGONAL], "diagonal")
    floor = _mean(diagonal) * FLOOR
    found[:, _DIAGONAL] += np.where(diagonal.max(axis=1) > 0, floor, 1.0)[:, None]
    largest = found[:, _DIAGONAL].max(axis=1, keepdims=True)
    doubled = found / largest * np.where(_DIAGONAL, MOMENTS_MAX, 2 * MOMENTS_MAX * (1 - SHRINKAGE))
    whole: NDArray[np.int16] = np.clip(np.rint(doubled), -2 * MOMENTS_MAX, 2 * MOMENTS_MAX).astype(np.int16)
    return whole


def _fitting(part: NDArray[_Whole], dtype: type[_Whole], shape: tuple[int, ...], what: str) -> NDArray[_Whole]:
    if part.shape != shape or part.dtype != dtype:
        raise ValueError(f"[context] {what} must be {np.dtype(dtype)} {shape}, got {part.dtype} {part.shape}")
    return np.ascontiguousarray(part)


def _checked(numbers: NDArray[np.floating], what: str) -> NDArray[np.float64]:
    wide = numbers.astype(np.float64)
    if not (np.isfinite(wide).all() and (wide >= 0).all()):
        raise ValueError(f"[context] {what} must be finite and not negative, got {wide.min()} to {wide.max()}")
    return wide


def _mean(blocks: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each row [blocks, 16], summed in one order on every machine."""
    total = blocks[:, 0].copy()
    for column in range(1, BLOCK):
        total += blocks[:, column]
    return total / BLOCK
