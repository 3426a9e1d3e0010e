"""Exports by the command line, in a process of its own that runs one after the other."""

from pathlib import Path

from tests.runtimes.worker import Worker


def quantize(studio: Worker, source: Path, export: Path, layout: str, row: str) -> tuple[int, str]:
    """The exit code of `quantize` and all that it printed."""
    how = ["--layout", layout, "--format", row, "--overwrite", "--threads", "1"]
    done = studio.ask("run", arguments=["quantize", str(source), str(export), *how])
    return done["code"], done["printed"]


def error_of(printed: str) -> str:
    """The sentence after `error:`, or the last line."""
    lines = [line for line in printed.splitlines() if line.strip()]
    told = [line.partition("error: ")[2] for line in lines if "error: " in line]
    return (told or lines or ["nothing printed"])[-1]
