"""Block floats: codes in bytes, blocks of which share a scale of a byte, in whatever tensors a convention has them."""

import math
from collections.abc import Sequence
from dataclasses import replace

from kernels import FORMATS
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.model import LONGEST_ROW, Stored
from studio.core.names import printable
from studio.core.sources.found import MisfitError, UnreadError
from studio.core.sources.in_format import Convention, InFormat, TensorScale
from studio.core.sources.mxfp6 import Mxfp6
from studio.core.sources.orders import Turned, Twice
from studio.core.sources.packed import Encoding, PackedSource
from studio.core.sources.scales import EXPONENTS

Shape = tuple[int, ...]

_E4M3 = ("F8_E4M3", "U8")
_CODES = ("U8", "I8")
_NVFP4, _MXFP4, _MXFP6, _MXFP8 = 8, 16, 24, 32
"""Bytes of codes that share a scale."""

_NAMES = {_MXFP4: "mxfp4", _MXFP8: "mxfp8"}


def block_float(
    codes: Stored, scales: Stored, tensor_scale: TensorScale | None = None, *, maker: str, may_turn: bool = False
) -> PackedSource:
    """The weights that codes [..., outputs, bytes] and their scales [..., outputs, blocks] are.

    Low nibbles come first. Two tiers or three of NVFP4, MXFP4, MXFP6, or MXFP8 are told by dtypes and shapes. may_turn:
    a stack may be stored [experts, bytes, outputs] instead, for weights that a plain checkpoint holds as [experts,
    inputs, outputs]. Raises UnreadError for what can not be told for certain.
    """
    shape, blocks, turned = codes.tensor.shape, scales.tensor.shape, False
    if may_turn and len(shape) == len(blocks) == 3 and shape[::2] == blocks[::2] and shape[1] != blocks[1]:
        shape, blocks, turned = _swapped(shape), _swapped(blocks), True
    nbytes = _bytes_of_block(shape, blocks, codes, scales)
    encoding = _encoding(nbytes, blocks[-1], codes, scales, tensor_scale, maker)
    whole = (*shape[:-1], encoding.columns)
    check_rows(encoding, whole)
    if not turned:
        return PackedSource(encoding, whole)
    if not isinstance(encoding, InFormat):
        raise UnreadError(f"{encoding.meaning}, in a stack that is stored with its inputs first")
    order = Turned(whole[1])
    return PackedSource(replace(encoding, order=order, scale_order=order), _swapped(whole), turned=True)


def check_rows(encoding: Encoding, shape: Shape) -> None:
    """Raise UnreadError for rows that are longer than a slab may be, in either direction of a matrix."""
    if max(shape[-2:]) > LONGEST_ROW:
        raise UnreadError(f"{encoding.meaning}, in rows of more than {LONGEST_ROW:,} weights")


def tensor_scale_of(
    stored: Stored, convention: Convention, rows: Sequence[int], *, by_half: bool = False
) -> TensorScale:
    """The tensor scales of weights with `rows` [..., outputs]: one for all, or in a stack one for every expert.

    by_half: or two for every expert, whose outputs are those of a gate and of what it gates. Raises UnreadError.
    """
    tensor = stored.tensor
    if tensor.dtype not in WEIGHT_DTYPES:
        raise UnreadError(f"tensor scale of {tensor.dtype}")
    count = math.prod(tensor.shape)
    if count == 1:
        return TensorScale(stored, convention)
    stack = len(rows) == 2 and tensor.shape[:1] == tuple(rows[:1])
    if stack and count == rows[0]:
        return TensorScale(stored, convention, rows[1])
    if by_half and stack and tensor.shape[1:] == (2,) and rows[1] % 2 == 0:
        return TensorScale(stored, convention, rows[1] // 2)
    raise MisfitError(f"{printable(list(tensor.shape))} tensor scales of {printable(list(rows))} rows")


def with_inputs(source: PackedSource, scale: Stored | None, convention: Convention) -> PackedSource:
    """A source with the scale of its inputs, where there is one number in float32 for all of it."""
    if scale is None or scale.tensor.dtype != "F32" or math.prod(scale.tensor.shape) != 1:
        return source
    return replace(source, inputs=TensorScale(scale, convention))


def input_parts(source: PackedSource) -> tuple[str, ...]:
    """The name of the tensor that holds the scale of the inputs, if any does."""
    return (source.inputs.stored.tensor.name,) if source.inputs else ()


def _swapped(shape: Shape) -> Shape:
    return shape[0], shape[2], shape[1]


def _bytes_of_block(shape: Shape, blocks: Shape, codes: Stored, scales: Stored) -> int:
    """How many bytes of a row share a scale."""
    fits = len(shape) > 1 and shape[:-1] == blocks[:-1] and all(shape) and all(blocks)
    if not fits or shape[-1] % blocks[-1]:
        raise MisfitError(_both(codes, scales))
    return shape[-1] // blocks[-1]


def _encoding(
    nbytes: int, blocks: int, codes: Stored, scales: Stored, tensor_scale: TensorScale | None, maker: str
) -> Encoding:
    kinds = codes.tensor.dtype, scales.tensor.dtype
    if nbytes == _NVFP4 and kinds[0] == "U8" and kinds[1] in _E4M3[: 2 if tensor_scale else 1]:
        row = FORMATS["nvfp4-3t" if tensor_scale else "nvfp4-2t"]
        return InFormat(row, blocks * row.block, codes, scales, tensor_scale=tensor_scale, maker=maker)
    if nbytes == _MXFP4 and kinds == ("U8", "F8_E4M3") and tensor_scale:
        halves = 2 * blocks * FORMATS["nvfp4-3t"].block
        return InFormat(
            FORMATS["nvfp4-3t"], halves, codes, scales, tensor_scale=tensor_scale, maker=maker, scale_order=Twice()
        )
    known = nbytes == _MXFP8 if kinds[0] == "F8_E4M3" else nbytes in (_MXFP4, _MXFP6) and kinds[0] in _CODES
    if tensor_scale or not known or kinds[1] not in EXPONENTS:
        raise UnreadError(_both(codes, scales, " and a tensor scale" if tensor_scale else ""))
    if nbytes == _MXFP6:
        return Mxfp6(blocks * 32, codes, scales, maker)
    return InFormat(FORMATS[_NAMES[nbytes]], blocks * 32, codes, scales, maker=maker)


def _both(codes: Stored, scales: Stored, more: str = "") -> str:
    first, second = (f"{part.tensor.dtype} {printable(list(part.tensor.shape))}" for part in (codes, scales))
    return f"codes of {first} with scales of {second}{more}: no format of blocks that is read"
