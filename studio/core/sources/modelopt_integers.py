"""ModelOpt's integers: of eight bits with a scale per row, of four in groups with two rows in a byte."""

import math
from collections.abc import Iterator, Mapping, Sequence

from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.model import LONGEST_ROW, Stored
from studio.core.sources.declared import Section, algorithms
from studio.core.sources.found import Found, Unread, UnreadError, beside
from studio.core.sources.integers import Integers, group_of, scale_table
from studio.core.sources.packed import PackedSource
from studio.core.sources.smoothed import INPUT_FACTORS, smoothed
from studio.core.sources.tables import Codes, Pairs, Signed, Table

CODES, SCALES, SECOND = "weight", "weight_scale", "weight_scale_2"
_MAKER = "ModelOpt"
_BITS = {"I8": 8, "U8": 4}
_ALGORITHMS = {8: ("w8a16", "w8a8_sq_per_channel"), 4: ("w4a16_awq", "w4a8_awq")}


def detect(stored: Mapping[str, Stored], sections: Sequence[Section]) -> Iterator[Found | Unread]:
    """See `Detector`; integers are believed where ModelOpt's config speaks of some."""
    said = frozenset(algorithm for section in sections for algorithm in algorithms(section.content))
    known = {bits for bits, names in _ALGORITHMS.items() if not said.isdisjoint(names)}
    for name, codes in stored.items() if known else ():
        path, _, leaf = name.rpartition(".")
        scales = stored.get(f"{path}.{SCALES}") if leaf == CODES else None
        bits = _BITS.get(codes.tensor.dtype, 0)
        if scales is None or bits not in known or scales.tensor.dtype not in WEIGHT_DTYPES:
            continue
        others = beside(stored, path, (SECOND, INPUT_FACTORS))
        parts = (name, scales.tensor.name, *(part.tensor.name for part in others.values()))
        try:
            yield Found(name, smoothed(_source(codes, scales, bits), others), parts)
        except UnreadError as error:
            yield Unread(name, f"{_MAKER}: {error}", parts, error.fault)


def _source(codes: Stored, scales: Stored, bits: int) -> PackedSource:
    """`weight_scale_2`, which W4A8 has beside, is the unit of the kernel: `weight_scale` has it in it already."""
    *rows, columns = codes.tensor.shape or (0,)
    if not rows or not codes.tensor.nbytes or columns > LONGEST_ROW:
        raise UnreadError(f"integers {list(codes.tensor.shape)}")
    stored_rows = math.prod(rows)
    rows[-1] *= 8 // bits
    table = scale_table(scales, rows)
    packed = Table(codes, stored_rows, columns)
    found: Codes = Signed(packed) if bits == 8 else Pairs(packed)
    group = group_of(columns, table.width, ())
    encoding = Integers(columns, bits, group, found, table, 1 << (bits - 1), _MAKER)
    return PackedSource(encoding, (*rows, columns), "BF16")
