"""The engine: what computes and reads, and where its output goes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kernels import Quantized
from kernels.backend import Backend
from studio.core.model import Layer, Matrix
from studio.core.planning.plan import Choice
from studio.core.running.reading import SLAB_NBYTES, Slab
from studio.core.running.scratch import Scratch
from studio.core.running.solved import Solved
from studio.core.running.tasks import Tasks

KeptForm = Literal["bytes", "rows", "whole"]
"""How a kept layer is handed on: its bytes in pieces, the rows of its matrices, or all bytes at once."""


class Sink:
    """Where the pipeline's output goes; this one drops it, which is what measuring needs."""

    def agreed_scale(self, g: float) -> float:
        """The multiplier that readers of the output will compute for `g`."""
        return g

    def write_slab(self, slab: Slab, quantized: Quantized) -> None:
        """Take an encoded slab; called from worker threads."""

    def write_scale(self, choice: Choice, matrix: Matrix, g: float) -> None:
        """Take the multiplier of a matrix; called for every quantized matrix, 1.0 for formats without one."""

    def kept_form(self, layer: Layer) -> KeptForm:
        """In what form it wants a kept layer."""
        return "bytes"

    def write_kept(self, layer: Layer, offset: int, data: NDArray[np.uint8]) -> None:
        """Take bytes of a kept layer, from byte `offset` of its output on; called from worker threads."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A backend, threads to run it on, the size of a slab in bytes, and how many threads there are.

    `solved`: matrices that were quantized before the run, None where the run quantizes all.
    """

    backend: Backend
    pool: ThreadPoolExecutor
    slab_nbytes: int = SLAB_NBYTES
    scratch: Scratch = field(default_factory=Scratch)
    threads: int = 1
    solved: Solved | None = None

    def tasks(self) -> Tasks:
        """Tasks on its threads, so many under way that no thread waits for work."""
        return Tasks(self.pool, tasks_under_way(self.threads))


def tasks_under_way(threads: int) -> int:
    """How many tasks of a pass are under way, or wait to be gathered, at once."""
    return 2 * threads + 2


@contextmanager
def engine(backend: Backend, threads: int, slab_nbytes: int = SLAB_NBYTES) -> Iterator[Engine]:
    """An engine with `threads` workers, which are gone when the block is left, whatever happens."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="nvfp4-studio")
    try:
        yield Engine(backend, pool, slab_nbytes, threads=threads)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
