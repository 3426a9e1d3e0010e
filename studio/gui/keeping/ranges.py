"""Numbers of layers as text: "0-46999,47001" says in twenty bytes what a list says in three hundred thousand."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from studio import core


def ranges(numbers: Iterable[int] | NDArray[np.int64]) -> str:
    """The text for numbers, in their order."""
    found = np.unique(numbers if isinstance(numbers, np.ndarray) else np.fromiter(numbers, np.int64))
    edges = np.flatnonzero(np.diff(found) != 1)
    firsts, lasts = np.append(found[:1], found[edges + 1]), np.append(found[edges], found[-1:])
    pairs = zip(firsts.tolist(), lasts.tolist(), strict=True)
    return ",".join(f"{first}-{last}" if first != last else str(first) for first, last in pairs)


def numbers_of(text: str, count: int) -> NDArray[np.int64]:
    """The numbers that a text stands for; raises ValueError for what is no number below `count`."""
    found = [np.zeros(0, np.int64)]
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        start, stop = int(first), int(last or first)
        if not 0 <= start <= stop < count:
            raise ValueError(f"{part} is no range of {core.counted(count, 'layer')}")
        found.append(np.arange(start, stop + 1))
    return np.concatenate(found)
