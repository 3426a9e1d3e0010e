"""The errors that a user can meet; each knows its exit code.

StudioError                what happened, in which file and tensor, what to do
  CheckpointError   (2)    unreadable, malformed, unsafe or unsupported input
  PlanError         (2)    unknown format, a rule that matches nothing, a plan that the layout can not store
  BackendError      (2)    asked for a machine that is not here, or whose self-test fails
  MemoryLimitError  (3)    the bound computed before the start does not fit, or memory ran out
  ExportError       (4)    the target exists, is the source, can not be written, has no room
ThresholdExceeded   (1)    a layer is worse than the limit given on the command line
"""

import os

from studio.core.names import printable

STOPPED = 130
BUG = 70


class StudioError(Exception):
    """Something that the user can act on.

    `file` and `tensor` name the place (they are escaped when shown), `hint` says what to do.
    """

    exit_code = 2

    def __init__(
        self, what: str, *, file: str | os.PathLike[str] | None = None, tensor: str | None = None, hint: str = ""
    ) -> None:
        self.what, self.file, self.tensor, self.hint = what, file, tensor, hint
        super().__init__(what)

    def __str__(self) -> str:
        places = []
        if self.file is not None:
            places.append(printable(str(self.file), 400))
        if self.tensor is not None:
            places.append(f"tensor {printable(self.tensor)}")
        return ": ".join([*places, self.what])


class CheckpointError(StudioError):
    """The input can not be read, is malformed, unsafe or of an unsupported kind."""


class UnreadableError(CheckpointError):
    """A file is there and the system, or a store, does not give its bytes; it may do so another time."""


class PlanError(StudioError):
    """The plan does not fit the model or the layout."""


class BackendError(StudioError):
    """The requested machine is not here, or computes wrong results."""


class MemoryLimitError(StudioError):
    """The work does not fit into the memory allowed."""

    exit_code = 3


class ExportError(StudioError):
    """The result can not be written."""

    exit_code = 4


class ThresholdExceeded(StudioError):  # noqa: N818 - a verdict, not a fault
    """A layer is worse than the limit that was asked for."""

    exit_code = 1
