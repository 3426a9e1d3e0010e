"""Commands of the process that runs models, in this process: their options, and who listens to them."""

import argparse

from tests.lm.models import LENGTH, WINDOWS


class Heard:
    """A channel that keeps what it is told."""

    def __init__(self, stop_after: int = 0):
        self.lines, self._left = [], stop_after

    def tell(self, event, **data):
        self.lines.append({"event": event, **data})

    def started(self, total, what):
        self.tell("started", total=total, what=what)

    def progress(self, done, what):
        self.tell("progress", done=done, what=what)
        self._left -= 1
        if not self._left:
            raise KeyboardInterrupt

    def warn(self, message):
        self.tell("warning", message=message)

    def result(self, **data):
        self.tell("result", **data)


def options(source, out, text, **changes):
    usual = {"windows": WINDOWS, "length": LENGTH, "seed": 0, "max_memory": 0}
    return argparse.Namespace(source=source, out=out, text=[text], **{**usual, **changes})
