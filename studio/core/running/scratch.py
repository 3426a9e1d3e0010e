"""Scratch: memory that a thread uses again and again."""

import threading

import numpy as np
from numpy.typing import NDArray


class Scratch(threading.local):
    """Two buffers per thread, used again for every slab: memory that is new costs more than the read itself."""

    def __init__(self) -> None:
        self._buffers = [np.empty(0, np.uint8), np.empty(0, np.uint8)]

    def take(self, nbytes: int, buffer: int = 0) -> NDArray[np.uint8]:
        """`nbytes` of this thread's buffer 0 or 1, valid until that buffer is taken again."""
        if self._buffers[buffer].size < nbytes:
            self._buffers[buffer] = np.empty(nbytes, np.uint8)
        return self._buffers[buffer][:nbytes]


def memory(nbytes: int, scratch: Scratch | None, buffer: int = 0) -> NDArray[np.uint8]:
    """`nbytes` of `scratch`, or new ones without."""
    return scratch.take(nbytes, buffer) if scratch else np.empty(nbytes, np.uint8)
