"""What a job tells while it runs: all that a front end ever sees of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from studio.core.findings.finding import Examination, Finding, Repair
from studio.core.insight.measured import Measured
from studio.core.outcome import Outcome
from studio.core.planning.conversion import Transcoding
from studio.core.planning.lifting import Lifting
from studio.core.quality.metrics import Tally
from studio.core.quality.results import Evaluated, Quality
from studio.core.results import LayerResult

Phase = Literal[
    "measure",
    "lift",
    "prove",
    "quantize",
    "verify",
    "calibrate",
    "evaluate",
    "generate",
    "feedback",
    "examine",
    "compare",
    "repair",
    "price",
    "publish",
]


@dataclass(frozen=True, slots=True)
class Started:
    """A phase begins. `total` is its work in bytes read, `layers` the number of layers that it will report."""

    phase: Phase
    total: int
    layers: int
    target: Path | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of the bytes that `Started.total` announced are worked through; `layer` is the one at hand."""

    phase: Phase
    done: int
    layer: str


@dataclass(frozen=True, slots=True)
class WorkerRate:
    """What one worker does: its host and process, the part that it holds, "" for none.

    done: bytes that it worked through in this run. rate: bytes a second, over the last seconds. silent: seconds since
    it was heard of.
    """

    name: str
    part: str
    done: int
    rate: float
    silent: float


@dataclass(frozen=True, slots=True)
class Working:
    """What each worker of a job does now."""

    workers: tuple[WorkerRate, ...]


@dataclass(frozen=True, slots=True)
class LayerDone:
    """One layer was measured, or quantized, or copied."""

    result: LayerResult


@dataclass(frozen=True, slots=True)
class Resumed:
    """A shard, or layers of one file, of an earlier, stopped run are whole and were taken over."""

    shard: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class ShardWritten:
    """A shard is on disk, read back and verified."""

    shard: str
    nbytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that the user should know and that does not stop the job."""

    message: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """Both sides are ready for prompts; `chat` tells whether there is a chat template."""

    runtime: str
    version: str
    chat: bool


@dataclass(frozen=True, slots=True)
class Token:
    """The token at `index` of a continuation, by the source or the model, and the text that it adds.

    `differs` marks the first index where the two sides have different tokens.
    """

    side: Literal["source", "model"]
    index: int
    token: int
    text: str
    differs: bool


@dataclass(frozen=True, slots=True)
class ReplyDone:
    """Both sides are through with a prompt; the first index where they differ, None where they never do."""

    differs_at: int | None


@dataclass(frozen=True, slots=True)
class Lifted:
    """It is known which powers of two an export is to be lifted by."""

    lifting: Lifting


@dataclass(frozen=True, slots=True)
class Transcoded:
    """It is known what a conversion does with every layer, and what that loses."""

    transcoding: Transcoding


@dataclass(frozen=True, slots=True)
class Compared:
    """It is known how far two checkpoints are apart."""

    measured: Measured


@dataclass(frozen=True, slots=True)
class FindingMade:
    """The first place of a finding was seen; there may be more."""

    finding: Finding


@dataclass(frozen=True, slots=True)
class Examined:
    """A folder was examined."""

    examination: Examination


@dataclass(frozen=True, slots=True)
class Repaired:
    """A repaired copy was written and examined, or, without a repair, none was.

    before, after: what was found of the folder and of its copy. left_out: files that are not in the copy, and why.
    """

    target: Path | None
    repairs: tuple[Repair, ...]
    before: Examination
    after: Examination
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The job is done."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Occupies:
    """The job takes up to `nbytes` of disk in `folder` while it runs, and gives them back."""

    folder: Path
    nbytes: int


@dataclass(frozen=True, slots=True)
class ModelDone:
    """One model of an evaluation was run on all windows; `windows` are their sums, in order."""

    row: Evaluated
    windows: tuple[Tally, ...] = ()


@dataclass(frozen=True, slots=True)
class EvaluationDone:
    """An evaluation is through."""

    quality: Quality


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Statistics are written.

    matrices: how many matrices they are of. idle: names of experts' matrices that no token was routed to. unseen: names
    of linear layers' and experts' matrices that are not in the file, since the runtime has them in another form.
    """

    path: Path
    nbytes: int
    tokens: int
    matrices: int
    idle: tuple[str, ...]
    unseen: tuple[str, ...]
    runtime: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Published:
    """An export is at a repository, and every file of it there was checked.

    page: its address for people. commit: the one in which all is there. private: whether others can not see it. files,
    sent: how many it has, and how many of them were sent now. nbytes: of all.
    """

    url: str
    page: str
    commit: str
    private: bool
    files: int
    sent: int
    nbytes: int


Event = (
    Started
    | Progress
    | Working
    | LayerDone
    | Resumed
    | ShardWritten
    | Warned
    | Occupies
    | Calibrated
    | ModelDone
    | EvaluationDone
    | Loaded
    | Token
    | ReplyDone
    | Lifted
    | Examined
    | Compared
    | FindingMade
    | Repaired
    | Transcoded
    | Published
    | Finished
)
