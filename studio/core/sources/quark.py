"""Quark: integers of 4 bits as int32 under `weight`, inputs first in AWQ's order, or of 8 bits each; and MXFP6."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.model import LONGEST_ROW, Stored
from studio.core.names import printable
from studio.core.sources.block_floats import check_rows
from studio.core.sources.declared import Section
from studio.core.sources.found import Found, MisfitError, Unread, UnreadError, beside, found_or_unread
from studio.core.sources.gptq import AWQ_ORDER, as_source, input_first
from studio.core.sources.integers import Integers, group_of, scale_table
from studio.core.sources.mxfp6 import Mxfp6
from studio.core.sources.packed import PackedSource
from studio.core.sources.scales import EXPONENTS
from studio.core.sources.tables import Codes, Packing, Signed, Table

CODES, SCALES, ZEROS = "weight", "weight_scale", "weight_zero_point"
_METHOD = "quark"
_ORDERS = {"reorder": AWQ_ORDER, "order": tuple(range(8))}
_SIX_BITS = 24
"""Bytes of 32 codes."""

_EXPONENTS = {"fp6_e2m3": 2, "fp6_e3m2": 3}
_FLIPS = {"int4": 8, "uint4": 0}
"""By dtype the bit that turns a code with a sign to one that counts from 0."""


def detect(stored: Mapping[str, Stored], sections: Sequence[Section]) -> Iterator[Found | Unread]:
    """See `Detector`."""
    said = [s.content for s in sections if str(s.content.get("quant_method")).lower() == _METHOD]
    for name, codes in stored.items():
        path, _, leaf = name.rpartition(".")
        read = _READERS.get(codes.tensor.dtype) if said and leaf == CODES else None
        scales = stored.get(f"{path}.{SCALES}")
        if read is None or scales is None or not _is_asked(codes, scales):
            continue
        others = beside(stored, path, (SCALES, ZEROS))
        source = partial(read, codes, scales, others.get(ZEROS), said[0])
        yield found_or_unread(name, "Quark", codes, others, source)


def _is_asked(codes: Stored, scales: Stored) -> bool:
    """Bytes of which 24 have an exponent are codes of six bits; others are block floats, stored alike by all makers."""
    if codes.tensor.dtype != "U8":
        return True
    width, blocks = (part.tensor.shape[-1:] or (0,) for part in (codes, scales))
    return scales.tensor.dtype in EXPONENTS and width[0] > 0 and width[0] == _SIX_BITS * blocks[0]


def _six_bits(codes: Stored, scales: Stored, zeros: Stored | None, said: Mapping[str, Any]) -> PackedSource:
    kinds = {weight["dtype"] for weight in _weights(said, "fp6")}
    if (
        zeros
        or len(kinds) != 1
        or not kinds <= _EXPONENTS.keys()
        or codes.tensor.shape[:-1] != scales.tensor.shape[:-1]
    ):
        shapes = f"{printable(list(codes.tensor.shape))} with scales {printable(list(scales.tensor.shape))}"
        raise UnreadError(f"codes of {printable(sorted(kinds))} {shapes}")
    columns = scales.tensor.shape[-1] * 32
    encoding = Mxfp6(columns, codes, scales, "Quark", _EXPONENTS[kinds.pop()])
    shape = (*codes.tensor.shape[:-1], columns)
    check_rows(encoding, shape)
    return PackedSource(encoding, shape)


def _eight_bits(codes: Stored, scales: Stored, zeros: Stored | None, _said: Mapping[str, Any]) -> PackedSource:
    """(code - zero) x scale, of all weights or of each row."""
    *rows, columns = codes.tensor.shape or (0,)
    if len(rows) != 1 or not codes.tensor.nbytes or columns > LONGEST_ROW:
        raise UnreadError(f"integers {printable(list(codes.tensor.shape))}")
    table = scale_table(scales, rows)
    if table.width > 1 or (zeros and (zeros.tensor.dtype, zeros.tensor.shape) != ("I8", scales.tensor.shape)):
        told = [f"{part.tensor.dtype} {printable(list(part.tensor.shape))}" for part in (scales, zeros) if part]
        raise MisfitError(f"integers with scales and zeros {' and '.join(told)}")
    zero: Codes | int = Signed(replace(table, stored=zeros)) if zeros else 128
    signed = Signed(Table(codes, rows[0], columns))
    return PackedSource(Integers(columns, 8, columns, signed, table, zero, "Quark"), (*rows, columns))


def _four_bits(codes: Stored, scales: Stored, zeros: Stored | None, said: Mapping[str, Any]) -> PackedSource:
    shapes = [part.tensor.shape for part in (codes, scales, zeros) if part]
    if any(len(shape) != 2 or 0 in shape for shape in shapes) or scales.tensor.dtype not in WEIGHT_DTYPES:
        raise MisfitError(f"integers in parts of {' and '.join(map(str, map(list, shapes)))}")
    (columns, words), (groups, rows) = shapes[:2]
    if words != -(-rows // 8) or columns > LONGEST_ROW:
        raise MisfitError(f"integers {[columns, words]} with scales {[groups, rows]}")
    if zeros and (zeros.tensor.dtype, zeros.tensor.shape) != ("I32", (groups, words)):
        raise MisfitError(f"{ZEROS} of {zeros.tensor.dtype} {list(zeros.tensor.shape)}")
    order, weights = _order(said), list(_weights(said, "int4"))
    kinds = {weight["dtype"] for weight in weights}
    if order not in _ORDERS or len(kinds) != 1 or not kinds <= _FLIPS.keys():
        raise UnreadError(f"integers of {printable(sorted(kinds))} in the order {printable(order)}")
    group = group_of(columns, groups, {size for weight in weights if type(size := weight.get("group_size")) is int})
    flip = _FLIPS[kinds.pop()]
    maker = f"Quark{'' if flip else ', unsigned'}{'' if order == 'reorder' else ', in order'}"
    encoding = input_first(codes, scales, zeros, Packing(4, _ORDERS[order]), group, maker, flip)
    symmetric = bool(flip) and all(weight.get("symmetric") is True for weight in weights)
    return as_source(replace(encoding, centred=symmetric), rows)


def _order(said: Mapping[str, Any]) -> str:
    export = said.get("export")
    return str(export.get("pack_method", "reorder")) if isinstance(export, dict) else "reorder"


def _weights(said: Mapping[str, Any], named: str) -> Iterator[Mapping[str, Any]]:
    """What the config says of dtypes that are named so, of all weights or of those of some modules."""
    places = [said.get("global_quant_config")]
    for some in (said.get("layer_quant_config"), said.get("layer_type_quant_config")):
        places += some.values() if isinstance(some, dict) else ()
    for weight in (place.get("weight") for place in places if isinstance(place, dict)):
        if isinstance(weight, dict) and isinstance(kind := weight.get("dtype"), str) and named in kind:
            yield weight


_READERS = {"I32": _four_bits, "I8": _eight_bits, "U8": _six_bits}
"""By dtype of the codes."""
