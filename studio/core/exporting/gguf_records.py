"""Records of a GGUF file that grows: what is known of its finished layers, a line each in a file beside it.

The first line is the identity of the run. A line tells the result of a layer, and where its bytes lie with their
checksums: the next run takes over a layer when its bytes are still there, and does it again when one differs.
"""

import fcntl
import os
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

from studio.core.containers.files import SourceFile
from studio.core.containers.strict_json import parse_object
from studio.core.errors import CheckpointError, ExportError
from studio.core.exporting.layer_lines import layer_line
from studio.core.exporting.records import result_from_json, result_to_json
from studio.core.exporting.writing import writing
from studio.core.planning.plan import Choice
from studio.core.results import LayerResult
from studio.core.running.packed_results import PackedResults
from studio.core.running.pipeline import scopes

_LONGEST = 64 << 20
"""Bytes of a line."""
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class GgufRecords:
    """The records of `target`, locked while they are open; use it as a context manager.

    `notes`: of each finished layer by name, offset, size and checksum of its pieces. `discarded`: whether what another
    run left was given up. Results of layers that were taken over go to `results`. Raises ExportError when another run
    has the file, and when what lies where it grows is not of this program.
    """

    def __init__(self, target: Path, identity: Mapping[str, Any], nbytes: int, results: PackedResults) -> None:
        self.growing = target.with_name(f"{target.name}.partial")
        self.path = target.with_name(f"{target.name}.partial.json")
        self.notes: dict[str, array[int]] = {}
        self.discarded = False
        self._check_place()
        with writing(self.path):
            self._descriptor = os.open(self.path, _FLAGS, 0o666)
        try:
            self._lock(target)
            self._begin(layer_line(identity), nbytes, results)
        except BaseException:
            os.close(self._descriptor)
            raise

    def _check_place(self) -> None:
        if os.path.lexists(self.growing) and (self.growing.is_symlink() or not self.path.is_file()):
            what = "exists and was not made by this program"
            raise ExportError(what, file=self.growing, hint="move it away or choose another target")

    def _lock(self, target: Path) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ExportError("another run writes this file", file=target) from None

    def _begin(self, identity: bytes, nbytes: int, results: PackedResults) -> None:
        """Take over what an earlier run of this identity finished, or start empty."""
        end = 0
        with writing(self.path), open(self._descriptor, "rb", closefd=False) as lines:
            first = lines.readline(_LONGEST)
            same = first == identity + b"\n" and self.growing.is_file() and self.growing.stat().st_size == nbytes
            if same:
                end = len(first) + self._take(lines, results)
            self.discarded = bool(first) and first != identity + b"\n"
            os.ftruncate(self._descriptor, end)
        if not end:
            self._append(identity)

    def _take(self, lines: IO[bytes], results: PackedResults) -> int:
        """Take over the layers whose bytes are there; how many bytes whole lines have: a kill cuts the last one."""
        read = 0
        with SourceFile(self.growing) as file:
            while (line := lines.readline(_LONGEST)).endswith(b"\n"):
                read += len(line)
                with suppress(CheckpointError, ValueError, KeyError, TypeError, AttributeError):
                    told = parse_object(line, file=self.path)
                    result, notes = result_from_json(told["result"]), array("Q", bytes.fromhex(told["notes"]))
                    if _is_whole(file, notes):
                        results.add(result)
                        self.notes[result.name] = notes
        return read

    def keep_whole_scopes(self, choices: Sequence[Choice]) -> list[Choice]:
        """The choices that are left to do; layers that share a tensor scale are taken over together or not at all."""
        left = []
        for scope in scopes(choices):
            if any(choice.layer.name not in self.notes for choice in scope):
                left += scope
                for choice in scope:
                    self.notes.pop(choice.layer.name, None)
        return left

    def add(self, result: LayerResult, notes: "array[int]") -> None:
        """A layer is finished."""
        self.notes[result.name] = notes
        self._append(layer_line({"result": result_to_json(result), "notes": notes.tobytes().hex()}))

    def _append(self, line: bytes) -> None:
        data = memoryview(line + b"\n")
        with writing(self.path):
            while data:
                data = data[os.write(self._descriptor, data) :]

    def discard(self) -> None:
        """Remove the file that grows, and what is known of it."""
        for path in (self.growing, self.path):
            with suppress(OSError):
                path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.notes:
            self.discard()
        with suppress(OSError):
            os.close(self._descriptor)


def _is_whole(file: SourceFile, notes: "array[int]") -> bool:
    """True when every piece is what was written. Raises CheckpointError for one outside of the file."""
    return all(zlib.crc32(file.read(offset, count)) == checksum for offset, count, checksum in pieces(notes))


def pieces(notes: "array[int]") -> Iterator[tuple[int, int, int]]:
    """Offset, size and checksum of each piece."""
    return zip(notes[0::3], notes[1::3], notes[2::3], strict=True)
