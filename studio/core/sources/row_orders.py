"""Row orders: where llama.cpp has the rows of a weight, which it puts in another order than transformers."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]


class RowOrder(Protocol):
    """An order of rows, or of columns."""

    @property
    def meaning(self) -> str:
        """For people."""
        ...

    def places(self, rows: Places) -> Places:
        """Where the rows of transformers lie in the file."""
        ...


@dataclass(frozen=True, slots=True)
class InPairs:
    """Heads of `height` rows: each row of a head's first half beside that of its second, as llama.cpp rotates them."""

    height: int
    meaning: ClassVar[str] = "rows in pairs"

    def places(self, rows: Places) -> Places:
        """See `RowOrder.places`."""
        head, row = np.divmod(rows, self.height)
        half, pair = np.divmod(row, self.height // 2)
        places: Places = head * self.height + 2 * pair + half
        return places


@dataclass(frozen=True, slots=True)
class ByPart:
    """`groups` of parts of `widths` rows each, of which llama.cpp stores the first of all groups, then the second."""

    groups: int
    widths: tuple[int, ...]
    meaning: ClassVar[str] = "queries first"

    def places(self, rows: Places) -> Places:
        """See `RowOrder.places`."""
        ends = np.cumsum(self.widths)
        group, row = np.divmod(rows, ends[-1])
        part = np.searchsorted(ends, row, side="right")
        begins, widths = (ends - self.widths)[part], np.array(self.widths)[part]
        places: Places = self.groups * begins + group * widths + row - begins
        return places


@dataclass(frozen=True, slots=True)
class InTurns:
    """Behind `first` rows in their order, `groups` of `heads` of `width` rows: the first head of all groups first."""

    first: int
    groups: int
    heads: int
    width: int
    meaning: ClassVar[str] = "heads in turns"

    def places(self, rows: Places) -> Places:
        """See `RowOrder.places`."""
        group, rest = np.divmod(rows - self.first, self.heads * self.width)
        head, row = np.divmod(rest, self.width)
        turned = self.first + (head * self.groups + group) * self.width + row
        places: Places = np.where(rows < self.first, rows, turned)
        return places
