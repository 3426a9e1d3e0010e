"""Sections: the layers of an error plot in order, and where the next block or kind begins."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from studio.gui.views.columns import Columns

ORDERS = ("block", "kind", "worst")


@dataclass(frozen=True, slots=True)
class Sections:
    """Layers in an order, cut where a block or a kind ends; one section without a name when the worst come first.

    order: indices of the layers as they stand. starts: places in it where a section begins. number: the section of each
    layer, by its index. labels: what the axis calls each section.
    """

    by: str
    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    number: NDArray[np.int64]
    labels: list[str]

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def places(self) -> NDArray[np.float64]:
        """Where each layer stands, by its index."""
        found = np.empty(len(self.order))
        found[self.order] = np.arange(len(self.order))
        return found

    def members(self, number: int) -> NDArray[np.int64]:
        """The layers of a section."""
        return np.flatnonzero(self.number == number)


def sections(columns: Columns, by: str) -> Sections:
    """The layers by block, by kind, or the worst first."""
    order, keys = _keys(columns, by)
    sorted_keys = keys[order]
    changes = np.flatnonzero(np.diff(sorted_keys)) + 1
    starts = np.concatenate([np.zeros(min(len(order), 1), np.int64), changes])
    number = np.empty(len(order), np.int64)
    number[order] = np.searchsorted(starts, np.arange(len(order)), side="right") - 1
    firsts = order[starts]
    return Sections(by, order, starts, number, _labels(columns, by, firsts))


def _keys(columns: Columns, by: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Order of the layers, and what layers of one section have in common."""
    if by == "worst":
        return np.argsort(-columns.error, kind="stable"), np.zeros(len(columns), np.int64)
    if by == "kind":
        return np.argsort(columns.kind_of, kind="stable"), columns.kind_of
    top = int(columns.block.max(initial=-1)) + 1
    keys = np.where(columns.block >= 0, columns.stack * top + columns.block, -1 - columns.kind_of)
    return np.lexsort((columns.block, columns.stack)), keys


def _labels(columns: Columns, by: str, firsts: NDArray[np.int64]) -> list[str]:
    """What the sections that begin with these layers are called."""
    if by == "worst":
        return [""] * len(firsts)
    blocks, kinds = columns.block[firsts].tolist(), columns.kind_of[firsts].tolist()
    names = columns.kinds
    return [
        str(block) if by == "block" and block >= 0 else names[kind] for block, kind in zip(blocks, kinds, strict=True)
    ]
