"""Writing back: the system is told to bring to the disk what was written, while there is more to come."""

import ctypes
import sys
from collections.abc import Callable
from functools import cache

_START = 2  # SYNC_FILE_RANGE_WRITE of Linux: begin, do not wait


@cache
def _sync_file_range() -> Callable[..., int] | None:
    if sys.platform != "linux":
        return None
    found: Callable[..., int] | None = getattr(ctypes.CDLL(None), "sync_file_range", None)
    return found


def start_writing_back(descriptor: int) -> None:
    """Have the system begin to write the dirty pages of a file, where it can be told; says nothing of their fate."""
    if (call := _sync_file_range()) is not None:
        call(ctypes.c_int(descriptor), ctypes.c_int64(0), ctypes.c_int64(0), ctypes.c_uint(_START))
