"""optimum-quanto: parts named after attributes of its tensors: integers of 8 bits, FP8, and fewer bits in slices."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.counting import counted
from studio.core.model import LONGEST_ROW, Source, Stored
from studio.core.names import printable
from studio.core.sources.blocks import scales_of
from studio.core.sources.declared import ROW, Claims, Section
from studio.core.sources.found import Found, MisfitError, MissingPartError, Unread, UnreadError, beside, found_or_unread
from studio.core.sources.fp8 import FP8, ScaledFp8
from studio.core.sources.integers import Integers, scale_table
from studio.core.sources.packed import PackedSource
from studio.core.sources.sliced import Sliced
from studio.core.sources.tables import Signed, Table

CODES, PACKED, SCALES, SHIFT = "weight._data", "weight._data._data", "weight._scale", "weight._shift"
OF_INPUTS = ("input_scale", "output_scale")
_MAKER = "quanto"
_SHIFTS = {2: (4, (0, 4)), 4: (2, (0, 2, 4, 6))}
"""By the codes of a byte: bits, how many are below each slice. Source: pack_weights of optimum-quanto 0.2.7."""


def detect(stored: Mapping[str, Stored], _sections: Sequence[Section]) -> Iterator[Found | Unread]:
    """See `Detector`."""
    for name, codes in stored.items():
        leaf = next((leaf for leaf in (PACKED, CODES) if name.endswith(f".{leaf}")), "")
        if not leaf:
            continue
        path = name.removesuffix(f".{leaf}")
        others = beside(stored, path, (SCALES, SHIFT, *OF_INPUTS))
        read = partial(_source, codes, others, stored.get(f"{path}.bias"))
        yield found_or_unread(f"{path}.weight", _MAKER, codes, others, read)


def _source(codes: Stored, others: Mapping[str, Stored], bias: Stored | None) -> Source:
    if SCALES not in others:
        raise MissingPartError("codes without scales")
    scales = others[SCALES]
    if scales.tensor.dtype not in WEIGHT_DTYPES or not scales.tensor.nbytes:
        raise UnreadError(f"scales of {scales.tensor.dtype} {printable(list(scales.tensor.shape))}")
    if SHIFT in others:
        return _sliced(codes, scales, others[SHIFT], bias)
    if codes.tensor.dtype == FP8:
        return ScaledFp8(codes, scales_of(codes, scales, Claims((ROW,)), input_first=False))
    return _integers(codes, scales)


def _integers(codes: Stored, scales: Stored) -> PackedSource:
    """Code x the scale of its row."""
    *rows, columns = codes.tensor.shape or (0,)
    if codes.tensor.dtype != "I8" or len(rows) != 1 or not 0 < columns <= LONGEST_ROW:
        raise UnreadError(f"codes of {codes.tensor.dtype} {printable(list(codes.tensor.shape))}")
    table = scale_table(scales, rows)
    if table.width != 1:
        raise MisfitError(f"{columns:,} columns with {table.width:,} scales")
    signed = Signed(Table(codes, rows[0], columns))
    return PackedSource(
        Integers(columns, 8, columns, signed, table, 128, _MAKER), (*rows, columns), scales.tensor.dtype
    )


def _sliced(codes: Stored, scales: Stored, shift: Stored, bias: Stored | None) -> PackedSource:
    """Codes of rows of groups; how many of these are a row of weights, biases alone tell."""
    height, group = codes.tensor.shape if len(codes.tensor.shape) == 2 else (0, 0)
    count = math.prod(scales.tensor.shape)
    bits, shifts = _SHIFTS.get(-(-count // height) if height else 0, (0, ()))
    fits = codes.tensor.dtype == "U8" and bits and group and scales.tensor.shape == (count, 1)
    if not fits or height * len(shifts) != count or (shift.tensor.shape != scales.tensor.shape):
        shapes = " with ".join(printable(list(part.tensor.shape)) for part in (codes, scales, shift))
        raise UnreadError(f"codes of {codes.tensor.dtype} {shapes} scales and shifts")
    if shift.tensor.dtype != scales.tensor.dtype:
        raise UnreadError(f"shifts of {shift.tensor.dtype}")
    if bias is None or len(bias.tensor.shape) != 1:
        raise UnreadError(f"{bits} bits without a bias: nothing tells the shape of the weights")
    rows = bias.tensor.shape[0]
    columns = count * group // rows if rows and count % rows == 0 else 0
    if not 0 < columns <= LONGEST_ROW:
        raise UnreadError(f"{counted(count, 'group')} of {counted(group, 'code')} for {counted(rows, 'row')}")
    encoding = Sliced(columns, bits, codes, shifts, scales, shift, group, count, _MAKER, less=True)
    return PackedSource(encoding, (rows, columns), scales.tensor.dtype)
