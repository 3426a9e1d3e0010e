"""GGUF: headers, little-endian, read strictly (versions 2 and 3) and written (3); what tensors hold is left to others.

The format: "GGUF", version, counts of tensors and of pairs; the pairs; for each tensor its name, dimensions (fastest
first), type and offset; then, aligned, the data. Source: docs/gguf.md of ggml.
"""

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from studio.core.containers.files import SourceFile
from studio.core.counting import counted
from studio.core.errors import CheckpointError
from studio.core.names import printable

MAGIC = b"GGUF"
LARGEST_HEADER = 100_000_000
ALIGNMENT = 32
_VERSIONS = (2, 3)
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_MOST = 1 << 24
_MOST_DIMENSIONS = 4
_LARGEST_SIZE = 1 << 48
_LARGEST_ALIGNMENT = 1 << 20
_SMALLEST = {_TEXT: 8, _ARRAY: 12} | {kind: struct.calcsize(code) for kind, code in _NUMBERS.items()}
"""Bytes that a value of each type takes at least."""
_PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class GgmlType:
    """A type of tensors: rows are cut into blocks of `weights` values, which take `nbytes` bytes each."""

    name: str
    weights: int
    nbytes: int


_TYPES = """
0 F32 1 4, 1 F16 1 2, 2 Q4_0 32 18, 3 Q4_1 32 20, 6 Q5_0 32 22, 7 Q5_1 32 24, 8 Q8_0 32 34, 9 Q8_1 32 36,
10 Q2_K 256 84, 11 Q3_K 256 110, 12 Q4_K 256 144, 13 Q5_K 256 176, 14 Q6_K 256 210, 15 Q8_K 256 292,
16 IQ2_XXS 256 66, 17 IQ2_XS 256 74, 18 IQ3_XXS 256 98, 19 IQ1_S 256 50, 20 IQ4_NL 32 18, 21 IQ3_S 256 110,
22 IQ2_S 256 82, 23 IQ4_XS 256 136, 24 I8 1 1, 25 I16 1 2, 26 I32 1 4, 27 I64 1 8, 28 F64 1 8,
29 IQ1_M 256 56, 30 BF16 1 2, 34 TQ1_0 256 54, 35 TQ2_0 256 66, 39 MXFP4 32 17, 40 NVFP4 64 36, 41 Q1_0 128 18,
42 Q2_0 64 18
"""
TYPES: Mapping[int, GgmlType] = {
    int(number): GgmlType(name, int(weights), int(nbytes))
    for number, name, weights, nbytes in map(str.split, _TYPES.split(","))
}
"""By number. Source: ggml.h and ggml-common.h of llama.cpp 0c1e57098."""

_NUMBER_OF = {kind.name: number for number, kind in TYPES.items()}
TYPE_OF: Mapping[str, GgmlType] = {kind.name: kind for kind in TYPES.values()}
"""By name."""


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A stored tensor: `shape` slowest first; `start` and `nbytes` count bytes from the start of the file."""

    name: str
    shape: tuple[int, ...]
    type: GgmlType
    start: int

    @property
    def nbytes(self) -> int:
        """Bytes of its blocks."""
        return math.prod(self.shape) // self.type.weights * self.type.nbytes


@dataclass(frozen=True, slots=True)
class Gguf:
    """The checked header of one file. Texts that are not UTF-8 hold their odd bytes as half surrogates."""

    pairs: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]


class Cursor:
    """Reads little-endian values one after the other; raises CheckpointError where the file ends."""

    def __init__(self, file: SourceFile) -> None:
        self._file, self._at, self._buffer, self._done = file, 0, b"", 0

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return self._at - len(self._buffer) + self._done

    def check_left(self, count: int) -> None:
        """Raise CheckpointError when fewer than `count` bytes are left for the header."""
        if self.position + count > min(self._file.size, LARGEST_HEADER):
            raise CheckpointError("truncated or malformed: its header does not end", file=self._file.path)

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if len(self._buffer) - self._done < count:
            self._fetch(count)
        self._done += count
        return self._buffer[self._done - count : self._done]

    def _fetch(self, count: int) -> None:
        self.check_left(count)
        kept = self._buffer[self._done :]
        more = min(max(_PIECE, count - len(kept)), self._file.size - self._at)
        self._buffer, self._done = kept + bytes(self._file.read(self._at, more)), 0
        self._at += more

    def number(self, code: str) -> Any:
        """A number of a `struct` code."""
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def numbers(self, code: str, count: int) -> list[Any]:
        """`count` numbers of a `struct` code."""
        return list(struct.unpack(f"<{count}{code}", self.take(count * struct.calcsize(f"<{code}"))))

    def text(self) -> str:
        """A text after its length."""
        length = self.number("Q")
        if length > _MOST:
            raise CheckpointError(f"malformed: a text of {length:,} bytes", file=self._file.path)
        return self.take(length).decode("utf-8", "surrogateescape")


def read_gguf(file: SourceFile) -> Gguf:
    """Read and check the header of `file`; raises CheckpointError."""
    cursor = Cursor(file)
    if file.size < len(MAGIC) or cursor.take(4) != MAGIC:
        raise CheckpointError("not a GGUF file", file=file.path)
    version = cursor.number("I")
    if version not in _VERSIONS:
        big = int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS
        kind = "a big-endian GGUF file" if big else f"a GGUF file of version {version}"
        raise CheckpointError(f"{kind}, which is not read", file=file.path)
    tensors, pairs = cursor.number("Q"), cursor.number("Q")
    if max(tensors, pairs) > _MOST:
        raise CheckpointError(f"malformed: {counted(tensors, 'tensor')} and {counted(pairs, 'pair')}", file=file.path)
    known = _pairs(cursor, pairs, file)
    infos = [_info(cursor, file) for _ in range(tensors)]
    alignment = _alignment(known, file)
    origin = -(-cursor.position // alignment) * alignment
    return Gguf(known, _placed(infos, origin, alignment, file))


def _pairs(cursor: Cursor, count: int, file: SourceFile) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(count):
        key = cursor.text()
        if key in found:
            raise CheckpointError(f"malformed: the key {printable(key)} is there twice", file=file.path)
        found[key] = _value(cursor, cursor.number("I"), file)
    return found


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
    cursor.check_left(count * _SMALLEST.get(inner, 1))
    if inner in _NUMBERS:
        return cursor.numbers(_NUMBERS[inner], count)
    return [_value(cursor, inner, file, depth + 1) for _ in range(count)]


def _info(cursor: Cursor, file: SourceFile) -> tuple[GgufTensor, int]:
    """A tensor as its entry tells it, its start left open, and its offset in the data."""
    name, count = cursor.text(), cursor.number("I")
    if count > _MOST_DIMENSIONS:
        raise CheckpointError(f"impossible shape: {count:,} dimensions", file=file.path, tensor=name)
    shape = tuple(cursor.numbers("Q", count))[::-1]
    if math.prod(max(size, 1) for size in shape) > _LARGEST_SIZE:
        raise CheckpointError(f"impossible shape {printable(shape)}", file=file.path, tensor=name)
    number, offset = cursor.number("I"), cursor.number("Q")
    if number not in TYPES:
        raise CheckpointError(f"of the unknown type {number}", file=file.path, tensor=name)
    found = TYPES[number]
    if (shape[-1] if shape else 1) % found.weights:
        what = f"rows of {shape[-1] if shape else 1:,} values, which {found.name} has in blocks of {found.weights}"
        raise CheckpointError(what, file=file.path, tensor=name)
    return GgufTensor(name, shape, found, 0), offset


def _alignment(pairs: Mapping[str, Any], file: SourceFile) -> int:
    found = pairs.get("general.alignment", ALIGNMENT)
    if type(found) is not int or not 0 < found <= _LARGEST_ALIGNMENT or found & (found - 1):
        raise CheckpointError(f"malformed alignment {printable(found)}", file=file.path)
    return found


def _placed(
    infos: Iterable[tuple[GgufTensor, int]], origin: int, alignment: int, file: SourceFile
) -> dict[str, GgufTensor]:
    """The tensors by name in the order of their data. Raises CheckpointError for one that lies where it can not."""
    found: dict[str, GgufTensor] = {}
    end = 0
    for tensor, offset in sorted(infos, key=lambda info: (info[1], info[0].nbytes)):
        if tensor.name in found:
            raise CheckpointError("stored twice", file=file.path, tensor=tensor.name)
        if offset % alignment:
            what = f"malformed: its data is not aligned to {alignment} bytes"
            raise CheckpointError(what, file=file.path, tensor=tensor.name)
        if offset < end:
            what = f"overlap: its data starts at byte {origin + offset:,}, inside of what is before it"
            raise CheckpointError(what, file=file.path, tensor=tensor.name)
        end = offset + tensor.nbytes
        if origin + end > file.size:
            what = f"truncated: its data ends at byte {origin + end:,}, the file has {file.size:,}"
            raise CheckpointError(what, file=file.path, tensor=tensor.name, hint="download it again")
        found[tensor.name] = GgufTensor(tensor.name, tensor.shape, tensor.type, origin + offset)
    return found


def place_gguf(
    pairs: Mapping[str, Any], tensors: Iterable[tuple[str, GgmlType, tuple[int, ...]]]
) -> tuple[bytes, dict[str, GgufTensor]]:
    """Header bytes, up to the first tensor, for tensors (name, type, shape) in their order, and where each will lie.

    Whole numbers are written as uint32, lists of them as int32, other numbers as float32.
    """
    infos: list[GgufTensor] = []
    end = 0
    for name, kind, shape in tensors:
        start = -(-end // ALIGNMENT) * ALIGNMENT
        infos.append(GgufTensor(name, shape, kind, start))
        end = start + infos[-1].nbytes
    head = MAGIC + struct.pack("<IQQ", _VERSIONS[-1], len(infos), len(pairs))
    head += b"".join(_text_bytes(key) + _value_bytes(value) for key, value in pairs.items())
    head += b"".join(map(_info_bytes, infos))
    head += bytes(-len(head) % ALIGNMENT)
    return head, {info.name: GgufTensor(info.name, info.shape, info.type, len(head) + info.start) for info in infos}


def _text_bytes(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def _value_bytes(value: Any) -> bytes:
    """A value after the number of its type."""
    if isinstance(value, str):
        return struct.pack("<I", _TEXT) + _text_bytes(value)
    if isinstance(value, list):
        return struct.pack("<I", _ARRAY) + _list_bytes(value)
    kind = 7 if isinstance(value, bool) else 4 if isinstance(value, int) else 6
    return struct.pack(f"<I{_NUMBERS[kind]}", kind, value)


def _list_bytes(values: list[Any]) -> bytes:
    if all(isinstance(value, str) for value in values):
        return struct.pack("<IQ", _TEXT, len(values)) + b"".join(map(_text_bytes, values))
    return struct.pack(f"<IQ{len(values)}i", 5, len(values), *values)


def _info_bytes(tensor: GgufTensor) -> bytes:
    """`start` counts from the first tensor."""
    dimensions = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape[::-1])
    return _text_bytes(tensor.name) + dimensions + struct.pack("<IQ", _NUMBER_OF[tensor.type.name], tensor.start)
