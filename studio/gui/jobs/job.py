"""Job: one run: its kind says what it is called and what to do when it fails, and it counts what it found so far."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from studio import core
from studio.gui.jobs.estimate import Estimate, duration
from studio.gui.jobs.turns import Ending, Steps
from studio.gui.layers.document import Order
from studio.gui.shell.specs import keys_of


@dataclass(frozen=True, slots=True)
class Kind:
    """What is the same for all jobs of a kind.

    past: what it did, once it is over. kept: what is left when it is stopped. remedy: what to do when it failed.
    warned: title of its warnings. amount: how much it worked through, in words, and `worked` how. pausable: whether it
    can wait. open_ended: what is announced is the most that there can be.
    """

    key: str
    past: str
    kept: str
    remedy: str
    warned: str
    amount: Callable[[float], str] = core.size_text
    worked: str = "read"
    pausable: bool = True
    open_ended: bool = False


def _tokens(count: float) -> str:
    return core.counted(round(count), "token")


MEASURE = Kind(
    "measure",
    "Quantized",
    "What is done is kept",
    f"What is done is kept: mend the cause and quantize again ({keys_of('quantize')}).",
    "Look at this layer",
)
EXPORT = Kind(
    "export",
    "Exported",
    "Finished shards are kept: export again to go on",
    f"The target is as it was. Mend the cause and export again ({keys_of('export')}): finished shards are taken over.",
    "Look at this folder",
)
CONVERT = Kind(
    "convert",
    "Converted",
    "Finished shards are kept: convert again to go on",
    "The target is as it was. Mend the cause and convert again: finished shards are taken over.",
    "Look at this folder",
)
VERIFY = Kind(
    "verify",
    "Verified",
    "Nothing was changed",
    f"Do not use this export: write it again ({keys_of('export')}).",
    "Look at this folder",
)


PUBLISH = Kind(
    "publish",
    "Published",
    "What was sent stays at the hub: publish again to go on",
    "The repository is as it was. Mend the cause and publish again: what was sent is not sent again.",
    "Look at this",
    worked="hashed and sent",
    pausable=False,
)
EXAMINE = Kind(
    "examine",
    "Examined",
    "What was found so far is shown",
    "Mend the cause and examine it again.",
    "Look at this folder",
)
REPAIR = Kind(
    "repair",
    "Repaired",
    "Nothing was written",
    "Nothing was written, and the folder is as it was. Mend the cause and repair it again.",
    "Look at this folder",
    worked="worked through",
)

CALIBRATE = Kind(
    "calibrate",
    "Statistics are gathered",
    "What is gathered is kept: calibrate into the same file to go on",
    "Mend the cause and calibrate again: what is gathered is kept.",
    "Look at this text",
    _tokens,
    pausable=False,
)


PRICE = Kind(
    "price",
    "All formats are priced",
    "What was measured is kept: price again to go on",
    "Mend the cause and price again: what was measured is kept.",
    "Look at this layer",
)


PROBE = Kind(
    "price",
    "What damage means in tokens is known",
    "What was run is kept: predict again to go on",
    "Mend the cause and predict again: what was run is kept.",
    "Look at this text",
    _tokens,
    worked="run",
    pausable=False,
)


EVALUATE = Kind(
    "evaluate",
    "Evaluated",
    "Windows that were run are kept: evaluate the same again to go on",
    "Mend the cause and evaluate again: windows that were run are kept.",
    "Look at this evaluation",
    _tokens,
    pausable=False,
)
GENERATE = Kind(
    "generate",
    "Answered",
    "What was written stays",
    "Mend the cause and try again.",
    "Look at this prompt",
    _tokens,
    worked="written",
    pausable=False,
    open_ended=True,
)


@dataclass(eq=False)
class Job:
    """A run that waits, goes on or is over. `hear` is told each event; `over` is called once, with how it ended."""

    kind: Kind
    title: str
    steps: Callable[[], Steps]
    order: Order | None = None
    over: Callable[[Ending, "Job"], None] = lambda _ending, _job: None
    hear: Callable[[object], None] = lambda _event: None
    done: int = 0
    failed: int = 0
    outcome: core.Outcome | None = None
    calibrated: core.Calibrated | None = None
    error: object = None
    estimate: Estimate = field(default_factory=Estimate)
    _taken_over: bool = False

    def begin(self, now: float) -> None:
        """Its turn has come."""
        self.estimate = Estimate(started=now)

    @property
    def seconds(self) -> float:
        """How long it has worked; pauses do not count."""
        return self.estimate.seconds(time.monotonic())

    def take(self, event: object) -> None:
        """Count what it found."""
        self.hear(event)
        if isinstance(event, core.Started):
            self.estimate.expect(event.total, time.monotonic())
        elif isinstance(event, core.Resumed):
            self._taken_over = True
        elif isinstance(event, core.LayerDone):
            self.done += 1
        elif isinstance(event, core.LayerFailed):
            self.failed += 1
        elif isinstance(event, core.Finished):
            self.outcome = event.outcome
        elif isinstance(event, core.Calibrated):
            self.calibrated = event

    def follow(self, done: int, now: float) -> None:
        """It worked through `done` bytes; those of an earlier run say nothing of its rate."""
        (self.estimate.skip if self._taken_over else self.estimate.update)(done, now)
        self._taken_over = False

    def summary(self) -> str:
        """What it did, in a few words."""
        what = f"{self.kind.past} {core.counted(self.done, 'layer')}" if self.done else self.kind.past
        return f"{what}, {self.failed:,} failed" if self.failed else what

    def notice(self, ending: Ending) -> tuple[str, str]:
        """What it did and how it ended, in two lines for someone who looks elsewhere."""
        if ending == "finished":
            return self.summary(), self.figures()
        if ending == "stopped":
            return f"{self.title} stopped after {duration(self.seconds)}", self.kind.kept
        return f"{self.title} failed after {duration(self.seconds)}", self.kind.remedy

    def figures(self) -> str:
        """Bytes or tokens, time and rate."""
        seconds, amount, worked = self.seconds, self.kind.amount, self.kind.worked
        total = self.estimate.done if self.kind.open_ended else self.estimate.total
        if not total:
            return f"Nothing was left to be {worked}"
        if self.kind.open_ended:  # its time is that of loading, too
            return f"{amount(total)} {worked} in {duration(seconds)}"
        if seconds < 1:
            return f"{amount(total)} {worked} in {seconds:.1f} s"
        return f"{amount(total)} {worked} in {duration(seconds)} at {amount(total / seconds)}/s"
