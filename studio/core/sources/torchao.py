"""torchao: parts named after attributes of its tensors; NVFP4 and MX with scales in tiles, FP8, integers of a byte."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from kernels import FORMATS
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.model import LONGEST_ROW, Source, Stored
from studio.core.names import printable
from studio.core.sources.block_floats import block_float, check_rows, tensor_scale_of
from studio.core.sources.blocks import scales_of
from studio.core.sources.declared import Claims, Section
from studio.core.sources.found import Found, MisfitError, MissingPartError, Unread, UnreadError, beside, found_or_unread
from studio.core.sources.fp8 import FP8, ScaledFp8
from studio.core.sources.in_format import InFormat
from studio.core.sources.integers import Integers, scale_table
from studio.core.sources.orders import Tiled
from studio.core.sources.packed import PackedSource
from studio.core.sources.tables import Codes, Signed, Table

CODES, SCALES, TENSOR_SCALE = "_weight_qdata", "_weight_scale", "_weight_per_tensor_scale"
SCALES_AND_ZEROS = "_weight_scale_and_zero"
ZEROS, OF_INPUTS = "_weight_zero_point", ("_weight_act_quant_scale", "_weight_act_quant_zero_point")
_MAKER = "torchao"
_FORMATS = {
    ("U8", "F8_E4M3", False): "nvfp4-2t",
    ("U8", "F8_E4M3", True): "nvfp4-3t",
    ("U8", "F8_E8M0", False): "mxfp4",
    ("F8_E4M3", "F8_E8M0", False): "mxfp8",
}
"""By the dtypes of codes and scales, and whether there is a tensor scale."""


def detect(stored: Mapping[str, Stored], _sections: Sequence[Section]) -> Iterator[Found | Unread]:
    """See `Detector`."""
    for name, codes in stored.items():
        path, _, leaf = name.rpartition(".")
        if leaf != CODES:
            continue
        others = beside(stored, path, (SCALES, TENSOR_SCALE, ZEROS, SCALES_AND_ZEROS, *OF_INPUTS))
        yield found_or_unread(f"{path}.weight", "torchao", codes, others, partial(_source, codes, others))


def _source(codes: Stored, others: Mapping[str, Stored]) -> Source:
    if SCALES_AND_ZEROS in others:
        raise UnreadError("INT4 in the tiles of a device (tile_packed_to_4d): NVIDIA's and AMD's look alike in a file")
    if SCALES not in others:
        raise MissingPartError("codes without scales")
    scales = others[SCALES]
    if not codes.tensor.nbytes or not scales.tensor.nbytes:
        raise MisfitError(f"codes {printable(list(codes.tensor.shape))}, scales {printable(list(scales.tensor.shape))}")
    if codes.tensor.dtype == "I8":
        return _integers(codes, scales, others.get(ZEROS))
    if ZEROS in others:
        raise UnreadError(f"codes of {codes.tensor.dtype} with {ZEROS}")
    if codes.tensor.dtype == FP8 and scales.tensor.dtype in WEIGHT_DTYPES:
        return ScaledFp8(codes, scales_of(codes, scales, Claims(), input_first=False))
    return _blocks(codes, scales, others.get(TENSOR_SCALE))


def _integers(codes: Stored, scales: Stored, zeros: Stored | None) -> PackedSource:
    """(code - zero) x scale, of any width in a byte each; groups are as wide as each other."""
    if zeros and zeros.tensor.dtype in WEIGHT_DTYPES:
        raise UnreadError("INT4 of two in a byte (Int4Tensor), whose zero points are not those of other integers")
    *rows, columns = codes.tensor.shape or (0,)
    if not rows or columns > LONGEST_ROW:
        raise UnreadError(f"integers {printable(list(codes.tensor.shape))}")
    table, count = scale_table(scales, rows), math.prod(rows)
    if columns % table.width:
        raise MisfitError(f"integers of {columns:,} columns with {table.width:,} scales")
    if zeros and (zeros.tensor.dtype, zeros.tensor.shape) != ("I8", scales.tensor.shape):
        raise MisfitError(f"{ZEROS} of {zeros.tensor.dtype} {printable(list(zeros.tensor.shape))}")
    zero: Codes | int = Signed(replace(table, stored=zeros)) if zeros else 128
    signed = Signed(Table(codes, count, columns))
    encoding = Integers(columns, 8, columns // table.width, signed, table, zero, _MAKER)
    return PackedSource(encoding, (*rows, columns), scales.tensor.dtype)


def _blocks(codes: Stored, scales: Stored, third: Stored | None) -> PackedSource:
    """NVFP4 and the MX formats; the scales lie row by row, or in the tiles that a device wants."""
    *rows, width = codes.tensor.shape or (0,)
    tensor_scale = tensor_scale_of(third, "multiplier", rows) if third else None
    row = FORMATS.get(_FORMATS.get((codes.tensor.dtype, scales.tensor.dtype, tensor_scale is not None), ""))
    if row is None:
        raise UnreadError(f"codes of {codes.tensor.dtype} with scales of {scales.tensor.dtype}")
    columns = width * 8 // row.bits
    blocks, rest = divmod(columns, row.block)
    if scales.tensor.shape == (*rows, blocks) and not rest:
        return block_float(codes, scales, tensor_scale, maker=_MAKER)
    if len(rows) != 1 or rest or scales.tensor.shape != _in_tiles(rows[0], blocks):
        shapes = f"{printable(list(codes.tensor.shape))} with scales {printable(list(scales.tensor.shape))}"
        raise MisfitError(f"codes {shapes}, which lie neither in rows nor in tiles")
    tiled = InFormat(row, columns, codes, scales, tensor_scale=tensor_scale, maker=_MAKER, scale_order=Tiled())
    check_rows(tiled, (*rows, columns))
    return PackedSource(tiled, (*rows, columns))


def _in_tiles(rows: int, blocks: int) -> tuple[int, int]:
    """The shape in which torchao stores the tiles of rows x blocks scales."""
    return 32 * -(-rows // 128), 16 * -(-blocks // 4)
