"""torchao: parts named after attributes of its tensors; NVFP4 with scales in tiles, FP8, integers of a byte each."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from kernels import FORMATS
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.model import LONGEST_ROW, Source, Stored
from studio.core.names import printable
from studio.core.sources.block_floats import block_float, check_rows, tensor_scale_of
from studio.core.sources.blocks import scales_of
from studio.core.sources.declared import Claims, Section
from studio.core.sources.found import Found, Unread, UnreadError, beside
from studio.core.sources.fp8 import FP8, ScaledFp8
from studio.core.sources.in_format import InFormat
from studio.core.sources.integers import Integers, scale_table
from studio.core.sources.orders import Tiled
from studio.core.sources.packed import PackedSource
from studio.core.sources.tables import Codes, Signed, Table

CODES, SCALES, TENSOR_SCALE = "_weight_qdata", "_weight_scale", "_weight_per_tensor_scale"
ZEROS, OF_INPUTS = "_weight_zero_point", ("_weight_act_quant_scale", "_weight_act_quant_zero_point")
_MAKER = "torchao"


def detect(stored: Mapping[str, Stored], _sections: Sequence[Section]) -> Iterator[Found | Unread]:
    """See `Detector`."""
    for name, codes in stored.items():
        path, _, leaf = name.rpartition(".")
        if leaf != CODES:
            continue
        others = beside(stored, path, (SCALES, TENSOR_SCALE, ZEROS, *OF_INPUTS))
        parts = (name, *(part.tensor.name for part in others.values()))
        try:
            yield Found(f"{path}.weight", _source(codes, others), parts)
        except UnreadError as error:
            yield Unread(f"{path}.weight", f"torchao: {error}", parts)


def _source(codes: Stored, others: Mapping[str, Stored]) -> Source:
    if SCALES not in others:
        raise UnreadError("codes without scales")
    scales = others[SCALES]
    if not codes.tensor.nbytes or not scales.tensor.nbytes:
        raise UnreadError(f"codes {printable(list(codes.tensor.shape))}, scales {printable(list(scales.tensor.shape))}")
    if codes.tensor.dtype == "I8":
        return _integers(codes, scales, others.get(ZEROS))
    if ZEROS in others:
        raise UnreadError(f"codes of {codes.tensor.dtype} with {ZEROS}")
    if codes.tensor.dtype == FP8 and scales.tensor.dtype in WEIGHT_DTYPES:
        return ScaledFp8(codes, scales_of(codes, scales, Claims(), input_first=False))
    return _nvfp4(codes, scales, others.get(TENSOR_SCALE))


def _integers(codes: Stored, scales: Stored, zeros: Stored | None) -> PackedSource:
    """(code - zero) x scale, of any width in a byte each; groups are as wide as each other."""
    *rows, columns = codes.tensor.shape or (0,)
    if not rows or columns > LONGEST_ROW:
        raise UnreadError(f"integers {printable(list(codes.tensor.shape))}")
    table, count = scale_table(scales, rows), math.prod(rows)
    if columns % table.width:
        raise UnreadError(f"integers of {columns:,} columns with {table.width:,} scales")
    if zeros and (zeros.tensor.dtype, zeros.tensor.shape) != ("I8", scales.tensor.shape):
        raise UnreadError(f"{ZEROS} of {zeros.tensor.dtype} {printable(list(zeros.tensor.shape))}")
    zero: Codes | int = Signed(replace(table, stored=zeros)) if zeros else 128
    signed = Signed(Table(codes, count, columns))
    encoding = Integers(columns, 8, columns // table.width, signed, table, zero, _MAKER)
    return PackedSource(encoding, (*rows, columns), scales.tensor.dtype)


def _nvfp4(codes: Stored, scales: Stored, third: Stored | None) -> PackedSource:
    *rows, width = codes.tensor.shape or (0,)
    tensor_scale = tensor_scale_of(third, "multiplier", rows) if third else None
    if scales.tensor.shape == (*rows, width // 8):
        return block_float(codes, scales, tensor_scale, maker=_MAKER)
    row = FORMATS["nvfp4-3t" if tensor_scale else "nvfp4-2t"]
    if len(rows) != 1 or scales.tensor.shape != _in_tiles(rows[0], 2 * width // row.block) or 2 * width % row.block:
        shapes = f"{printable(list(codes.tensor.shape))} with scales {printable(list(scales.tensor.shape))}"
        raise UnreadError(f"codes {shapes}, which lie neither in rows nor in tiles")
    if (codes.tensor.dtype, scales.tensor.dtype) != ("U8", "F8_E4M3") or not codes.tensor.nbytes:
        raise UnreadError(f"codes of {codes.tensor.dtype} with scales of {scales.tensor.dtype}")
    tiled = InFormat(row, 2 * width, codes, scales, tensor_scale=tensor_scale, maker=_MAKER, scale_order=Tiled())
    check_rows(tiled, (*rows, 2 * width))
    return PackedSource(tiled, (*rows, 2 * width))


def _in_tiles(rows: int, blocks: int) -> tuple[int, int]:
    """The shape in which torchao stores the tiles of rows x blocks scales."""
    return 32 * -(-rows // 128), 16 * -(-blocks // 4)
