"""Sizes: what choices take in a layout, a folder or one file, known to the byte before anything is computed."""

from collections.abc import Sequence

from studio.core.exporting.gguf import gguf_nbytes, gguf_sized
from studio.core.exporting.shards import plan_shards, sized
from studio.core.layouts import FOLDERS, GGUF, Target
from studio.core.model import Model
from studio.core.planning.plan import Choice


def sized_in(model: Model, choices: Sequence[Choice], target: Target) -> tuple[Choice, ...]:
    """The choices with the exact bytes that `target`, which must be able to store them, takes for each."""
    if target.name == GGUF.name:
        return gguf_sized(model, choices)
    return sized(model, choices, FOLDERS[target.name])


def files_nbytes(model: Model, choices: Sequence[Choice], target: Target) -> int:
    """The exact bytes of the files of weights."""
    if target.name == GGUF.name:
        return gguf_nbytes(model, choices)
    return sum(shard.nbytes for shard in plan_shards(model, choices, FOLDERS[target.name]))
