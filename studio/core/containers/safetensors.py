"""safetensors: an own, strict reader of headers, and the bytes of a header to write.

The format: 8 bytes of little-endian header length, a JSON object, then the tensors. Tensors must cover the rest of the
file without overlap or hole. Nothing is mapped, and no size is believed before it is checked.
"""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from sys import intern
from typing import Any

from studio.core.containers.dtypes import BITS
from studio.core.containers.files import SourceFile
from studio.core.containers.strict_json import parse_object
from studio.core.errors import CheckpointError
from studio.core.names import printable

LARGEST_HEADER = 100_000_000
_AGAIN = "download it again"
MOST_DIMENSIONS = 64
_LARGEST_SIZE = 2**63
_KEYS = {"dtype", "shape", "data_offsets"}
_WHOLE = frozenset({int})


@dataclass(frozen=True, slots=True)
class Tensor:
    """A stored tensor: where its bytes are. `start` and `nbytes` count bytes from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """The checked header of one file."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def read_header(file: SourceFile) -> Header:
    """Read and check the header of `file`; raises CheckpointError naming the file and the tensor at fault."""
    size = file.size
    with file.held():
        prefix = bytes(file.read(0, min(size, 64)))
        length = _header_length(prefix, size, file.path)
        text = bytes(file.read(8, length))
    if not text.startswith(b"{"):
        raise CheckpointError("not a safetensors file: the header does not start with '{'", file=file.path)
    entries = parse_object(text, file=file.path)
    metadata = _metadata(entries.pop("__metadata__", {}), file.path)
    data = size - 8 - length
    tensors = [_tensor(name, entry, 8 + length, data, file.path) for name, entry in entries.items()]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.nbytes))
    _check_cover(tensors, 8 + length, size, file.path)
    return Header({tensor.name: tensor for tensor in tensors}, metadata)


def _header_length(prefix: bytes, size: int, path: Path) -> int:
    if prefix.startswith(b"version https://git-lfs"):
        raise CheckpointError("a git-lfs pointer, not the file itself", file=path, hint="run: git lfs pull")
    is_object = prefix[8:9] == b"{"  # a length may begin with any byte
    if not is_object and (prefix[:2] == b"\x1f\x8b" or prefix.lstrip()[:1] == b"<"):
        kind = "gzip data" if prefix[:2] == b"\x1f\x8b" else "an HTML or XML page"
        raise CheckpointError(f"not a safetensors file: {kind}", file=path, hint=_AGAIN)
    if size < 10:
        raise CheckpointError(f"truncated: {size} bytes, too short for a safetensors file", file=path, hint=_AGAIN)
    (length,) = struct.unpack("<Q", prefix[:8])
    if length > LARGEST_HEADER:
        what = f"truncated or not a safetensors file: a header of {length:,} bytes (at most {LARGEST_HEADER:,})"
        raise CheckpointError(f"{what}, the file has {size:,}", file=path)
    if 8 + length > size:
        kind = "truncated" if is_object else "truncated or not a safetensors file"
        what = f"{kind}: the header needs {8 + length:,} bytes, the file has {size:,}"
        raise CheckpointError(what, file=path, hint=_AGAIN)
    return int(length)


def _metadata(value: Any, path: Path) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise CheckpointError("malformed header: __metadata__ must map text to text", file=path)
    return value


def _tensor(name: str, entry: Any, origin: int, data: int, path: Path) -> Tensor:
    def refuse(what: str) -> CheckpointError:
        return CheckpointError(what, file=path, tensor=name)

    if not isinstance(entry, dict) or entry.keys() != _KEYS:
        raise refuse("malformed header entry: needs dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise refuse(f"unknown dtype '{printable(dtype)}'")
    if isinstance(shape, list) and len(shape) > MOST_DIMENSIONS:
        raise refuse(f"impossible shape: {len(shape):,} dimensions")
    if not _whole_numbers(shape):
        raise refuse(f"malformed shape {printable(shape)}")
    if not _whole_numbers(offsets) or len(offsets) != 2:
        raise refuse(f"malformed data_offsets {printable(offsets)}")
    start, stop = offsets
    bits = math.prod(shape) * BITS[dtype]
    if (bits or math.prod(size for size in shape if size) * BITS[dtype]) >= 8 * _LARGEST_SIZE:
        raise refuse(f"impossible shape {printable(shape)}")
    if start > stop or bits != 8 * (stop - start):
        raise refuse(f"shape {printable(shape)} of {dtype} needs {bits / 8:,.10g} bytes, data_offsets {start}..{stop}")
    if stop > data:
        raise refuse(f"truncated: its data ends at byte {origin + stop:,}, the file has {origin + data:,}")
    return Tensor(name, intern(dtype), _shared(tuple(shape)), origin + start, stop - start)


@lru_cache(1024)
def _shared(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The same object for equal shapes: thousands of experts have one."""
    return shape


def _whole_numbers(values: Any) -> bool:
    return isinstance(values, list) and _WHOLE.issuperset(map(type, values)) and min(values, default=0) >= 0


def _check_cover(tensors: Sequence[Tensor], origin: int, size: int, path: Path) -> None:
    position = origin
    for tensor in tensors:
        if tensor.start != position:
            what = f"overlap or hole: expected its data at byte {position:,}, found {tensor.start:,}"
            raise CheckpointError(what, file=path, tensor=tensor.name)
        position += tensor.nbytes
    if position != size:
        raise CheckpointError(f"overlap or hole: {size - position:,} bytes after the last tensor", file=path)


def place(tensors: Sequence[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str]) -> tuple[bytes, Header]:
    """Header bytes for tensors (name, dtype, shape) stored in the order given, and where each will lie.

    The header is padded with spaces so that the data starts at a multiple of 64 bytes.
    """
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    sizes = [math.prod(shape) * BITS[dtype] // 8 for _, dtype, shape in tensors]
    position = 0
    for (name, dtype, shape), size in zip(tensors, sizes, strict=True):
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    origin = 8 + len(text)
    placed = {
        name: Tensor(name, dtype, shape, origin + entries[name]["data_offsets"][0], size)
        for (name, dtype, shape), size in zip(tensors, sizes, strict=True)
    }
    return struct.pack("<Q", len(text)) + text, Header(placed, dict(metadata))
