"""GGUF: a strict reader of headers, little-endian, versions 2 and 3; what tensors hold is left to who asks.

The format: "GGUF", version, counts of tensors and of pairs; the pairs; for each tensor its name, dimensions (fastest
first), type and offset; then, aligned, the data.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from studio.core.containers.files import SourceFile
from studio.core.errors import CheckpointError
from studio.core.names import printable

MAGIC = b"GGUF"
F32 = 0
LARGEST_HEADER = 100_000_000
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_MOST = 1 << 24
_PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A stored tensor: `shape` slowest first, `kind` the number of its type, `start` from the start of the file."""

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int


@dataclass(frozen=True, slots=True)
class Gguf:
    """The checked header of one file."""

    pairs: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]


class Cursor:
    """Reads little-endian values one after the other; raises CheckpointError where the file ends."""

    def __init__(self, file: SourceFile) -> None:
        self._file, self._at, self._buffer = file, 0, b""

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return self._at - len(self._buffer)

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if self.position + count > min(self._file.size, LARGEST_HEADER):
            raise CheckpointError("truncated or malformed: its header does not end", file=self._file.path)
        while len(self._buffer) < count:
            more = min(max(_PIECE, count), self._file.size - self._at)
            self._buffer += bytes(self._file.read(self._at, more))
            self._at += more
        found, self._buffer = self._buffer[:count], self._buffer[count:]
        return found

    def number(self, code: str) -> Any:
        """A number of a `struct` code."""
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def text(self, code: str = "Q") -> str:
        """A text after its length."""
        length = self.number(code)
        if not 0 <= length <= _MOST:
            raise CheckpointError(f"malformed: a text of {length:,} bytes", file=self._file.path)
        return self.take(length).decode("utf-8", "backslashreplace")


def read_gguf(file: SourceFile) -> Gguf:
    """Read and check the header of `file`; raises CheckpointError."""
    cursor = Cursor(file)
    if cursor.take(4) != MAGIC:
        raise CheckpointError("not a GGUF file", file=file.path)
    version, tensors, pairs = cursor.number("I"), cursor.number("Q"), cursor.number("Q")
    if version not in (2, 3) or max(tensors, pairs) > _MOST:
        raise CheckpointError(f"a GGUF file of version {version}, which is not read", file=file.path)
    known = {cursor.text(): _value(cursor, cursor.number("I"), file) for _ in range(pairs)}
    infos = [_info(cursor, file) for _ in range(tensors)]
    alignment = known.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise CheckpointError(f"malformed alignment {printable(alignment)}", file=file.path)
    origin = -(-cursor.position // alignment) * alignment
    return Gguf(known, {name: GgufTensor(name, shape, kind, origin + at) for name, shape, kind, at in infos})


def _value(cursor: Cursor, kind: int, file: SourceFile, depth: int = 0) -> Any:
    if kind == _TEXT:
        return cursor.text()
    if kind in _NUMBERS:
        return cursor.number(_NUMBERS[kind])
    if kind != _ARRAY or depth > 2:
        raise CheckpointError(f"malformed: a value of the unknown type {kind}", file=file.path)
    inner, count = cursor.number("I"), cursor.number("Q")
    if count > _MOST:
        raise CheckpointError(f"malformed: a list of {count:,} values", file=file.path)
    return [_value(cursor, inner, file, depth + 1) for _ in range(count)]


def _info(cursor: Cursor, file: SourceFile) -> tuple[str, tuple[int, ...], int, int]:
    name, count = cursor.text(), cursor.number("I")
    if count > 8:
        raise CheckpointError(f"impossible shape: {count:,} dimensions", file=file.path, tensor=name)
    shape = tuple(cursor.number("Q") for _ in range(count))[::-1]
    if math.prod(max(size, 1) for size in shape) > 1 << 48:
        raise CheckpointError(f"impossible shape {printable(shape)}", file=file.path, tensor=name)
    return name, shape, cursor.number("I"), cursor.number("Q")
