"""Fixtures for tests of studio.core: the command line in this process, and what a refusal must look like."""

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from studio.cli.app import main
from tests.core.checkpoints import snapshot

LONGEST_REFUSAL = 1.0


@dataclass(frozen=True)
class Ran:
    """How a run of the command line ended; `seconds` of processor time, which a busy machine does not stretch."""

    code: int
    out: str
    err: str
    seconds: float


Studio = Callable[..., Ran]
Refused = Callable[..., str]


@pytest.fixture
def studio(capsys: pytest.CaptureFixture[str]) -> Iterator[Studio]:
    """Runs the command line in this process: `studio("quantize", source, target)`."""
    handlers = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        started = time.process_time()
        code = main([str(argument) for argument in arguments])
        seconds = time.process_time() - started
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return Ran(code, shown.out, shown.err, seconds)

    yield run
    for name, handler in handlers.items():
        signal.signal(name, handler)


@pytest.fixture
def refused(studio: Studio, tmp_path: Path) -> Refused:
    """Asserts that `quantize` refuses a source at once, in these words, and leaves everything as it was.

    `refused(source, "truncated", "q_proj")`; the target is `tmp_path / "out"`. Returns what was said.
    """

    def check(
        source: Path, *words: str, options: tuple[str, ...] = (), code: int = 2, command: str = "quantize"
    ) -> str:
        target = tmp_path / "out"
        folder = source if source.is_dir() else source.parent
        before, beside = snapshot(folder), sorted(tmp_path.iterdir())
        ran = studio(command, source, *([target] if command == "quantize" else []), *options)
        assert ran.code == code, ran.err
        assert sum(line.startswith("error: ") for line in ran.err.splitlines()) == 1, ran.err
        missing = [word for word in words if word not in ran.err]
        assert not missing, f"{missing} not in: {ran.err}"
        assert ran.seconds < LONGEST_REFUSAL
        assert snapshot(folder) == before
        assert sorted(tmp_path.iterdir()) == beside
        return ran.err

    return check
