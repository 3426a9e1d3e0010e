"""Store: what a place behind a URL can do; one attempt each, the patience to try again lies above."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from studio.core.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Object:
    """What a store says of a file: its size in bytes, and a tag that another content would not have, "" for none.

    digest: the SHA-256 that this program noted beside it, "" where it did not.
    """

    nbytes: int
    tag: str
    digest: str = field(default="", compare=False)


class TryAgainError(Exception):
    """Something that may pass: no connection, a broken answer, a busy server. `wait` is the pause asked for, in s."""

    def __init__(self, what: str, wait: float = 0.0) -> None:
        super().__init__(what)
        self.wait = wait


class ConditionFailedError(Exception):
    """A file was to be written only if none, or a certain one, was there, and that is not so."""


class Store(Protocol):
    """Files below a URL by name, "/" between folder and file. Every call raises TryAgainError or CheckpointError."""

    @property
    def url(self) -> str:
        """Where it is, for people; no credentials are in it."""
        ...

    @property
    def usual(self) -> Sequence[str]:
        """Names to look for where a store does not list its files; none where it does."""
        ...

    def listed(self) -> Mapping[str, Object]:
        """The files of the folder and of those in it; nothing where a store does not list."""
        ...

    def find(self, name: str) -> Object | None:
        """What the store says of a file now; None when there is none."""
        ...

    def read(self, name: str, found: Object, start: int, stop: int) -> Iterator[bytes]:
        """Bytes `start` .. `stop` of a file in pieces; raises CheckpointError when it is no longer `found`."""
        ...

    def hang_up(self) -> None:
        """Break off requests that are under way, as far as that can be; they raise TryAgainError."""
        ...

    def close(self) -> None:
        """Give connections back."""
        ...


def changed(url: str) -> CheckpointError:
    """The file is another one than when it was opened."""
    return CheckpointError("changed while it was in use", file=url, hint="run it again when the source rests")


class BarredError(CheckpointError):
    """The store does not let us read, or, as some do, does not tell that there is nothing."""


def refused(url: str, status: int, hint: str) -> BarredError:
    """The store does not let us read."""
    return BarredError(f"the store refuses to give it (HTTP {status})", file=url, hint=hint)


def unusable(url: str, what: str) -> CheckpointError:
    """The store answers in a way that nothing can be read by."""
    return CheckpointError(what, file=url, hint="download the checkpoint and give the folder")


PASSING = frozenset({"BadDigest", "IncompleteBody", "RequestTimeout", "XAmzContentSHA256Mismatch"})
"""Names of errors of S3 that may pass, whatever their status: bytes were lost or damaged on the way."""

BUSY = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})
"""HTTP statuses that may pass; those from 520 on are of networks in front of a server."""
