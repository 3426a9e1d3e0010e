"""Estimate: how fast a run is and how long it still takes, from how far it was at which moment; no Qt."""

import time
from dataclasses import dataclass, field

STEADY_SECONDS = 10.0
SHOWN_AFTER_SECONDS = 2.0
SHORTEST_SPAN = 0.05
LARGEST_STEP = 0.2
LEAST_LEFT = 1.0


@dataclass
class Estimate:
    """Rate and time left of a run of `total` bytes: an average over the last seconds that never jumps.

    Nothing counts that is no work: pauses, the time before `expect`, what an earlier run had done.
    """

    total: int = 0
    started: float = field(default_factory=time.monotonic)
    done: int = 0
    rate: float = 0.0
    left: float | None = None
    waited: float = 0.0
    _first: float = 0.0
    _last: float = 0.0
    _counted: int = 0
    _held: float | None = None

    def __post_init__(self) -> None:
        self._first = self._last = self.started

    def expect(self, total: int, now: float) -> None:
        """The work begins, or another part of it: `total` bytes."""
        self.total, self._first, self._last = total, now, now
        self.done = self._counted = 0
        self.rate, self.left = 0.0, None

    def update(self, done: int, now: float) -> None:
        """`done` bytes are worked through at the moment `now`."""
        span = now - self._last
        self.done = max(self.done, done)
        if span < SHORTEST_SPAN or self._held is not None:
            return
        fresh = (self.done - self._counted) / span
        self._last, self._counted = now, self.done
        self.rate += span / max(min(now - self._first, STEADY_SECONDS), span) * (fresh - self.rate)
        self._estimate(now, span)

    def skip(self, done: int, now: float) -> None:
        """So far it is without work: an earlier run did it."""
        self.done = self._counted = max(self.done, done)
        self._last = now

    def _estimate(self, now: float, span: float) -> None:
        if self.rate <= 0 or now - self._first <= SHOWN_AFTER_SECONDS:
            return
        wanted = (self.total - self.done) / self.rate
        if self.left is None:
            self.left = wanted
            return
        expected = max(self.left - span, 0.0)
        room = LARGEST_STEP * max(expected, 1.0)
        self.left = min(max(wanted, expected - room), expected + room)

    def hold(self, now: float) -> None:
        """The run waits: time does not count."""
        if self._held is None:
            self._held = now

    def go_on(self, now: float) -> None:
        """The run goes on: time counts again."""
        if self._held is None:
            return
        self.waited += now - self._held
        idle = now - max(self._held, self._last)  # the work may have begun meanwhile
        self._first, self._last, self._held = self._first + idle, self._last + idle, None

    def seconds(self, now: float) -> float:
        """How long it has worked up to now."""
        return (now if self._held is None else self._held) - self.started - self.waited

    @property
    def share(self) -> float:
        """Part that is done, 0 to 1."""
        return min(self.done / self.total, 1.0) if self.total else 0.0

    @property
    def left_text(self) -> str:
        """The time left in words, "" while it is not known; at least a second, as long as something is left."""
        if self.left is None or self.done >= self.total:
            return ""
        return f"{duration(max(self.left, LEAST_LEFT))} left"


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    whole = int(seconds + 0.5)
    if whole >= 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"
    return f"{whole // 60}:{whole % 60:02}"
