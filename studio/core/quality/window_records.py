"""Records of windows that were run, so that a stopped evaluation continues; and scratch space that never stays.

Both lie in one folder, that of the user's caches unless told otherwise. A record is a file per model, text and runtime,
a line per window, written as windows end; it goes when the evaluation that it belongs to is through.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from studio.core.exporting.scratch_space import scratch_space
from studio.core.exporting.writing import writing
from studio.core.model import Model
from studio.core.quality.metrics import Tally

_SCRATCH = "scratch-"
_RECORD = ".windows.jsonl"
_ASIDE = ".feedback"
_KEPT_SECONDS = 30 * 24 * 3600
"""Records of evaluations that nobody continued for so long go."""


def cache_folder() -> Path:
    """The folder for evaluations among the user's caches."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "nvfp4-studio" / "evaluations"


@contextmanager
def evaluation_space(folder: Path) -> Iterator[Path]:
    """Scratch space below `folder`; records there that are old go."""
    _tidy(folder)
    with scratch_space(folder, _SCRATCH) as path:
        yield path


def _tidy(folder: Path) -> None:
    """Remove records of evaluations that nobody continued."""
    for path in (*folder.glob("*" + _RECORD), *folder.glob("*" + _ASIDE)):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _KEPT_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def identity(model: Model) -> dict[str, Any]:
    """What tells a checkpoint from another, and from what it was before it was changed."""
    stats = {file.path.name: file.path.stat() for file in model.files}
    return {
        "path": str(model.path.resolve()),
        "files": {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()},
    }


class WindowRecords:
    """The windows of one model that were run: index -> (sums, seconds). `key` says of what run they are.

    facts: what else is known of the model, once it was prepared. aside: a folder for what preparing it may resume.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self._path = folder / (digest[:32] + _RECORD)
        self.aside = folder / (digest[:32] + _ASIDE)
        self.windows: dict[int, tuple[Tally, float]] = {}
        self.facts: dict[str, Any] = {}
        for line in self._lines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a kill may have cut the last one
                self._take(json.loads(line))

    def _lines(self) -> list[str]:
        try:
            return self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return []

    def _take(self, found: dict[str, Any]) -> None:
        if "facts" in found:
            self.facts = found["facts"]
        else:
            self.windows[found["index"]] = Tally(**found["sums"]), found["seconds"]

    def note(self, facts: dict[str, Any]) -> None:
        """Note what is known of the model."""
        self._append({"facts": facts})

    def add(self, index: int, sums: Tally, seconds: float) -> None:
        """Note a window that was run."""
        self._append({"index": index, "sums": asdict(sums), "seconds": seconds})

    def _append(self, found: dict[str, Any]) -> None:
        self._take(found)
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")

    def missing(self, count: int) -> list[int]:
        """Indices of the windows, of `count`, that were not run."""
        return [index for index in range(count) if index not in self.windows]

    def tallies(self, count: int) -> list[Tally]:
        """The sums of all windows, in order."""
        return [self.windows[index][0] for index in range(count)]

    @property
    def seconds(self) -> float:
        """Seconds that the windows took."""
        return sum(seconds for _, seconds in self.windows.values())

    def forget(self) -> None:
        """Remove the record, and what lies aside."""
        self._path.unlink(missing_ok=True)
        shutil.rmtree(self.aside, ignore_errors=True)
