"""bitsandbytes: NF4 and FP4 with their state as JSON in a tensor, and the integers of LLM.int8."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from studio.core.containers.strict_json import parse_object
from studio.core.errors import CheckpointError
from studio.core.model import LONGEST_ROW, Stored
from studio.core.names import printable
from studio.core.sources.declared import Section
from studio.core.sources.found import Found, MisfitError, MissingPartError, Unread, UnreadError, beside
from studio.core.sources.integers import Integers, scale_table
from studio.core.sources.lookup import Lookup, Nested
from studio.core.sources.packed import PackedSource
from studio.core.sources.plain import read_elements
from studio.core.sources.tables import Signed, Table

WEIGHT, ROW_SCALES, WEIGHT_FORMAT = "weight", "SCB", "weight_format"
STATE, SCALES, VALUES = "quant_state.bitsandbytes__", "absmax", "quant_map"
NESTED_SCALES, NESTED_VALUES = "nested_absmax", "nested_quant_map"
_MAKER = "bitsandbytes"
_LARGEST_STATE = 4096
_MOST_DIMENSIONS = 3
_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
_MOST_OF_A_ROW = 127
_ONE_OF_THEM = float(np.float32(1 / _MOST_OF_A_ROW))
"""What bitsandbytes multiplies with where it divides by 127."""

_NF4: tuple[float, ...] = (-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0)
_NF4 += (0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0)
_FP4 = (0.0, 0.0625 / 12, 8 / 12, 1.0, 4 / 12, 6 / 12, 2 / 12, 3 / 12)
_LARGEST = float(np.finfo(np.float32).max)
_KNOWN = {"nf4": _NF4, "fp4": (*_FP4, *(-value for value in _FP4))}
"""What codes stand for: the places of values among normal numbers, or a float of four bits that is not E2M1."""


def detect(stored: Mapping[str, Stored], _sections: Sequence[Section]) -> Iterator[Found | Unread]:
    """See `Detector`."""
    for name in stored:
        path, state, kind = name.rpartition(f".{STATE}")
        if state and path in stored:
            yield _four_bits(stored, path, name, kind)
        elif name.endswith(f".{ROW_SCALES}") and f"{name.removesuffix(ROW_SCALES)}{WEIGHT}" in stored:
            yield _eight_bits(stored, name.removesuffix(f".{ROW_SCALES}"))


def _four_bits(stored: Mapping[str, Stored], weight: str, state: str, kind: str) -> Found | Unread:
    others = beside(stored, weight, (SCALES, VALUES, NESTED_SCALES, NESTED_VALUES))
    parts = (weight, state, *(part.tensor.name for part in others.values()))
    try:
        return Found(weight, _lookup(stored[weight], kind, _state(stored[state]), others), parts)
    except UnreadError as error:
        return Unread(weight, f"{_MAKER}: {error}", parts, error.fault)


def _state(stored: Stored) -> Mapping[str, Any]:
    """What a state says, a text of JSON in bytes."""
    tensor = stored.tensor
    if tensor.dtype != "U8" or not 0 < tensor.nbytes <= _LARGEST_STATE:
        raise UnreadError(f"a state of {tensor.dtype} {list(tensor.shape)}")
    try:
        return parse_object(bytes(stored.file.read(tensor.start, tensor.nbytes)), file=Path(stored.file.path))
    except CheckpointError as error:
        raise UnreadError(f"its state is {error.what}") from None


def _lookup(codes: Stored, kind: str, state: Mapping[str, Any], others: Mapping[str, Stored]) -> PackedSource:
    shape, block = _shape(state), _block(state, "blocksize")
    if kind not in _KNOWN or state.get("quant_type") != kind:
        raise UnreadError(f"codes of the kind {printable(kind)}, {printable(state.get('quant_type'))} by their state")
    count = math.prod(shape)
    if codes.tensor.nbytes != -(-count // 2):
        raise MisfitError(f"{codes.tensor.nbytes:,} bytes of codes for {list(shape)} weights")
    blocks = -(-count // block)
    nested = _nested(state, others, blocks) if NESTED_SCALES in others else None
    scales = _part(others, SCALES, "U8" if nested else "F32", blocks)
    values = _part(others, VALUES, "F32", 16)
    encoding = Lookup(shape[-1], block, codes, scales, values, _KNOWN[kind], kind.upper(), _MAKER, nested)
    return PackedSource(encoding, shape, _DTYPES.get(str(state.get("dtype")), "BF16"))


def _nested(state: Mapping[str, Any], others: Mapping[str, Stored], blocks: int) -> Nested:
    block, offset = _block(state, "nested_blocksize"), state.get("nested_offset")
    if not isinstance(offset, int | float) or not abs(offset) <= _LARGEST:
        raise UnreadError(f"nested_offset {printable(offset)}")
    values = _part(others, NESTED_VALUES, "F32", 256)
    return Nested(values, _part(others, NESTED_SCALES, "F32", -(-blocks // block)), block, np.float32(offset))


def _part(others: Mapping[str, Stored], name: str, dtype: str, count: int) -> Stored:
    """A part of so many numbers; raises UnreadError where it is missing, or another one."""
    part = others.get(name)
    if part is None:
        raise MissingPartError(f"codes without {name}")
    if part.tensor.dtype != dtype or math.prod(part.tensor.shape) != count:
        raise MisfitError(f"{name} of {part.tensor.dtype} {list(part.tensor.shape)}, not of {count:,} {dtype}")
    return part


def _shape(state: Mapping[str, Any]) -> tuple[int, ...]:
    shape = state.get("shape")
    if not isinstance(shape, list) or not 0 < len(shape) <= _MOST_DIMENSIONS or not all(map(_is_size, shape)):
        raise UnreadError(f"weights of the shape {printable(shape)}")
    if shape[-1] > LONGEST_ROW:
        raise UnreadError(f"rows of more than {LONGEST_ROW:,} weights")
    return tuple(shape)


def _block(state: Mapping[str, Any], key: str) -> int:
    block = state.get(key)
    if not _is_size(block):
        raise UnreadError(f"{key} {printable(block)}")
    return block


def _is_size(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 < value < 1 << 40


def _eight_bits(stored: Mapping[str, Stored], path: str) -> Found | Unread:
    """LLM.int8: weight = code x the largest of its row / 127."""
    others = beside(stored, path, (WEIGHT, ROW_SCALES, WEIGHT_FORMAT))
    parts = tuple(part.tensor.name for part in others.values())
    try:
        return Found(f"{path}.{WEIGHT}", _of_rows(others), parts)
    except UnreadError as error:
        return Unread(f"{path}.{WEIGHT}", f"{_MAKER} LLM.int8: {error}", parts, error.fault)


def _of_rows(others: Mapping[str, Stored]) -> PackedSource:
    codes, scales = others[WEIGHT], others[ROW_SCALES]
    shape, dtypes = codes.tensor.shape, (codes.tensor.dtype, scales.tensor.dtype)
    if dtypes != ("I8", "F32") or len(shape) != 2 or 0 in shape or shape[1] > LONGEST_ROW:
        raise UnreadError(f"{dtypes[0]} {list(shape)} with scales of {dtypes[1]}")
    if WEIGHT_FORMAT in others and _number(others[WEIGHT_FORMAT]):
        raise UnreadError("codes in the tiles of a device, which are not read")
    rows, columns = shape
    table = scale_table(scales, (rows,))
    signed = Signed(Table(codes, rows, columns))
    encoding = Integers(columns, 8, columns, signed, table, 128, _MAKER, factor=_ONE_OF_THEM)
    return PackedSource(encoding, shape, "F16")


def _number(stored: Stored) -> int:
    if stored.tensor.dtype != "U8" or stored.tensor.nbytes != 1:
        raise UnreadError(f"{WEIGHT_FORMAT} of {stored.tensor.dtype} {list(stored.tensor.shape)}")
    try:
        return int(read_elements(stored, 0, 1)[0])
    except CheckpointError as error:
        raise UnreadError(f"{WEIGHT_FORMAT}: {error.what}") from None
