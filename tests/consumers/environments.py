"""Environments: a consumer's own virtual environment, made once from what the table names."""

import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tests.consumers.consumers import Consumer

_STAMP = "made-of"
_SECONDS = 3000


class NotInstallableError(Exception):
    """An environment that can not be made here; the text is the last line that pip printed."""


def environment(consumer: Consumer, folder: Path) -> Path:
    """The interpreter of a consumer below `folder`; raises NotInstallableError when it can not be installed."""
    place = folder / consumer.name
    python, stamp = place / "bin" / "python", place / _STAMP
    if stamp.exists() and stamp.read_text(encoding="utf-8") == recipe(consumer):
        return python
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(place)])
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "install", *consumer.packages])
    if consumer.removed:
        _run([*pip, "uninstall", "--yes", *consumer.removed])
    for source in consumer.sources:
        _unpack(pip, source, place / "sources")
    stamp.write_text(recipe(consumer), encoding="utf-8")
    return python


def recipe(consumer: Consumer) -> str:
    """All that an environment is made of, one thing a line; another recipe is another environment."""
    removed = [f"-{package}" for package in consumer.removed]
    return "\n".join([sys.version.partition(" ")[0], *consumer.packages, *removed, *consumer.sources])


def _unpack(pip: Sequence[str], package: str, place: Path) -> None:
    place.mkdir(exist_ok=True)
    _run([*pip, "download", "--no-deps", "--no-binary", ":all:", "--dest", str(place), package])
    for archive in place.glob("*.tar.gz"):
        with tarfile.open(archive) as opened:
            opened.extractall(place, filter="data")
        archive.unlink()


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise NotInstallableError(f"pip was not done after {_SECONDS} s") from None
    if done.returncode:
        printed = [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("ERROR")]
        raise NotInstallableError((printed or ["pip failed without a word"])[-1][:300])
