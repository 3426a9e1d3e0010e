"""Patience: a failed request is made again, each time after twice the pause, so often and no more."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from studio.core.errors import UnreadableError
from studio.core.running.ending import Ending
from studio.core.stores.store import TryAgainError

T = TypeVar("T")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a request is made at most, and the pauses between, in seconds: `first`, doubled up to `longest`.

    A server that asks for a longer pause gets it, up to `longest`. `sleep` waits. `over`: from when on nobody wants an
    answer any more.
    """

    attempts: int = 7
    first: float = 0.5
    longest: float = 30.0
    sleep: Callable[[float], object] = time.sleep
    over: Ending | None = None

    def persist(self, url: str, attempt: Callable[[], T], fault: str = "can not be read") -> T:
        """What `attempt` gives; raises UnreadableError with its last reason when none succeeds."""
        waited = 0.0
        for number in range(1, self.attempts + 1):
            self._check_wanted(url)
            try:
                return attempt()
            except TryAgainError as error:
                self._check_wanted(url)
                if number == self.attempts:
                    what = f"{fault}: {error}; tried {number} times in {waited:.3g} s of waiting"
                    raise UnreadableError(what, file=url, hint="try again when the store answers") from None
                pause = min(max(self.first * 2 ** (number - 1), error.wait), self.longest)
                waited += pause
                _LOG.info("%s: %s; trying again in %.3g s", url, error, pause)
                self._pause(pause)
        raise ValueError("[Patience] no attempt is allowed")

    def _check_wanted(self, url: str) -> None:
        if self.over and self.over.is_set():
            raise UnreadableError("no longer read: it was closed", file=url)

    def _pause(self, seconds: float) -> None:
        """Wait, but no longer than anybody wants an answer."""
        if self.over and self.sleep is time.sleep:
            self.over.wait(seconds)
        else:
            self.sleep(seconds)
