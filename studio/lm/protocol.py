"""Protocol: what the process that runs a model tells the one that started it, one JSON object a line.

{"event": "started", "total": n, "what": text}             a phase of work of n units begins
{"event": "progress", "done": n, "what": text}             n units are done
{"event": "warning", "message": text}
{"event": "result", ...}                                   what the command is for; the last line of a good run
{"event": "error", "kind": class, "message": text, "file": path, "tensor": name, "hint": text}
and events of single commands. A line on stdin answers where a command waits; its end ends this process.
"""

import json
import os
import queue
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from studio.core.errors import BUG, MemoryLimitError, StudioError

_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|unable to allocate|\[malloc\]|maximum allowed buffer",
    re.IGNORECASE,
)
LESS_MEMORY = "give less text at once: a smaller --max-memory, or a smaller --length"


def first_line(error: BaseException) -> str:
    """What an error of a runtime says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class Channel:
    """Lines out, and answers in. `of_process` takes stdout for itself: whatever a library prints goes to stderr."""

    def __init__(self, out: TextIO, answers: "queue.SimpleQueue[str]") -> None:
        self._out, self._answers = out, answers

    @classmethod
    def of_process(cls) -> "Channel":
        """The channel to the process that started this one."""
        out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=_listen, args=(answers,), daemon=True).start()
        return cls(out, answers)

    def tell(self, event: str, **data: Any) -> None:
        """Send one line."""
        self._out.write(json.dumps({"event": event, **data}) + "\n")
        self._out.flush()

    def started(self, total: int, what: str) -> None:
        """A phase of work of `total` units begins."""
        self.tell("started", total=total, what=what)

    def progress(self, done: int, what: str) -> None:
        """`done` of the units are worked through; `what` is at hand."""
        self.tell("progress", done=done, what=what)

    def warn(self, message: str) -> None:
        """Something that the user should know."""
        self.tell("warning", message=message)

    def result(self, **data: Any) -> None:
        """What the command was run for."""
        self.tell("result", **data)

    def answer(self) -> str:
        """Wait for a line of the other side."""
        return self._answers.get()

    def is_asked(self) -> bool:
        """True when a line of the other side waits to be read."""
        return not self._answers.empty()


def _listen(answers: "queue.SimpleQueue[str]") -> None:
    """Pass lines on; when the other side is gone there is nobody to work for."""
    for line in sys.stdin:
        answers.put(line.rstrip("\n"))
    os._exit(0)


@dataclass
class Fault:
    """How a command ended."""

    exit_code: int = 0


@contextmanager
def failing(channel: Channel) -> Iterator[Fault]:
    """Tell what goes wrong inside as an error line; the exit code is in what it gives."""
    fault = Fault()
    try:
        yield fault
    except StudioError as error:
        fault.exit_code = _tell(channel, error)
    except MemoryError:
        fault.exit_code = _tell(channel, MemoryLimitError("the model ran out of memory", hint=LESS_MEMORY))
    except Exception as error:
        if _OUT_OF_MEMORY.search(str(error)):
            fault.exit_code = _tell(channel, MemoryLimitError("the model ran out of memory", hint=LESS_MEMORY))
        else:
            traceback.print_exc()
            channel.tell("bug", message=f"{type(error).__name__}: {error}")
            fault.exit_code = BUG


def _tell(channel: Channel, error: StudioError) -> int:
    place = {"file": None if error.file is None else os.fspath(error.file), "tensor": error.tensor}
    channel.tell("error", kind=type(error).__name__, message=error.what, hint=error.hint, **place)
    return error.exit_code
