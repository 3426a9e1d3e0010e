"""Inputs of layers on their way from a runtime to what is gathered of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from studio.lm.names import Place

Rows = NDArray[np.float32]
Sink = Callable[[tuple[str, ...], Rows], None]
"""Takes the names of the matrices that share an input, and rows of it [tokens, K] float32; for an expert maybe none."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One call of a module: its path, what identifies its input among those of a block, and the input.

    experts: for a module of many experts the expert of each row, int [tokens].
    """

    path: str
    key: int
    rows: Rows
    experts: NDArray[np.int64] | None = None
    count: int = 0


def deliver(calls: Iterable[Seen], places: Mapping[Place, Sequence[str]], sink: Sink) -> None:
    """Give each distinct input to the sink, with all matrices that it goes into; what is in no checkpoint is left."""
    for calls_of_one in _grouped(calls):
        first = calls_of_one[0]
        for expert, rows in _split(first):
            names = [name for call in calls_of_one for name in places.get((call.path, expert), ())]
            if names:
                sink(tuple(dict.fromkeys(names)), rows)


def _grouped(calls: Iterable[Seen]) -> list[list[Seen]]:
    groups: dict[tuple[int, bool], list[Seen]] = {}
    for call in calls:
        groups.setdefault((call.key, call.experts is not None), []).append(call)
    return list(groups.values())


def _split(call: Seen) -> Iterator[tuple[int | None, Rows]]:
    if call.experts is None:
        yield None, call.rows
        return
    order = np.argsort(call.experts, kind="stable")
    edges = np.searchsorted(call.experts[order], np.arange(call.count + 1))
    for expert in range(call.count):
        yield expert, call.rows[order[edges[expert] : edges[expert + 1]]]
