"""Integers: rows of whole numbers, weight = (code - zero) x scale of its group; see `tables` for how they lie."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import STORED_FORMATS, Format, Quantized
from kernels.streams import pack_stream
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.counting import counted
from studio.core.errors import CheckpointError
from studio.core.model import Stored
from studio.core.names import printable
from studio.core.sources.found import MisfitError, UnreadError
from studio.core.sources.plain import read_elements
from studio.core.sources.tables import Codes, Floats, Table

_TILE = 1 << 16
"""Weights that are computed at once: what lies between codes and weights stays in a cache."""

_BLOCKS: Mapping[str, tuple[int, ...]] = {"BF16": (128, 64, 32), "F16": (128, 64, 32)}
"""Groups of the formats that hold symmetric integers exactly, the largest first, by the dtype of the scales.

Code x scale + bias is exact in float32 where a scale has 16 bits, and is rounded where it has 32.
"""

_PLAIN = "decode it with --layout plain"
_NO_ORDER = -1
"""What fills the groups of columns where compressed-tensors has no order."""

_SMALLEST_GROUP = 16
"""Of the groups that are believed without a config: powers of two from here on."""


@dataclass(frozen=True, slots=True)
class Integers:
    """Rows of `columns` weights in groups of `group`, see `Encoding`.

    zeros: the code of weight zero, or those of every row and group. order: int32 [columns], the group of each column
    where they do not follow each other. factor: float32, what every weight is multiplied by at last. in_order, centred:
    a config says that they do follow each other, that zero is the middle code; where codes are handed on it is checked.
    stated: a shape that ends with the number of columns, which a config told, behind `rows`, which the codes have; it
    is checked as rows are read.
    """

    columns: int
    bits: int
    group: int
    codes: Codes
    scales: Table
    zeros: Codes | int
    maker: str
    order: Stored | None = None
    factor: float = 1.0
    in_order: bool = False
    centred: bool = False
    stated: Stored | None = None
    rows: tuple[int, ...] = ()

    @property
    def parts(self) -> tuple[Stored, ...]:
        """See `Encoding`."""
        zeros = () if isinstance(self.zeros, int) else (self.zeros.stored,)
        more = (part for part in (self.order, self.stated) if part is not None)
        return (self.codes.stored, self.scales.stored, *zeros, *more)

    @property
    def meaning(self) -> str:
        """See `Encoding`."""
        groups = "a scale per row" if self.group == self.columns else f"groups of {self.group}"
        return f"INT{self.bits}, {'one scale' if self.scales.single else groups}, {self.maker}"

    @property
    def format(self) -> Format | None:
        """See `Encoding`."""
        if (self.order and not self.in_order) or self.factor != 1 or self.columns % self.group:
            return None
        blocks = _BLOCKS.get(self.scales.stored.tensor.dtype, ())
        block = next((block for block in blocks if self.group % block == 0), 0)
        return STORED_FORMATS.get(f"int{self.bits}-g{block}")

    @property
    def scale_dtype(self) -> str:
        """See `Encoding`: zeros that are no power of two have more digits than 16 bits hold."""
        return self.scales.stored.tensor.dtype if self.centred or isinstance(self.zeros, int) else "F32"

    def multiplier(self, row: int) -> float:
        """See `Encoding.multiplier`."""
        return 1.0

    def decode(self, start: int, stop: int) -> NDArray[np.float32]:
        """See `Encoding.decode`."""
        self._check_stated()
        codes, groups = self.codes.read(start, stop), self._groups()
        scales, zeros = self._scales(start, stop), self._zeros(start, stop)
        weights = np.empty(codes.shape, np.float32)
        height = max(_TILE // self.columns, 1)
        for first in range(0, len(codes), height):
            rows = slice(first, first + height)
            np.subtract(codes[rows], self._across(zeros, rows, groups), out=weights[rows], dtype=np.float32)
            with np.errstate(over="ignore", under="ignore"):
                weights[rows] *= self._across(scales, rows, groups)
        if self.factor != 1:
            weights *= np.float32(self.factor)
        return weights

    def packed(self, start: int, stop: int) -> Quantized:
        """See `Encoding.packed`."""
        row = self.format
        if row is None:
            raise ValueError(f"[packed] {self.meaning} is no format that can be handed on")
        scales, zeros = self._scales(start, stop), self._zeros(start, stop)
        self._check_said(zeros)
        with np.errstate(over="ignore"):
            biases = self._in_blocks(-zeros * scales, row, stop - start)
        if not np.isfinite(biases.astype(np.float32)).all():
            raise self._fault(f"has scales so large that {row.name} has no biases for them", _PLAIN)
        codes = pack_stream(self.codes.read(start, stop), self.bits)
        return Quantized(row, codes, self._in_blocks(scales, row, stop - start), biases)

    def _check_said(self, zeros: Floats) -> None:
        """Refuse codes that are not as a config says."""
        self._check_stated()
        if self._groups() is not None:
            raise self._fault("has columns in another order than the config says", _PLAIN)
        if self.centred and (zeros != 1 << (self.bits - 1)).any():
            raise self._fault("is not symmetric, as the config says", _PLAIN)

    def _check_stated(self) -> None:
        if self.stated is None:
            return
        *rows, columns = read_elements(self.stated, 0, self.stated.tensor.shape[0]).tolist()
        if rows != list(self.rows):
            what = f"has {list(self.rows)} rows, by {printable(self.stated.tensor.name)} {printable(rows)}"
            raise self._fault(what)
        if columns != self.columns:
            what = f"has rows of {counted(self.columns, 'weight')} by the config, of {columns:,} by "
            raise self._fault(what + printable(self.stated.tensor.name))

    def _in_blocks(self, table: Floats, row: Format, rows: int) -> NDArray[Any]:
        """A number for every block of a format, in the dtype that scales are handed on in."""
        times = self.columns // row.block // table.shape[1]
        with np.errstate(over="ignore"):
            found = np.repeat(table, times, axis=1).astype(WEIGHT_DTYPES[self.scale_dtype])
        return np.ascontiguousarray(np.broadcast_to(found, (rows, found.shape[1])))

    def _zeros(self, start: int, stop: int) -> Floats:
        """The codes of weight zero: [rows, groups], or as few as broadcast."""
        found = np.full((1, 1), self.zeros) if isinstance(self.zeros, int) else self.zeros.read(start, stop)
        wide: Floats = found.astype(np.float32)
        return wide

    def _across(self, table: Floats, rows: slice, groups: NDArray[np.int32] | None) -> Floats:
        """The numbers of rows and groups, one for every weight of these rows, or as few as broadcast."""
        own = table[rows] if len(table) > 1 else table
        if table.shape[1] == 1:
            return own
        return np.repeat(own, self.group, axis=1)[:, : self.columns] if groups is None else own[:, groups]

    def _scales(self, start: int, stop: int) -> Floats:
        scales: Floats = self.scales.read(start, stop).astype(np.float32)
        if bad := int((~np.isfinite(scales)).sum()):
            raise self._fault(f"{bad:,} of its scales in {printable(self.scales.stored.tensor.name)} are not numbers")
        return scales

    def _groups(self) -> NDArray[np.int32] | None:
        """The group of every column where they do not follow each other."""
        if self.order is None:
            return None
        groups = read_elements(self.order, 0, self.columns)
        if (groups == np.arange(self.columns) // self.group).all() or (groups == _NO_ORDER).all():
            return None
        if groups.min() < 0 or groups.max() >= self.scales.width:
            raise self._fault(f"has groups in {printable(self.order.tensor.name)} that it has no scales of")
        return groups

    def _fault(self, what: str, hint: str = "") -> CheckpointError:
        stored = self.codes.stored
        return CheckpointError(what, file=stored.file.path.name, tensor=stored.tensor.name, hint=hint)


def group_of(columns: int, groups: int, said: Collection[int]) -> int:
    """How many columns share a scale, by the sizes that the config says. Raises UnreadError where that is open."""
    fitting = {size for size in said if size > 0 and -(-columns // size) == groups}
    if groups == 1:
        return columns
    if len(fitting) == 1:
        return fitting.pop()
    size = columns // groups if groups and columns % groups == 0 else 0
    if size < _SMALLEST_GROUP or size & (size - 1):
        raise MisfitError(f"{columns} columns with {groups} scales, of which the config does not say the groups")
    return size


def scale_table(scales: Stored, rows: Sequence[int]) -> Table:
    """The table of scales of weights with `rows`: one for all, a vector, or [..., groups]. Raises UnreadError."""
    *others, groups = scales.tensor.shape or (1,)
    count = math.prod(rows)
    if scales.tensor.dtype not in WEIGHT_DTYPES:
        raise UnreadError(f"integers with scales of {scales.tensor.dtype}")
    if not scales.tensor.nbytes:
        raise MisfitError(f"integers of {printable(list(rows))} rows with 0 scales")
    if math.prod(scales.tensor.shape) == 1 and len(rows) == 1:
        return Table(scales, 1, 1, single=True)
    if tuple(others) == tuple(rows):
        return Table(scales, count, groups)
    if scales.tensor.shape == tuple(rows) and len(rows) == 1:
        return Table(scales, count, 1)
    raise MisfitError(f"integers of {list(rows)} rows with scales {list(scales.tensor.shape)}")
