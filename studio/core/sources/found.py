"""What detectors find: weights that are stored in parts, and those whose codes can not be read."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from studio.core.model import Source, Stored
from studio.core.sources.declared import Section


class UnreadError(Exception):
    """Why codes can not be read: a form that is not read, or `fault` names what is wrong with their parts."""

    fault: "Fault | None" = None


class MissingPartError(UnreadError):
    """A part is missing without which codes mean nothing."""

    fault = "missing"


class MisfitError(UnreadError):
    """Parts do not fit each other, or what the config says of them."""

    fault = "misfit"


Fault = Literal["missing", "misfit"]
"""What is wrong with codes that nobody can read; others are whole, and of a form that is not read here."""


def beside(stored: Mapping[str, Stored], path: str, leaves: Iterable[str]) -> dict[str, Stored]:
    """The tensors that a module has under some of the names of its parts, by these."""
    return {leaf: stored[name] for leaf in leaves if (name := f"{path}.{leaf}") in stored}


@dataclass(frozen=True, slots=True)
class Found:
    """A weight that one convention of storing it accounts for.

    weight: the name that a plain checkpoint gives it. parts: the names of all tensors that it is stored in, that of
    its codes first, and of those that belong to it and are not needed, as scales of its inputs are.
    """

    weight: str
    source: Source
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unread:
    """Parts of one weight, that of its codes first, and why they can not be read; fault: see `UnreadError`."""

    weight: str
    why: str
    parts: tuple[str, ...]
    fault: Fault | None = None


def found_or_unread(
    weight: str, maker: str, codes: Stored, others: Mapping[str, Stored], source: Callable[[], Source]
) -> Found | Unread:
    """A weight in `codes`, with all that lies beside them, as `source` reads it, or why it does not (UnreadError)."""
    parts = (codes.tensor.name, *(part.tensor.name for part in others.values()))
    try:
        return Found(weight, source(), parts)
    except UnreadError as error:
        return Unread(weight, f"{maker}: {error}", parts, error.fault)


Detector = Callable[[Mapping[str, Stored], Sequence[Section]], Iterator[Found | Unread]]
"""Goes through the tensors of a checkpoint, by name, and what its config says; tensors decide, not configs."""
