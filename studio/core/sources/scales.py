"""Scales: the multipliers of stored codes, one per block of rows and columns."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.reference import e8m0_decode
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.errors import CheckpointError
from studio.core.model import Matrix, Stored
from studio.core.names import printable
from studio.core.sources.plain import read_elements

EXPONENTS = ("F8_E8M0", "U8")
"""Dtypes whose bytes b stand for 2**(b - 127)."""

SCALE_DTYPES = (*WEIGHT_DTYPES, *EXPONENTS)
_NO_NUMBER = 255


@dataclass(frozen=True, slots=True)
class Scales:
    """One multiplier per `block` (rows, columns) of each slice of `height` rows, counted from its top left corner.

    A slice is a whole weight, or an expert of a stack. `grid` is the number of scales of a slice, down and across:
    blocks at its right and lower edge may be cut off. Scales are stored slice by slice, row by row.
    """

    stored: Stored
    height: int
    block: tuple[int, int]
    grid: tuple[int, int]

    @property
    def meaning(self) -> str:
        """What is multiplied with, for people."""
        rows, columns = self.block
        return f"{self.stored.tensor.dtype} scales of {rows} x {columns}"

    def apply(self, weights: NDArray[np.float32], matrix: Matrix, start: int, owner: Stored) -> None:
        """Multiply the rows of a matrix from `start` on by their scales, in place; `owner` is named in errors."""
        if matrix.column_step != 1:
            self._apply_turned(weights, matrix, start, owner)
            return
        step = matrix.row_step or matrix.columns
        factors = self._of_rows((matrix.first + np.arange(start, start + len(weights)) * step) // matrix.columns, owner)
        width = self.block[1]
        whole = weights.shape[1] // width
        if not factors.all():
            self._check_used(weights, factors.repeat(width, 1)[:, : weights.shape[1]], owner)
        blocks = weights[:, : whole * width].reshape(len(weights), whole, width)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # NaN and Inf are counted and refused later
            blocks *= factors[:, :whole, None]
            weights[:, whole * width :] *= factors[:, whole:]

    def _apply_turned(self, weights: NDArray[np.float32], matrix: Matrix, start: int, owner: Stored) -> None:
        """`apply` for a matrix whose columns are stored rows."""
        row, column = divmod(matrix.first, matrix.column_step)
        factors = self._of_rows(row + np.arange(matrix.columns), owner)
        places = (column + np.arange(start, start + len(weights)) * matrix.row_step) // self.block[1]
        if not factors.all():
            self._check_used(weights, factors[:, places].T, owner)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            weights *= factors[:, places].T

    def _of_rows(self, rows: NDArray[np.int64], owner: Stored) -> NDArray[np.float32]:
        """The scales of stored rows, in ascending order: [rows, scales across]."""
        places = rows // self.height * self.grid[0] + rows % self.height // self.block[0]
        low, high = int(places[0]), int(places[-1]) + 1
        stored = read_elements(self.stored, low * self.grid[1], (high - low) * self.grid[1])
        decoded: NDArray[np.float32] = self._decoded(stored, owner).reshape(high - low, self.grid[1])[places - low]
        return decoded

    def _decoded(self, stored: NDArray[Any], owner: Stored) -> NDArray[np.float32]:
        if self.stored.tensor.dtype in EXPONENTS:
            self._check(stored != _NO_NUMBER, "are E8M0 255, which is no number", owner)
            return e8m0_decode(stored)
        wide: NDArray[np.float32] = stored.astype(np.float32)
        self._check(np.isfinite(wide) & (wide >= 0), "are no positive numbers", owner)
        return wide

    def _check_used(self, codes: NDArray[np.float32], factors: NDArray[np.float32], owner: Stored) -> None:
        """Refuse a scale of 0 where codes are not 0: what they stood for can not be told."""
        if lost := int(((factors == 0) & (codes != 0)).sum()):
            what = f"{lost:,} of its codes are not 0, but their scales in {printable(self.stored.tensor.name)} are"
            raise CheckpointError(what, file=owner.file.path.name, tensor=owner.tensor.name)

    def _check(self, good: NDArray[np.bool_], what: str, owner: Stored) -> None:
        if not good.all():
            bad = f"{int((~good).sum()):,} of its scales in {printable(self.stored.tensor.name)} {what}"
            raise CheckpointError(bad, file=owner.file.path.name, tensor=owner.tensor.name)
