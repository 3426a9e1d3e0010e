"""Joined: a weight whose matrices lie apart, each in a source of its own, as those of a stack that others split."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from kernels import Format, Quantized
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.counting import counted
from studio.core.model import Matrix, Source, Stored
from studio.core.running.scratch import Scratch
from studio.core.sources.gathering import gathered

Piece = tuple[Source, Matrix]
"""A source, and the matrix in it."""


@dataclass(frozen=True, eq=False)
class Joined:
    """Weights of `shape` whose matrices are `own`, see `Source`.

    pieces: where each lies, by its name. is_cut: matrices are cut into several of them, so that none is handed on.
    """

    shape: tuple[int, ...]
    own: tuple[Matrix, ...]
    pieces: Mapping[str, Piece]
    kept_dtype: str
    is_cut: bool = False

    @cached_property
    def _sources(self) -> tuple[Source, ...]:
        """Each once, in order."""
        return tuple({id(source): source for source, _ in self.pieces.values()}.values())

    @property
    def stored(self) -> Stored:
        """See `Source`: the first piece, of a dtype that says that it is not all, or not as it was."""
        first = self._sources[0].stored
        count = len(self._sources)
        told = f"{first.tensor.dtype} in {counted(count, 'piece')}"
        return replace(first, tensor=replace(first.tensor, dtype=told))

    @property
    def dtype(self) -> str:
        """See `Source`."""
        dtypes = {source.dtype for source in self._sources}
        return dtypes.pop() if len(dtypes) == 1 else "F32"

    @property
    def bits(self) -> int:
        """See `Source`."""
        return self._sources[0].bits

    @property
    def nbytes(self) -> int:
        """See `Source`."""
        return sum(source.nbytes for source in self._sources)

    @property
    def meaning(self) -> str:
        """See `Source`."""
        return " and ".join(dict.fromkeys(source.meaning for source in self._sources))

    @cached_property
    def format(self) -> Format | None:
        """See `Source`: that of all pieces."""
        if self.is_cut:
            return None
        formats = {source.format for source in self._sources}
        return formats.pop() if len(formats) == 1 else None

    @property
    def scale_dtype(self) -> str:
        """See `Source.scale_dtype`."""
        return self._sources[0].scale_dtype

    def rows(self, matrix: Matrix, start: int, stop: int, scratch: Scratch | None = None) -> NDArray[Any]:
        """See `Source.rows`."""
        if piece := self.pieces.get(matrix.name):
            source, its = piece
            return source.rows(its, start, stop, scratch).astype(WEIGHT_DTYPES[self.dtype], copy=False)
        return gathered(self.rows, self.own, WEIGHT_DTYPES[self.dtype], matrix, start, stop)

    def packed(self, matrix: Matrix, start: int, stop: int) -> Quantized:
        """See `Source.packed`."""
        source, its = self.pieces[matrix.name]
        return source.packed(its, start, stop)

    def multiplier(self, matrix: Matrix) -> float:
        """See `Source.multiplier`."""
        if self.is_cut:
            return 1.0
        source, its = self.pieces[matrix.name]
        return source.multiplier(its)
