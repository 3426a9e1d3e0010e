"""Faults: what an error becomes on a card: what happened, and what to do about it in the window."""

import sys
import traceback
from dataclasses import dataclass

from studio.gui.shell.cards import Message
from studio.gui.shell.text import sentence


@dataclass(frozen=True, slots=True)
class Bug:
    """An exception that nobody expected, with its traceback as text."""

    what: str
    details: str


def fault_of(caught: Exception) -> object:
    """An error of ours as it is, without what its traceback holds on to; any other as a bug."""
    core = sys.modules.get("studio.core")  # where that can not be imported, no error is one of ours
    if core is not None and isinstance(caught, core.StudioError):
        return caught.with_traceback(None)
    return Bug(f"{type(caught).__name__}: {caught}", "".join(traceback.format_exception(caught)))


def message_of(error: object, title: str, otherwise: str = "") -> Message:
    """The card for an error: what happened and what to do (`otherwise`, where it does not say), or to report a bug."""
    from studio import core

    if isinstance(error, core.StudioError):
        return Message("error", title, str(error), for_window(error.hint) or otherwise)
    if isinstance(error, Bug):
        hint = "This is a fault of the program. Copy it into a report; your checkpoint is unchanged."
        return Message("error", title, error.what, hint, error.details)
    return Message("error", title, str(error))


_HINTS = {
    "with --overwrite they are": "tick Replace: they are",
    "with --overwrite": "with Replace ticked",
    "--overwrite": "tick Replace",
    "--public says that this is meant": "untick Private if this is meant",
    "--restart discards": "ticking Discard what a stopped run left removes",
    "--restart": "tick Discard what a stopped run left",
    "--skip-nonfinite keeps such tensors as they are": "keep such layers as they are (key 0)",
    "--backend auto": "the setting Computes on: auto",
    "list the names with: nvfp4-studio inspect": "the names are in the table",
    "run the same command again": "export again",
    "--dtype float32 holds what they decode to": "decoded weights in float32 hold them",
    "--allow-lossy rounds them": "Accept the loss rounds them",
    "--layout plain decodes it": "plain safetensors hold it decoded",
    "leave --chat out": "untick As a question",
    "--length 512": "a length of 512",
    "smaller --length": "smaller length",
    "fewer --windows, or --cache on another disk": "fewer windows, or free some of the disk",
    "larger --max-memory": "larger memory limit in the settings",
    "--max-memory keeps it": "the memory limit in the settings keeps it",
}


def for_window(hint: str) -> str:
    """A hint that was written for the command line, in the words of the window."""
    for option, words in _HINTS.items():
        hint = hint.replace(option, words)
    if hint.startswith("pip "):
        what = "reads stores" if "[stores]" in hint else "runs models"
        hint = f"Install what {what}: {hint}"
    return sentence(hint)
