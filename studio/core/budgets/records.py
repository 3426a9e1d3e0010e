"""Records: what was measured for planning, kept among the user's caches, a line each, until it is old."""

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from studio.core.exporting.writing import writing
from studio.core.quality.window_records import cache_folder

_KEPT_SECONDS = 180 * 24 * 3600
"""Records that nobody asked for for so long go."""

_RECORD = ".plan.jsonl"


class Records:
    """JSON objects that are kept under a key; `key` says of what, and what else they depend on."""

    def __init__(self, key: Mapping[str, Any], folder: Path | None = None) -> None:
        self._folder = folder or cache_folder().parent / "plans"
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self._path = self._folder / (digest[:32] + _RECORD)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """All that were added, in order; a line that a kill cut short is left out."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            for line in file:
                with contextlib.suppress(ValueError):
                    found = json.loads(line)
                    if isinstance(found, dict):
                        yield found

    def add(self, *found: Mapping[str, Any]) -> None:
        """Keep more. Raises ExportError when it can not be written."""
        if not self._path.exists():
            self._begin()
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(one) + "\n" for one in found)

    def _begin(self) -> None:
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        for path in self._folder.glob("*" + _RECORD):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _KEPT_SECONDS:
                    path.unlink()
