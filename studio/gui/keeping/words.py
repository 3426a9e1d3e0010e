"""What is said of work that is kept, or can not be."""

from studio import core
from studio.gui.shell.cards import Message
from studio.gui.shell.specs import keys_of
from studio.gui.shell.text import sentence

PICKED_UP, AFRESH = "Picked up where you left off", "Started afresh"
"""Titles of the cards that go with the next change: what they offer was about the plan before it."""

NOT_KEPT = "Work on this checkpoint is not kept"

_SAVE = keys_of("save_plan")
KEPT = f"Kept automatically: it is there again when you open this checkpoint. {_SAVE} saves it to a file of its own."
LOST = f"Lost when the checkpoint is closed: save it with {_SAVE}, or let Settings remember work on each checkpoint."


def greeting(by_hand: int, results: int, steps: int) -> str:
    """What is there again."""
    counts = (by_hand, "choice", " by hand"), (results, "result", ""), (steps, "step", " of undo")
    parts = [core.counted(count, noun) + more for count, noun, more in counts if count]
    return ", ".join(parts) or "The view is as it was."


def not_kept(problem: str, seconds: int) -> Message:
    """A warning that says why; it is tried again every so many seconds, 0 when only reading again helps."""
    mend = f"Mend that, or close it there, and read the checkpoint again ({keys_of('reload')})."
    again = f"It is tried again every {seconds} s." if seconds else mend
    hint = f"{again} Until then save the plan with {_SAVE} before you close it; results are lost then."
    return Message("warning", NOT_KEPT, sentence(problem), hint)
