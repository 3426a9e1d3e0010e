"""compressed-tensors: integers packed as `weight_packed`, or in 8 bits each as `weight`."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.counting import counted
from studio.core.errors import CheckpointError
from studio.core.model import LONGEST_ROW, Stored
from studio.core.names import printable
from studio.core.sources.declared import Section, formats, group_weights
from studio.core.sources.found import Found, MisfitError, MissingPartError, Unread, UnreadError, beside, found_or_unread
from studio.core.sources.integers import Integers, group_of, scale_table
from studio.core.sources.packed import PackedSource
from studio.core.sources.plain import read_elements
from studio.core.sources.tables import WORD, Along, Codes, Down, Packing, Signed, Table

PACKED, PLAIN, SCALES, ZEROS = "weight_packed", "weight", "weight_scale", "weight_zero_point"
SHAPE, ORDER = "weight_shape", "weight_g_idx"
_MAKER = "compressed-tensors"
_PLAIN_FORMATS = {"int-quantized", "naive-quantized"}
_WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8)
_TOLD_APART = (1, 2, 4, 8)
"""Widths whose codes lie in words as they lie in a stream."""


@dataclass(frozen=True, slots=True)
class _Said:
    """What a config says of integers: widths, sizes of groups, whether all have zero points, whether some are plain."""

    bits: frozenset[int]
    groups: frozenset[int]
    asymmetric: bool
    plain: bool


def detect(stored: Mapping[str, Stored], sections: Sequence[Section]) -> Iterator[Found | Unread]:
    """See `Detector`; integers of 8 bits each under `weight` are believed where the config speaks of some."""
    said = _said(sections)
    for name, codes in stored.items():
        path, _, leaf = name.rpartition(".")
        if not _is_code(leaf, codes, stored.get(f"{path}.{SCALES}"), said):
            continue
        others = beside(stored, path, (SCALES, ZEROS, SHAPE, ORDER))
        read = partial(_packed if leaf == PACKED else _plain, codes, others, said)
        yield found_or_unread(f"{path}.weight", _MAKER, codes, others, read)


def _is_code(leaf: str, codes: Stored, scales: Stored | None, said: _Said) -> bool:
    if (leaf, codes.tensor.dtype) == (PLAIN, "I8"):
        return said.plain and scales is not None and scales.tensor.dtype in WEIGHT_DTYPES
    return (leaf, codes.tensor.dtype) == (PACKED, "I32")


def _said(sections: Sequence[Section]) -> _Said:
    weights = [content for content in group_weights(sections) if content.get("type", "int") == "int"]
    bits = frozenset(bits for content in weights if type(bits := content.get("num_bits")) is int and bits in _WIDTHS)
    return _Said(
        bits,
        frozenset(size for content in weights if type(size := content.get("group_size")) is int and size > 0),
        bool(weights) and all(content.get("symmetric") is False for content in weights),
        8 in bits or not _PLAIN_FORMATS.isdisjoint(formats(sections)),
    )


def _packed(codes: Stored, others: Mapping[str, Stored], said: _Said) -> PackedSource:
    if SCALES not in others:
        raise MissingPartError(f"packed integers without {SCALES}")
    *rows, words = codes.tensor.shape or (0,)
    if not rows or not codes.tensor.nbytes:
        raise UnreadError(f"packed integers {list(codes.tensor.shape)}")
    scales = scale_table(others[SCALES], rows)
    columns = _columns(words, scales.width, rows, others, said)
    packing = _packing(columns, words, said.bits)
    along = Along(Table(codes, math.prod(rows), words), packing, columns)
    return _source(along, packing, scales, (*rows, columns), others, said)


def _plain(codes: Stored, others: Mapping[str, Stored], said: _Said) -> PackedSource:
    *rows, columns = codes.tensor.shape or (0,)
    if not rows or not codes.tensor.nbytes or columns > LONGEST_ROW:
        raise UnreadError(f"integers {list(codes.tensor.shape)}")
    scales = scale_table(others[SCALES], rows)
    if scales.width > 1 and not said.groups:
        raise UnreadError(f"I8 with {scales.width} scales a row, of which no config says the groups")
    signed = Signed(Table(codes, math.prod(rows), columns))
    return _source(signed, Packing(8), scales, (*rows, columns), others, said)


def _source(
    codes: Codes, packing: Packing, scales: Table, shape: tuple[int, ...], others: Mapping[str, Stored], said: _Said
) -> PackedSource:
    columns = shape[-1]
    group = group_of(columns, scales.width, said.groups)
    zeros = _zeros(packing, scales, shape[:-1], others.get(ZEROS), said)
    order = others.get(ORDER)
    if order and (order.tensor.dtype, order.tensor.shape) != ("I32", (columns,)):
        raise MisfitError(f"{ORDER} of {order.tensor.dtype} {list(order.tensor.shape)}")
    stated = _usable(others.get(SHAPE), len(shape))
    encoding = Integers(columns, packing.bits, group, codes, scales, zeros, _MAKER, order)
    encoding = replace(encoding, stated=stated, rows=shape[:-1])
    return PackedSource(encoding, shape, scales.stored.tensor.dtype)


def _usable(stated: Stored | None, dimensions: int) -> Stored | None:
    """The shape that a module states; raises UnreadError for one of another kind."""
    if stated and (stated.tensor.dtype not in ("I32", "I64") or stated.tensor.shape != (dimensions,)):
        raise UnreadError(f"{SHAPE} of {stated.tensor.dtype} {list(stated.tensor.shape)}")
    return stated


def _columns(words: int, groups: int, rows: Sequence[int], others: Mapping[str, Stored], said: _Said) -> int:
    """Weights of a row: whole groups where the config tells them, else as `weight_shape` says."""
    told = {size * groups for size in said.groups if said.bits and groups > 1}
    fitting = [columns for columns in told if any(_holds(columns, words, bits) for bits in said.bits)]
    columns = fitting[0] if len(fitting) == 1 else _stored_columns(rows, others.get(SHAPE))
    if not 0 < columns <= LONGEST_ROW:
        raise UnreadError(f"packed integers in rows of {counted(columns, 'weight')}")
    return columns


def _stored_columns(rows: Sequence[int], shape: Stored | None) -> int:
    """What `weight_shape` says, a number for each dimension."""
    known = _usable(shape, len(rows) + 1)
    if known is None:
        raise MissingPartError(f"packed integers without {SHAPE}")
    try:
        *stated, columns = read_elements(known, 0, len(rows) + 1).tolist()
    except CheckpointError as error:
        raise UnreadError(f"{SHAPE}: {error.what}") from None
    if stated != list(rows):
        raise MisfitError(f"rows {list(rows)}, but {SHAPE} says {printable(stated)}")
    return int(columns)


def _holds(columns: int, words: int, bits: int) -> bool:
    return words in (Packing(bits).words(columns), _in_words(bits).words(columns))


def _in_words(bits: int) -> Packing:
    """As many codes to a word as it holds whole, as older releases packed them."""
    return Packing(bits, tuple(range(WORD // bits)))


def _packing(columns: int, words: int, said: frozenset[int]) -> Packing:
    """The packing that gives so many words to a row. Raises UnreadError when there is not exactly one."""
    streams = [Packing(bits) for bits in said or _WIDTHS]
    older = [_in_words(bits) for bits in said or _WIDTHS if bits not in _TOLD_APART and columns > WORD // bits]
    fitting = [packing for packing in (*streams, *older) if packing.words(columns) == words]
    if len(fitting) != 1:
        raise MisfitError(f"{columns} integers in {words} words: {' or '.join(map(str, fitting)) or 'of no width'}")
    return fitting[0]


def _zeros(packing: Packing, scales: Table, rows: Sequence[int], zeros: Stored | None, said: _Said) -> Codes | int:
    """The codes of weight zero: packed down the rows like codes, or in 8 bits each beside the scales."""
    half = 1 << (packing.bits - 1)
    if zeros is None:
        if said.asymmetric:
            raise MissingPartError(f"integers without the {ZEROS} that the config speaks of")
        return half
    *slices, height = rows
    dtype, shape = zeros.tensor.dtype, zeros.tensor.shape
    if dtype == "I8" and shape == scales.stored.tensor.shape:
        return Signed(Table(zeros, scales.rows, scales.width, single=scales.single), half)
    if dtype == "I32" and shape == (*slices, packing.words(height), scales.width):
        table = Table(zeros, math.prod(shape[:-1]), scales.width)
        return Down(table, packing, height)
    raise MisfitError(f"{ZEROS} of {dtype} {list(shape)} beside scales {list(scales.stored.tensor.shape)}")
