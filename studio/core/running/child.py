"""Child: a process that runs a model, started, followed and ended here; it never enters this process.

What it says is described in `studio.lm.protocol`.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from studio.core import errors
from studio.core.errors import BackendError, MemoryLimitError, StudioError
from studio.core.events import Event, Phase, Progress, Started, Warned
from studio.core.names import printable

PYTHON = "NVFP4_STUDIO_PYTHON"
"""The environment variable that names another Python for models."""

INSTALL = "pip install 'nvfp4-studio[lm]'"
BEAT = 0.2
"""Seconds after which a silent child is reported as alive, so that a job that waits for it can be stopped."""

_THREADS = {"calibrate": {"OPENBLAS_NUM_THREADS": "1"}}
"""numpy's products of `calibrate` are small; threads for them only wait for each other."""

_FREE_AT_ONCE = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(4 << 20)}
"""For glibc: what is freed goes back to the system. SmolLM2 on 32 windows took 745 MB with this, and 2 GB without."""

Line = Mapping[str, Any]
ALIVE: Line = {"event": "alive"}
_LONGEST_LINE = 1 << 26
_SHOWN_FAULT = 400


class Child:
    """A running `python -m studio.lm COMMAND ...`; iterate over `lines`, `answer` where it waits, and close it."""

    def __init__(self, command: str, arguments: Sequence[str]) -> None:
        command_line = [*_python(), "-m", "studio.lm", command, *arguments]
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        try:
            self.process = subprocess.Popen(  # noqa: S603 - our own module, arguments are never parsed by a shell
                command_line,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env={**_THREADS.get(command, {}), **_environment()},
                start_new_session=True,
            )
        except OSError as error:
            self._stderr.close()
            what = f"can not be started: {os.strerror(error.errno) if error.errno else error}"
            raise BackendError(what, file=command_line[0], hint=f"{PYTHON} names a Python, if it is set") from None

    def lines(self) -> Iterator[Line]:
        """Each line that it says, without `error`, and `ALIVE` while it is silent; ends when it has ended well.

        Raises StudioError of the kind that the child told, or for a child that ended without a word.
        """
        assert self.process.stdout is not None
        for raw in _lines(self.process.stdout):
            if raw is None:
                yield ALIVE
                continue
            line = json.loads(raw)
            if line["event"] in ("error", "bug"):
                raise self._error(line)
            yield line
        if code := self.process.wait():
            raise self._died(code)

    def answer(self, text: str) -> None:
        """Send a line to a child that waits for one."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it is gone; `lines` says why
            self.process.stdin.write(text.encode() + b"\n")
            self.process.stdin.flush()

    def close(self) -> None:
        """End it at once, if it has not ended."""
        with self._stderr:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
            for stream in (self.process.stdin, self.process.stdout):
                _close(stream)

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _error(self, line: Line) -> StudioError:
        if line["event"] == "bug":
            return StudioError(f"the model could not be run: {printable(line['message'], _SHOWN_FAULT)}")
        kind = getattr(errors, str(line["kind"]), StudioError)
        found: StudioError = kind(line["message"], file=line["file"], tensor=line["tensor"], hint=line["hint"])
        return found

    def _died(self, code: int) -> StudioError:
        if code == -signal.SIGKILL:
            what = "the process that ran the model was ended by the system, most likely for want of memory"
            return MemoryLimitError(what, hint="--max-memory keeps it within a bound; close other programs")
        told = self._last_words()
        if "No module named studio" in told or "No module named 'studio" in told:
            return BackendError(f"{_python()[0]} has no nvfp4-studio", hint=f"in that Python: {INSTALL}")
        return StudioError(f"the process that ran the model ended with {code}: {told or 'it said nothing'}")

    def _last_words(self) -> str:
        self._stderr.seek(0)
        words = self._stderr.read()[-4096:].decode("utf-8", "replace").strip().splitlines()
        return printable(words[-1], _SHOWN_FAULT) if words else ""


def follow(command: str, arguments: Sequence[str]) -> Iterator[Line]:
    """Run a command that asks nothing: its lines and `ALIVE`; closing the generator ends the child."""
    with Child(command, arguments) as child:
        yield from child.lines()


def told(phase: Phase, lines: Iterator[Line]) -> Generator[Event, None, Line]:
    """What a child says as events of a job; returns its result. A silent child repeats its last event."""
    last: Event = Progress(phase, 0, "")
    for line in lines:
        match line["event"]:
            case "started":
                last = Progress(phase, 0, line["what"])
                yield Started(phase, line["total"], 0)
            case "progress":
                last = Progress(phase, line["done"], line["what"])
                yield last
            case "warning":
                yield Warned(line["message"])
            case "result":
                return line
            case "alive":
                yield last
    raise StudioError("the process that ran the model ended without a result")


def _lines(stream: IO[bytes]) -> Iterator[bytes | None]:
    """Whole lines of a pipe, None after each `BEAT` without one."""
    os.set_blocking(stream.fileno(), False)
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if not selector.select(BEAT):
                yield None
                continue
            found = os.read(stream.fileno(), 1 << 16)
            if not found:
                return
            *lines, rest = (rest + found).split(b"\n")
            yield from lines
            if len(rest) > _LONGEST_LINE:
                raise StudioError("the process that runs the model says what is no line of its protocol")


def _python() -> list[str]:
    """The Python for models. `-P`: nothing is imported from the current folder, which may be a stranger's."""
    named = os.environ.get(PYTHON)
    if not named and getattr(sys, "frozen", False):
        what = "this is the bundled program, which has no Python to run models with"
        raise BackendError(what, hint=f"{INSTALL} into any Python, and set {PYTHON} to its path")
    return [named or sys.executable, "-P"]


def _environment() -> dict[str, str]:
    """The environment of this process; the child imports the same program, and nothing is fetched from the network."""
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    ours = {**_FREE_AT_ONCE, **_unbundled(dict(os.environ)), **offline}
    if os.environ.get(PYTHON):
        return ours
    root = str(Path(__file__).resolve().parents[3])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**ours, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1"}


def _unbundled(environment: dict[str, str]) -> dict[str, str]:
    """Without the paths by which the bundled program finds its own libraries, which are no other Python's."""
    for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if getattr(sys, "frozen", False) else ():
        environment.pop(name, None)
        if before := environment.get(f"{name}_ORIG"):
            environment[name] = before
    return environment


def _close(stream: IO[bytes] | None) -> None:
    if stream:
        with suppress(OSError):  # an answer that nobody read
            stream.close()
