"""Where the weights of an export lie: codes in a format, kept weights in pieces, as sources of whole layers."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import Format, Quantized
from kernels.backend import Backend
from kernels.machines import choose
from studio.core.containers.dtypes import BITS, WEIGHT_DTYPES
from studio.core.containers.safetensors import Header
from studio.core.exporting.readback import StoredMatrix, read_quantized, stored_scale, usable_multiplier
from studio.core.layouts import Layout
from studio.core.layouts.placement import stored_number
from studio.core.model import Matrix, Stored, Unpacked
from studio.core.running.scratch import Scratch
from studio.core.sources.gathering import gathered
from studio.core.sources.plain import read_rows


@dataclass(frozen=True, slots=True)
class Packed:
    """Matrices that an export holds in a format, see `Source`; rows are decoded to float32.

    multipliers: the tensor scales that its manifest states, input_scales: those of inputs, by matrix.
    """

    stored: Stored
    shape: tuple[int, ...]
    kept_dtype: str
    format: Format
    nbytes: int
    matrices: Mapping[str, StoredMatrix]
    header: Header
    layout: Layout
    own: tuple[Matrix, ...]
    multipliers: Mapping[str, float]
    input_scales: Mapping[str, float] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        """See `Source`."""
        return "F32"

    @property
    def bits(self) -> int:
        """See `Source`."""
        return self.format.bits

    @property
    def meaning(self) -> str:
        """See `Source`."""
        return self.format.name

    @property
    def scale_dtype(self) -> str:
        """See `Source`."""
        parts = next(iter(self.matrices.values())).parts if self.format.affine else ()
        return next((part.dtype for part in parts if part.content == "scales"), "")

    def rows(self, matrix: Matrix, start: int, stop: int, scratch: Scratch | None = None) -> NDArray[np.float32]:
        """See `Source.rows`."""
        if matrix.name in self.matrices:
            decoded: NDArray[np.float32] = _decoder().decode(self.packed(matrix, start, stop))
            return decoded
        return gathered(self.rows, self.own, np.dtype(np.float32), matrix, start, stop)

    def packed(self, matrix: Matrix, start: int, stop: int) -> Quantized:
        """See `Source.packed`."""
        own = self.matrices[matrix.name]
        return read_quantized(self.stored.file, self.header, self.layout, own, start, stop)

    def multiplier(self, matrix: Matrix) -> float:
        """See `Source.multiplier`: what the manifest says, as long as that is what is stored."""
        numbers = (part for part in self.matrices[matrix.name].parts if part.content in ("tensor_scale", "multiplier"))
        part = next(numbers, None)
        if part is None or not self.format.tensor_scale:
            return 1.0
        stored = stored_scale(self.stored.file, self.header, part)
        said = self.multipliers.get(matrix.name, 0.0)
        if said > 0 and stored_number(self.layout, part.content, said) == stored:
            return said
        return float(usable_multiplier(self.layout, stored, self.stored.file, part))


@dataclass(frozen=True, slots=True)
class Pieces(Unpacked):
    """A kept weight of `shape` that lies in pieces, by name, see `Source`."""

    shape: tuple[int, ...]
    pieces: Mapping[str, Stored]

    @property
    def stored(self) -> Stored:
        """See `Source`: the first piece, of a dtype that says that it is not all."""
        first = next(iter(self.pieces.values()))
        tensor = replace(first.tensor, dtype=f"{self.dtype} in {len(self.pieces):,} pieces")
        return replace(first, tensor=tensor)

    @property
    def dtype(self) -> str:
        """See `Source`."""
        return next(iter(self.pieces.values())).tensor.dtype

    @property
    def kept_dtype(self) -> str:
        """See `Source`."""
        return self.dtype

    @property
    def bits(self) -> int:
        """See `Source`."""
        return BITS[self.dtype]

    @property
    def nbytes(self) -> int:
        """See `Source`."""
        return sum(piece.tensor.nbytes for piece in self.pieces.values())

    @property
    def meaning(self) -> str:
        """See `Source`."""
        return self.stored.tensor.dtype


@dataclass(frozen=True, slots=True)
class Cut(Pieces):
    """Matrices that lie apart, each in rows of its own, which are the pieces by the names of these."""

    own: tuple[Matrix, ...]

    def rows(self, matrix: Matrix, start: int, stop: int, scratch: Scratch | None = None) -> NDArray[Any]:
        """See `Source.rows`."""
        if piece := self.pieces.get(matrix.name):
            return read_rows(piece, Matrix("", matrix.rows, matrix.columns), start, stop, scratch)
        return gathered(self.rows, self.own, WEIGHT_DTYPES[self.dtype], matrix, start, stop)


@dataclass(frozen=True, slots=True)
class Alternating(Pieces):
    """Rows whose values alternate between those of the pieces "even" and "odd"."""

    def rows(self, matrix: Matrix, start: int, stop: int, scratch: Scratch | None = None) -> NDArray[Any]:
        """See `Source.rows`."""
        half = Matrix("", matrix.rows, matrix.columns // 2)
        found = np.empty((stop - start, matrix.columns), WEIGHT_DTYPES[self.dtype])
        for place, piece in enumerate((self.pieces["even"], self.pieces["odd"])):
            found[:, place::2] = read_rows(piece, half, start, stop, scratch)
        return found


@cache
def _decoder() -> Backend:
    return choose("cpu")
