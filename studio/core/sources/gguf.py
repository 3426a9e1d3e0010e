"""Ggml: tensors of a GGUF file as weights in the order and with the values that the rest of the world has."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kernels import FORMATS, STORED_FORMATS, Format, Quantized
from kernels.streams import pack_stream
from studio.core.containers.gguf import GgmlType
from studio.core.errors import CheckpointError
from studio.core.model import Matrix, Stored
from studio.core.names import printable
from studio.core.running.scratch import Scratch, memory
from studio.core.sources.ggml import AFFINE, DECODERS, decode, paired
from studio.core.sources.plain import read_elements
from studio.core.sources.row_orders import RowOrder
from studio.core.sources.undone import Undo

_NO_NUMBER = 0xFF
"""The byte that is NaN in E8M0 and in E4M3, and a number in ggml."""
_MAGNITUDE = 0x7F
"""Of a byte of UE4M3: what is beside the bit that ggml ignores; all of it set stands for 0 there."""


@dataclass(frozen=True, slots=True)
class Ggml:
    """Blocks of a type that is decoded, see `Source`; float32.

    `shape` is [..., outputs, inputs], or that of a vector. `order`, `across`: how llama.cpp has its rows, and the
    columns of each. `undo`: what gives the weights of the values. `factor` is one float32 for all of them.
    """

    stored: Stored
    type: GgmlType
    kept_dtype: str = "BF16"
    order: RowOrder | None = None
    across: RowOrder | None = None
    undo: Undo | None = None
    factor: Stored | None = None
    dtype: str = field(default="F32", init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Source`."""
        return self.stored.tensor.shape

    @property
    def bits(self) -> int:
        """See `Source`: the least that a whole number can say of types with scales among their codes."""
        return self.type.nbytes * 8 // self.type.weights

    @property
    def nbytes(self) -> int:
        """See `Source`."""
        return self.stored.tensor.nbytes + (self.factor.tensor.nbytes if self.factor else 0)

    @property
    def meaning(self) -> str:
        """See `Source`."""
        changes = [change.meaning for change in (self.order, self.across, self.undo) if change]
        return ", ".join([f"GGUF {self.type.name}", *changes, *(["x F32"] if self.factor else [])])

    @property
    def format(self) -> Format | None:
        """See `Source`."""
        if self.undo or self.across:
            return None
        if self.type.name in AFFINE:
            return None if self.factor else STORED_FORMATS[f"int{AFFINE[self.type.name][0]}-g32"]
        name = {"MXFP4": "mxfp4", "NVFP4": "nvfp4-3t" if self.factor else "nvfp4-2t"}.get(self.type.name)
        return FORMATS[name] if name else None

    @property
    def scale_dtype(self) -> str:
        """See `Source.scale_dtype`."""
        return "F16" if self.type.name in AFFINE else ""

    def rows(self, matrix: Matrix, start: int, stop: int, scratch: Scratch | None = None) -> NDArray[np.float32]:
        """See `Source.rows`."""
        if self.type.name not in DECODERS:
            what = f"{self.type.name} is not decoded here"
            raise CheckpointError(what, file=self.stored.file.path.name, tensor=self.stored.tensor.name)
        raw = self._raw(matrix, start, stop, scratch)
        values = memory(4 * (stop - start) * matrix.columns, scratch, 1).view(np.float32)
        decode(self.type, raw, values, self._multiplier())
        values = values.reshape(stop - start, matrix.columns)
        if self.across:
            values = np.take(values, self.across.places(np.arange(matrix.columns)), axis=1)
        return self.undo(values) if self.undo else values

    def packed(self, matrix: Matrix, start: int, stop: int) -> Quantized:
        """See `Source.packed`. Raises CheckpointError for a scale that is a number here alone."""
        row = self.format
        if row is None:
            raise ValueError(f"[packed] {matrix.name} is stored in no format that can be handed on")
        blocks = self._raw(matrix, start, stop).reshape(-1, self.type.nbytes)
        if row.affine:
            return self._integers(row, blocks, stop - start)
        scales, codes = np.split(blocks, [self.type.weights // row.block], axis=1)
        scales = self._checked(scales.reshape(stop - start, -1))
        together = paired(codes, row.block).reshape(stop - start, -1)
        return Quantized(row, together, scales, tensor_scale=self._multiplier())

    def _integers(self, row: Format, blocks: NDArray[np.uint8], rows: int) -> Quantized:
        with np.errstate(over="ignore", invalid="ignore"):
            codes, *numbers = AFFINE[self.type.name][1](blocks)
        bad = sum(int((~np.isfinite(part)).sum()) for part in numbers)
        if bad:
            what = f"{bad:,} of its scales are no numbers, or have no bias in F16"
            hint = "decode it with --layout plain"
            raise CheckpointError(what, file=self.stored.file.path.name, tensor=self.stored.tensor.name, hint=hint)
        scales, biases = (np.ascontiguousarray(part.reshape(rows, -1)) for part in numbers)
        return Quantized(row, pack_stream(codes.reshape(rows, -1), row.bits), scales, biases)

    def _checked(self, scales: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Scale bytes as every reader takes them."""
        if bad := int((scales == _NO_NUMBER).sum()):
            what = f"{bad:,} of its scales are the byte 255, which is a number in ggml only"
            raise CheckpointError(what, file=self.stored.file.path.name, tensor=self.stored.tensor.name)
        if self.type.name == "MXFP4":
            return np.ascontiguousarray(scales)
        plain = scales & np.uint8(_MAGNITUDE)
        return np.where(plain == _MAGNITUDE, np.uint8(0), plain)

    def multiplier(self, matrix: Matrix) -> float:
        """See `Source.multiplier`."""
        g = self._multiplier()
        if g is None:
            return 1.0
        if self.factor and not 0 < float(g) < np.inf:
            what = f"tensor scale {float(g):g} of {printable(matrix.name)} is no positive number"
            raise CheckpointError(what, file=self.stored.file.path.name, tensor=self.factor.tensor.name)
        return float(g)

    def _multiplier(self) -> NDArray[np.float32] | None:
        if self.factor is None:
            return None
        return read_elements(self.factor, 0, 1).astype(np.float32).reshape(())

    def _raw(self, matrix: Matrix, start: int, stop: int, scratch: Scratch | None = None) -> NDArray[np.uint8]:
        """The blocks of rows of a matrix, in their order: [rows, bytes]. A vector is so many rows of one value."""
        width = self.shape[-1] if len(self.shape) > 1 else 1
        step = matrix.row_step or matrix.columns
        first, count = (matrix.first + start * step) // width, (stop - start) * matrix.columns // width
        nbytes = width // self.type.weights * self.type.nbytes
        if self.order is None:
            return self._read(first, count, nbytes, scratch)
        places = self.order.places(np.arange(first, first + count))
        low, high = int(places.min()), int(places.max()) + 1
        if high - low <= 2 * count:
            return self._read(low, high - low, nbytes, scratch)[places - low]
        return np.concatenate([self._read(int(place), 1, nbytes) for place in places])

    def _read(self, first: int, count: int, nbytes: int, scratch: Scratch | None = None) -> NDArray[np.uint8]:
        raw = memory(count * nbytes, scratch)
        self.stored.file.read_into(raw.data, self.stored.tensor.start + first * nbytes)
        return raw.reshape(count, nbytes)
