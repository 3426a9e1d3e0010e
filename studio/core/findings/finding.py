"""Finding: one thing that is wrong with a checkpoint, where, by what evidence, and what to do about it."""

from collections.abc import Iterable, Mapping
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
    """What a check saw in one place: a tensor, a layer, a file or a key. `fails` names runtimes besides the usual."""

    kind: str
    where: str = ""
    evidence: str = ""
    fails: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """Observations of one kind.

    kind: its name in `studio.core.findings.kinds`. where: the first of the `count` places, escaped. evidence: what was
    seen in the first. fails: the runtimes that it breaks. fix: what to do.
    """

    kind: str
    severity: Severity
    what: str
    where: tuple[str, ...]
    count: int
    evidence: str
    fails: tuple[str, ...]
    fix: str

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
    """What the doctor found: the findings, worst first, and every place of each kind as it is stored."""

    findings: tuple[Finding, ...]
    places: Mapping[str, tuple[str, ...]]

    def reaches(self, severity: Severity) -> bool:
        """True when a finding is at least as bad."""
        return any(SEVERITIES.index(found.severity) <= SEVERITIES.index(severity) for found in self.findings)


def shown(names: Iterable[str]) -> tuple[str, ...]:
    """The first names, escaped."""
    return tuple(printable(name) for name, _ in zip(names, range(SHOWN), strict=False))
