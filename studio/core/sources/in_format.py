"""InFormat: rows stored in one of the formats of `kernels`; codes, block scales, biases, and three tensor scales."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kernels import Format, Quantized
from kernels.backend import Backend
from kernels.formats import TENSOR_SCALE_DIVISOR
from kernels.machines import choose
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.errors import CheckpointError
from studio.core.model import Stored
from studio.core.names import printable
from studio.core.sources.orders import BY_ROW, Order
from studio.core.sources.plain import read_elements

Convention = Literal["multiplier", "divisor", "amax"]
"""What a stored tensor scale is, by g and by A = max|W|: g = A / 2688, 1 / g, or A."""

_NOT_A_NUMBER: Mapping[str, int] = {"e4m3": 0x7F, "e8m0": 0xFF}
"""The bits that are all set in a byte of a block scale which stands for no number."""

_MULTIPLIERS: Mapping[Convention, Callable[[float], float]] = {
    "multiplier": lambda stored: stored,
    "divisor": lambda stored: 1 / stored if stored else math.inf,
    "amax": lambda stored: stored / TENSOR_SCALE_DIVISOR,
}


def multiplier_of(stored: float, convention: Convention) -> float:
    """The multiplier g of a stored tensor scale in float64; rounded to float32 it is what readers compute."""
    return _MULTIPLIERS[convention](stored)


def not_numbers(scales: NDArray[np.uint8], kind: str) -> NDArray[np.bool_]:
    """Which bytes of block scales of a kind ("e4m3" or "e8m0") stand for no number."""
    bits = _NOT_A_NUMBER[kind]
    found: NDArray[np.bool_] = (scales & bits) == bits
    return found


def check_scale_bytes(scales: NDArray[np.uint8], kind: str, stored: Stored, codes: Stored) -> None:
    """Raise CheckpointError for bytes of block scales of a kind ("e4m3" or "e8m0") that stand for no number."""
    bad = not_numbers(scales, kind)
    if bad.any():
        byte = f"{kind.upper()} {int(scales[bad][0])}, which is no number"
        what = f"{int(bad.sum()):,} of its scales in {printable(stored.tensor.name)} are {byte}"
        raise CheckpointError(what, file=codes.file.path.name, tensor=codes.tensor.name)


@dataclass(frozen=True, slots=True)
class TensorScale:
    """The stored tensor scales, float32 in any shape: one for all rows, or one per `height` rows; and what they are."""

    stored: Stored
    convention: Convention
    height: int = 0

    def number(self, row: int) -> float:
        """What is stored for a row."""
        return float(read_elements(self.stored, row // self.height if self.height else 0, 1)[0])

    def multiplier(self, row: int) -> float:
        """The multiplier of a stored row; raises CheckpointError for one that is not usable."""
        stored = self.number(row)
        g = multiplier_of(stored, self.convention) if math.isfinite(stored) and stored > 0 else math.nan
        with np.errstate(over="ignore", under="ignore"):
            usable = 0 < np.float32(g) < math.inf
        if not usable:
            what = f"tensor scale {stored:g} is not usable: {self.convention} must be a positive number"
            raise CheckpointError(what, file=self.stored.file.path, tensor=self.stored.tensor.name)
        return g


@dataclass(frozen=True, slots=True)
class InFormat:
    """Rows of `columns` weights in a format, see `Encoding`.

    maker: who stores them like that, for people. order, scale_order: how the rows of codes and of scales are stored.
    """

    format: Format
    columns: int
    codes: Stored
    scales: Stored
    biases: Stored | None = None
    tensor_scale: TensorScale | None = None
    maker: str = ""
    order: Order = BY_ROW
    scale_order: Order = BY_ROW

    @property
    def bits(self) -> int:
        """See `Encoding`."""
        return self.format.bits

    @property
    def parts(self) -> tuple[Stored, ...]:
        """See `Encoding`."""
        third = self.tensor_scale.stored if self.tensor_scale else None
        return tuple(part for part in (self.codes, self.scales, self.biases, third) if part is not None)

    @property
    def meaning(self) -> str:
        """See `Encoding`."""
        return f"{self.format.title}, {self.maker}" if self.maker else self.format.title

    @property
    def scale_dtype(self) -> str:
        """See `Encoding`."""
        return self.scales.tensor.dtype if self.format.affine else ""

    @property
    def height(self) -> int:
        """Rows that can be read at once, and have one tensor scale; 0 for all."""
        return self.tensor_scale.height or self.order.height if self.tensor_scale else self.order.height

    def decode(self, start: int, stop: int) -> NDArray[np.float32]:
        """See `Encoding.decode`."""
        height = self.height or stop
        cuts = [start, *range((start // height + 1) * height, stop, height), stop]
        found = [_decoder().decode(self.packed(*rows)) for rows in pairwise(cuts)]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def packed(self, start: int, stop: int) -> Quantized:
        """See `Encoding.packed`."""
        codes = self._rows(self.codes, start, stop, np.dtype(np.uint8))
        scales = self._rows(self.scales, start, stop, WEIGHT_DTYPES.get(self.scales.tensor.dtype, np.dtype(np.uint8)))
        biases = self._rows(self.biases, start, stop, scales.dtype) if self.biases else None
        self._check_scales(scales, biases)
        g = np.array(self.tensor_scale.multiplier(start), np.float32) if self.tensor_scale else None
        return Quantized(self.format, codes, scales, biases, g)

    def multiplier(self, row: int) -> float:
        """See `Encoding.multiplier`."""
        return self.tensor_scale.multiplier(row) if self.tensor_scale else 1.0

    def _rows(self, part: Stored, start: int, stop: int, dtype: "np.dtype[Any]") -> NDArray[Any]:
        columns = self.columns * self.bits // 8 if part is self.codes else self.columns // self.format.block
        order = self.order if part is self.codes else self.scale_order
        return order.rows(part, start, stop, columns * dtype.itemsize).view(dtype)

    def _check_scales(self, scales: NDArray[Any], biases: NDArray[Any] | None) -> None:
        if not self.format.affine:
            check_scale_bytes(scales, self.format.scale, self.scales, self.codes)
            return
        numbers = [part.astype(np.float32) for part in (scales, biases) if part is not None]
        bad = sum(int((~np.isfinite(part)).sum()) for part in numbers)
        if bad:
            what = f"{bad:,} of its scales in {printable(self.scales.tensor.name)} are not numbers"
            raise CheckpointError(what, file=self.codes.file.path.name, tensor=self.codes.tensor.name)


@cache
def _decoder() -> Backend:
    return choose("cpu")
