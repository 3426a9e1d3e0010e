"""Environments: virtual environments, each made once from what a table names, and made anew when that changes."""

import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_STAMP = "made-of"
_SECONDS = 3000


class NotInstallableError(Exception):
    """An environment that can not be made here; the text is the last line that pip printed."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What a virtual environment is made of.

    packages: what pip installs, pinned. alone: what it installs without the packages that these ask for. removed: what
    it takes out again. sources: packages whose source archive is unpacked, not built. upon: another one, whose packages
    are found, too.
    """

    name: str
    packages: tuple[str, ...]
    alone: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    upon: "Environment | None" = None


def interpreter(environment: Environment, folder: Path) -> Path:
    """The interpreter of an environment below `folder`; raises NotInstallableError when it can not be installed."""
    if environment.upon:
        interpreter(environment.upon, folder)
    place = folder / environment.name
    python, stamp = place / "bin" / "python", place / _STAMP
    if stamp.exists() and stamp.read_text(encoding="utf-8") == recipe(environment):
        return python
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(place)])
    if environment.upon:
        _stand_upon(folder / environment.upon.name, place)
    for arguments in _steps(environment):
        _run([*_pip(python), *arguments])
    for source in environment.sources:
        _unpack(python, source, place / "sources")
    stamp.write_text(recipe(environment), encoding="utf-8")
    return python


def recipe(environment: Environment) -> str:
    """All that an environment is made of, one thing a line; another recipe is another environment."""
    alone = [f"={package}" for package in environment.alone]
    removed = [f"-{package}" for package in environment.removed]
    own = [*environment.packages, *alone, *removed, *environment.sources]
    below = recipe(environment.upon).splitlines()[1:] if environment.upon else []
    return "\n".join([sys.version.partition(" ")[0], *own, *(f"+{line}" for line in below)])


def _steps(environment: Environment) -> Iterator[Sequence[str]]:
    if environment.packages:
        yield ["install", *environment.packages]
    if environment.alone:
        yield ["install", "--no-deps", *environment.alone]
    if environment.removed:
        yield ["uninstall", "--yes", *environment.removed]


def _stand_upon(below: Path, place: Path) -> None:
    """Let an environment find the packages of the one `below` behind its own."""
    (found,), (own,) = (sorted(venv.glob("lib/python*/site-packages")) for venv in (below, place))
    (own / "upon.pth").write_text(f"{found}\n", encoding="utf-8")


def _pip(python: Path) -> list[str]:
    return [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]


def _unpack(python: Path, package: str, place: Path) -> None:
    place.mkdir(exist_ok=True)
    _run([*_pip(python), "download", "--no-deps", "--no-binary", ":all:", "--dest", str(place), package])
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
