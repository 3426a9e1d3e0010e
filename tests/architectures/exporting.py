"""Exports by the command line, in a process of its own."""

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_SECONDS = 300


def quantize(source: Path, export: Path, layout: str, row: str) -> tuple[int, str]:
    """The exit code of `quantize` and all that it printed."""
    how = ["--layout", layout, "--format", row, "--overwrite", "--threads", "1"]
    command = [sys.executable, "-m", "studio", "quantize", str(source), str(export), *how]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=_SECONDS, check=False)
    return done.returncode, done.stdout + done.stderr


def error_of(printed: str) -> str:
    """The sentence after `error:`, or the last line."""
    lines = [line for line in printed.splitlines() if line.strip()]
    told = [line.partition("error: ")[2] for line in lines if "error: " in line]
    return (told or lines or ["nothing printed"])[-1]
