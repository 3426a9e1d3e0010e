"""Sections: how the table divides the layers, by block and expert or by kind; numbered in the order of the table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from studio import core

OUTSIDE = "outside blocks"


@dataclass(frozen=True, eq=False)
class Sections:
    """Sections, each followed by those inside it; a section inside another holds the layers of one expert.

    names: as heads show them. of: the innermost section of each layer. outer: the section around each section, itself
    where there is none. last: the number of the last section inside it. order: the layers, section by section.
    titles: the name of each layer within its section.
    """

    names: Sequence[str]
    of: NDArray[np.int64]
    outer: NDArray[np.int64]
    last: NDArray[np.int64]
    order: NDArray[np.int64]
    titles: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def inner(self) -> NDArray[np.bool_]:
        """Which sections lie inside another."""
        found: NDArray[np.bool_] = self.outer != np.arange(len(self))
        return found


def by_block(layers: Sequence[core.Layer]) -> Sections:
    """Outside the blocks first, then block after block, in each its own layers before its experts by number."""
    prefixes = [_prefixes(layer) for layer in layers]
    places: dict[str, int] = {"": 0}
    for block, _ in prefixes:
        places.setdefault(block.rpartition(".")[0], len(places))
    keys: dict[tuple[str, str], tuple[int, int, str, int]] = {}
    for layer, (block, expert) in zip(layers, prefixes, strict=True):
        place, number = places[block.rpartition(".")[0]], layer.block or 0
        keys.setdefault((block, ""), (place, number, "", -1))
        if expert:
            keys.setdefault((block, expert), (place, number, expert.rpartition(".")[0], layer.expert or 0))
    ordered = sorted(keys, key=keys.__getitem__)
    numbers = {key: number for number, key in enumerate(ordered)}
    of = np.array([numbers[prefix] for prefix in prefixes], np.int64)
    outer = np.array([numbers[block, ""] for block, _ in ordered], np.int64)
    names = [_below(expert, block) if expert else block or OUTSIDE for block, expert in ordered]
    titles = [_below(layer.name, expert or block) for layer, (block, expert) in zip(layers, prefixes, strict=True)]
    return _sections(names, of, outer, titles)


def by_kind(layers: Sequence[core.Layer], kinds: Sequence[str]) -> Sections:
    """All layers of one kind together, kinds in the order in which they appear first."""
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    of = np.array([numbers[kind] for kind in kinds], np.int64)
    return _sections(list(numbers), of, np.arange(len(numbers)), [layer.name for layer in layers])


def _sections(names: list[str], of: NDArray[np.int64], outer: NDArray[np.int64], titles: list[str]) -> Sections:
    last = np.arange(len(names))
    np.maximum.at(last, outer, np.arange(len(names)))
    return Sections(names, of, outer, last, np.argsort(of, kind="stable"), titles)


def _prefixes(layer: core.Layer) -> tuple[str, str]:
    """The name up to the number of its block, and up to that of its expert; empty where there is none."""
    if layer.block is None:
        return "", ""
    parts, number = layer.name.split("."), str(layer.block)
    if number not in parts:
        return "", ""
    at = parts.index(number) + 1
    block = ".".join(parts[:at])
    if layer.expert is None or str(layer.expert) not in parts[at:-1]:
        return block, ""
    end = len(parts) - parts[::-1].index(str(layer.expert))
    return block, ".".join(parts[:end])


def _below(name: str, prefix: str) -> str:
    return name.removeprefix(prefix + ".")
