"""Running a model on text: which runtime, how much text at once, and what that takes in memory."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from studio.core.architectures import block_index, text_section
from studio.core.counting import counted
from studio.core.errors import CheckpointError, MemoryLimitError
from studio.core.model import Model
from studio.lm.inputs import Sink
from studio.lm.names import matrices
from studio.lm.runtimes import RuntimeName, choose_runtime, installed, is_mixture, knows

BATCH_TOKENS = 2048
ROUND_TOKENS = 16384
_BASE = {"mlx-lm": 500 << 20, "transformers": 700 << 20}
"""Bytes of an interpreter with the runtime: 260 MB and 430 MB were measured before any model."""


class Running(Protocol):
    """A model in a runtime."""

    runtime: str
    block_count: int

    def steps(self, batches: Sequence[NDArray[np.int32]], sink: Sink, tick: Callable[[], None]) -> Iterator[int]:
        """Run all batches [windows, length]; yields the number of each block when all have passed it.

        The last step is what comes after the blocks. `tick` is called when a batch has passed a block.
        """
        ...


def start(model: Model, runtime: RuntimeName) -> Running:
    """The model in a runtime. Raises CheckpointError when that does not load it."""
    if runtime == "mlx-lm":
        from studio.lm.mlx_running import MlxRunning

        return MlxRunning(model)
    from studio.lm.torch_running import TorchRunning

    return TorchRunning(model)


def start_fitting(model: Model, length: int, limit: int) -> tuple[Running, "Portions"]:
    """The model in the runtime that loads it, and how much text goes through at once; see `portions`.

    Some forms of a checkpoint only one of the runtimes takes: what mlx-lm refuses is tried in transformers. Raises
    BackendError, CheckpointError or MemoryLimitError.
    """
    first = choose_runtime(model.config, model.folder, model.nbytes)
    given = portions(model, first, length, limit)
    try:
        return start(model, first), given
    except CheckpointError:
        if first == "transformers" or "transformers" not in installed() or not knows("transformers", model.config):
            raise
    return start(model, "transformers"), portions(model, "transformers", length, limit)


@dataclass(frozen=True, slots=True)
class Portions:
    """How much text goes through the model at once: windows in a batch, and in a round, which reads all weights."""

    batch: int
    round: int

    def batches(self, tokens: NDArray[np.int32]) -> list[NDArray[np.int32]]:
        """The windows of a round in batches."""
        return [tokens[start : start + self.batch] for start in range(0, len(tokens), self.batch)]

    def rounds(self, tokens: NDArray[np.int32]) -> list[NDArray[np.int32]]:
        """All windows in rounds."""
        return [tokens[start : start + self.round] for start in range(0, len(tokens), self.round)]


def portions(model: Model, runtime: RuntimeName, length: int, limit: int) -> Portions:
    """The most text at once that stays within `limit` bytes of memory (0: none given); raises MemoryLimitError."""
    batch = max(BATCH_TOKENS // length, 1)
    found = Portions(batch, max(ROUND_TOKENS // length, batch))
    while limit and (need := memory(model, runtime, found, length)) > limit:
        if found.round > found.batch:
            found = Portions(found.batch, max(found.round // 2, found.batch))
        elif found.batch > 1:
            found = Portions(found.batch // 2, found.batch // 2)
        else:
            what = f"running the model needs {counted(need, 'byte')} of memory for its largest block, {limit:,} are allowed"
            raise MemoryLimitError(what, hint="allow more, or give a smaller --length")
    return found


def memory(model: Model, runtime: RuntimeName, given: Portions, length: int) -> int:
    """Bytes that running the model takes at most: the largest block in float32 and as stored, and what goes through."""
    blocks: dict[Any, int] = defaultdict(int)
    for layer in model.layers:
        blocks[layer.block] += layer.count * 4 + layer.nbytes
    embedding = max((layer.nbytes for layer in model.layers if layer.role == "embedding"), default=0)
    largest = max((nbytes for block, nbytes in blocks.items() if block is not None), default=sum(blocks.values()))
    hidden = max((m.columns for _, m in matrices(model) if m.expert is None), default=0)
    flowing = given.batch * length * _width(model) * 4
    waiting = given.round * length * hidden * 4
    whole = model.nbytes if runtime == "transformers" and is_mixture(model.config) else 0
    return _BASE[runtime] + largest + embedding + flowing + waiting + whole


def _width(model: Model) -> int:
    """Numbers per token in the block at hand: what goes in and out of its matrices; of experts only those chosen."""
    dense: dict[Any, int] = defaultdict(int)
    experts: dict[Any, int] = defaultdict(int)
    for _, matrix in matrices(model):
        block = block_index(matrix.name)
        if matrix.expert is None:
            dense[block] += matrix.rows + matrix.columns
        elif matrix.expert == 0:
            experts[block] += matrix.rows + matrix.columns
    chosen = text_section(model.config).get("num_experts_per_tok")
    times = chosen if isinstance(chosen, int) and chosen > 0 else 1
    inside = [block for block in (*dense, *experts) if block is not None]
    return 2 * max((dense[block] + times * experts[block] for block in inside), default=0)
