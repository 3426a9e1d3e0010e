"""Pace: how long an answer may take, so that one that trickles does not keep anybody for ever."""

import time

from studio.core.stores.store import TryAgainError

HEAD = 60.0
"""Seconds in which the headers of an answer are there."""

SLOWEST, SLOW_AFTER = 1024, 60.0
"""Bytes a second below which an answer is broken off, and for how many seconds it may be slower."""


class Pace:
    """Of what comes from now on."""

    def __init__(self) -> None:
        self._began, self._count = time.monotonic(), 0

    def take(self, nbytes: int) -> None:
        """So many bytes came. Raises TryAgainError when it comes too slowly to ever end."""
        self._count += nbytes
        spent = time.monotonic() - self._began
        if spent > SLOW_AFTER and self._count < SLOWEST * spent:
            raise TryAgainError(f"the answer came at less than {SLOWEST:,} bytes/s")

    def wait_for_head(self) -> None:
        """More of the headers is waited for. Raises TryAgainError when they should all be there."""
        if time.monotonic() - self._began > HEAD:
            raise TryAgainError(f"the headers of the answer were not there after {HEAD:g} s")


def patience(nbytes: int) -> float:
    """Seconds in which a request that sends so many bytes is answered."""
    return HEAD + nbytes / SLOWEST
