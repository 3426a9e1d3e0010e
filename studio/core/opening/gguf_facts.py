"""Facts: what a config of a GGUF model follows from, and numbers of the metadata that are what they must be."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.core.architectures.gguf import GgufArchitecture
from studio.core.counting import counted
from studio.core.errors import CheckpointError
from studio.core.names import printable

_MOST_BLOCKS = 10_000


@dataclass(frozen=True, slots=True)
class Facts:
    """What a config follows from.

    The row of the architecture, the pairs, shapes by llama.cpp's names, what rope_freqs.weight holds, whether the
    embedding is stored in F16; by what frequencies are divided in long and in short texts, where that differs.
    """

    row: GgufArchitecture
    pairs: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    rope_factors: NDArray[np.float32] | None
    half: bool
    file: Path
    lengths: tuple[NDArray[np.float32], ...] = ()

    def get(self, key: str) -> Any:
        """The value of a key of the architecture, None where there is none."""
        return self.pairs.get(f"{self.row.name}.{key}")

    def has(self, name: str) -> bool:
        """True where the first block, or the one behind it, has a tensor."""
        return any(f"blk.{block}.{name}" in self.shapes for block in (0, 1))

    def blocks(self, name: str) -> list[bool]:
        """Of each block whether it has a tensor, those that predict further tokens left out."""
        count = self.whole("block_count") - self.behind
        if not 0 < count <= _MOST_BLOCKS:
            raise self.refuse(f"a model of {counted(count, 'block')}")
        return [f"blk.{block}.{name}" in self.shapes for block in range(count)]

    @property
    def behind(self) -> int:
        """Number of blocks behind the others that predict further tokens."""
        return self.count("nextn_predict_layers") if self.row.behind else 0

    def refuse(self, what: str) -> CheckpointError:
        """An error of this file."""
        return CheckpointError(what, file=self.file)

    def number(self, key: str) -> int | float:
        """A finite number above 0; raises CheckpointError for anything else."""
        value = self.get(key)
        if isinstance(value, list) and value and all(item == value[0] for item in value):
            value = value[0]
        if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
            said = "is missing" if value is None else f"is {printable(value, 60)}, not a number above 0"
            raise self.refuse(f"{self.row.name}.{key} {said}")
        return shortest(value)

    def whole(self, key: str) -> int:
        """A whole number above 0; raises CheckpointError for anything else."""
        value = self.number(key)
        if type(value) is not int:
            raise self.refuse(f"{self.row.name}.{key} is {printable(value, 60)}, not a whole number above 0")
        return value

    def count(self, key: str) -> int:
        """A whole number, 0 where it is missing; raises CheckpointError for anything else."""
        value = self.get(key) or 0
        if type(value) is not int or value < 0:
            raise self.refuse(f"{self.row.name}.{key} is {printable(value, 60)}, not a whole number from 0 on")
        return value


def shortest(value: float) -> int | float:
    """A float32 as the number that people wrote."""
    return value if isinstance(value, int) else float(str(np.float32(value)))
