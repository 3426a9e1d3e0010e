"""Finding: one thing that is wrong with a checkpoint, where, by what evidence, and what to do about it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from studio.core.names import printable

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""error: it does not load, or gives wrong numbers; warning: it may, or loses quality; note: good to know."""

SHOWN = 8
"""Names that a finding lists; it counts the others."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a check saw in one place: a tensor, a layer, a file or a key.

    `fails` names runtimes besides the usual. `told` is what a repair must know of it, for machines.
    """

    kind: str
    where: str = ""
    evidence: str = ""
    fails: tuple[str, ...] = ()
    told: str = ""


Seen = Observation | int
"""What a check gives while it reads: what it saw, or how many bytes it has read since it said so last."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Something to read: what, how many bytes, and what a check sees in it; going through that reads them."""

    name: str
    nbytes: int
    seen: Callable[[], Iterator[Seen]]


@dataclass(frozen=True, slots=True)
class Finding:
    """Observations of one kind.

    kind: its name in `studio.core.findings.kinds`. where: the first of the `count` places, escaped. evidence: what was
    seen in the first. fails: the runtimes that it breaks. fix: what to do. repair: what a repaired copy has in its
    place where that is certain, "" where the program can make none; wants_source: only from the source.
    """

    kind: str
    severity: Severity
    what: str
    where: tuple[str, ...]
    count: int
    evidence: str
    fails: tuple[str, ...]
    fix: str
    repair: str = ""
    wants_source: bool = False

    @property
    def places(self) -> str:
        """Where it is, for people: the first places and how many more there are."""
        more = self.count - len(self.where)
        return ", ".join(self.where) + (f" and {more:,} more" if more else "")

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON holds it."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Examination:
    """What the doctor found: the findings, worst first, and every observation of each kind."""

    findings: tuple[Finding, ...]
    observed: Mapping[str, tuple[Observation, ...]]

    def reaches(self, severity: Severity) -> bool:
        """True when a finding is at least as bad."""
        return any(SEVERITIES.index(found.severity) <= SEVERITIES.index(severity) for found in self.findings)


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repaired copy has in place of what was found: the kind, what was done, and in how many places."""

    kind: str
    what: str
    where: tuple[str, ...]
    count: int

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON holds it."""
        return {name: getattr(self, name) for name in self.__slots__}


def shown(names: Iterable[str]) -> tuple[str, ...]:
    """The first names, escaped."""
    return tuple(printable(name) for name, _ in zip(names, range(SHOWN), strict=False))
