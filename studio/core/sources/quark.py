"""Quark's integers of 4 bits: int32 under `weight`, stored inputs first in AWQ's order, with a sign or without."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.model import LONGEST_ROW, Stored
from studio.core.names import printable
from studio.core.sources.declared import Section
from studio.core.sources.found import Found, Unread, UnreadError
from studio.core.sources.gptq import AWQ_ORDER, as_source, input_first
from studio.core.sources.integers import group_of
from studio.core.sources.packed import PackedSource
from studio.core.sources.tables import Packing

CODES, SCALES, ZEROS = "weight", "weight_scale", "weight_zero_point"
_METHOD = "quark"
_ORDERS = {"reorder": AWQ_ORDER, "order": tuple(range(8))}
_FLIPS = {"int4": 8, "uint4": 0}
"""By dtype the bit that turns a code with a sign to one that counts from 0."""


def detect(stored: Mapping[str, Stored], sections: Sequence[Section]) -> Iterator[Found | Unread]:
    """See `Detector`."""
    said = [s.content for s in sections if str(s.content.get("quant_method")).lower() == _METHOD]
    for name, codes in stored.items():
        path, _, leaf = name.rpartition(".")
        scales = stored.get(f"{path}.{SCALES}") if leaf == CODES and codes.tensor.dtype == "I32" else None
        if scales is None or not said:
            continue
        zeros = stored.get(f"{path}.{ZEROS}")
        parts = (name, scales.tensor.name, *([zeros.tensor.name] if zeros else []))
        try:
            yield Found(name, _source(codes, scales, zeros, said[0]), parts)
        except UnreadError as error:
            yield Unread(name, f"Quark: {error}", parts)


def _source(codes: Stored, scales: Stored, zeros: Stored | None, said: Mapping[str, Any]) -> PackedSource:
    shapes = [part.tensor.shape for part in (codes, scales, zeros) if part]
    if any(len(shape) != 2 or 0 in shape for shape in shapes) or scales.tensor.dtype not in WEIGHT_DTYPES:
        raise UnreadError(f"integers in parts of {' and '.join(map(str, map(list, shapes)))}")
    (columns, words), (groups, rows) = shapes[:2]
    if words != -(-rows // 8) or columns > LONGEST_ROW:
        raise UnreadError(f"integers {[columns, words]} with scales {[groups, rows]}")
    if zeros and (zeros.tensor.dtype, zeros.tensor.shape) != ("I32", (groups, words)):
        raise UnreadError(f"{ZEROS} of {zeros.tensor.dtype} {list(zeros.tensor.shape)}")
    order, weights = _order(said), list(_weights(said))
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


def _weights(said: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What the config says of integers of 4 bits, of all weights or of those of some modules."""
    places = [said.get("global_quant_config")]
    for some in (said.get("layer_quant_config"), said.get("layer_type_quant_config")):
        places += some.values() if isinstance(some, dict) else ()
    for weight in (place.get("weight") for place in places if isinstance(place, dict)):
        if isinstance(weight, dict) and isinstance(kind := weight.get("dtype"), str) and "int4" in kind:
            yield weight
