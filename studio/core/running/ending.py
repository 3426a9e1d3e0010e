"""Ending: that something is over; wakes who waits for that, and breaks off what is under way."""

from collections.abc import Callable
from threading import Event, Lock


class Ending:
    """Set once, from any thread."""

    def __init__(self) -> None:
        self._event, self._lock = Event(), Lock()
        self._calls: list[Callable[[], object]] = []

    def is_set(self) -> bool:
        """True once it is over."""
        return self._event.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is over, or for so many seconds; True when it is over."""
        return self._event.wait(timeout)

    def call(self, function: Callable[[], object]) -> None:
        """Call a function when it is over, at once where it is."""
        with self._lock:
            if not self._event.is_set():
                self._calls.append(function)
                return
        function()

    def set(self) -> None:
        """It is over."""
        with self._lock:
            self._event.set()
            calls, self._calls = self._calls, []
        for function in calls:
            function()
