"""GGUF files written from their description, whole or damaged, without the package that the world writes them with."""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

U32, I32, F32, BOOL, TEXT, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10
_CODES = {U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q"}


@dataclass
class Info:
    """An entry of the list of tensors, and the bytes that follow."""

    name: str
    shape: tuple[int, ...]
    kind: int
    data: bytes
    offset: int | None = None


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def kind_of(value: Any) -> int:
    if isinstance(value, list):
        return ARRAY
    return {bool: BOOL, int: U32, float: F32, str: TEXT}[type(value)]


def value(item: Any) -> bytes:
    kind = kind_of(item)
    if kind == ARRAY:
        inner = I32 if item and isinstance(item[0], int) else kind_of(item[0]) if item else TEXT
        body = b"".join(text(x) if inner == TEXT else struct.pack(f"<{_CODES[inner]}", x) for x in item)
        return struct.pack("<IQ", inner, len(item)) + body
    return text(item) if kind == TEXT else struct.pack(f"<{_CODES[kind]}", item)


def pair(key: str, item: Any) -> bytes:
    return text(key) + struct.pack("<I", kind_of(item)) + value(item)


def float32(name: str, array: np.ndarray) -> Info:
    return Info(name, array.shape, 0, array.astype("<f4").tobytes())


def entry(info: Info, offset: int) -> bytes:
    dims = struct.pack(f"<I{len(info.shape)}Q", len(info.shape), *info.shape[::-1])
    return text(info.name) + dims + struct.pack("<IQ", info.kind, offset if info.offset is None else info.offset)


def gguf(pairs: dict[str, Any], infos: list[Info], *, version: int = 3, alignment: int = 32) -> bytes:
    """The bytes of a file. An offset that an entry of `infos` names is written as it is; data lie in their order."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(infos), len(pairs)) + b"".join(map(pair, pairs, pairs.values()))
    data, entries = b"", b""
    for info in infos:
        data += b"\0" * (-len(data) % alignment)
        entries += entry(info, len(data))
        data += info.data
    head += entries
    return head + b"\0" * (-len(head) % alignment) + data
