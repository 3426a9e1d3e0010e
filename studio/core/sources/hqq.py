"""HQQ: integers as `W_q`, in slices that share bytes, with floats as zeros; what they are lies beside as tensors."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.errors import CheckpointError
from studio.core.model import LONGEST_ROW, Stored
from studio.core.names import printable
from studio.core.sources.declared import Section
from studio.core.sources.found import Found, MisfitError, MissingPartError, Unread, UnreadError, beside, found_or_unread
from studio.core.sources.packed import PackedSource
from studio.core.sources.plain import read_elements
from studio.core.sources.sliced import Sliced

CODES, SCALES, ZEROS, SHAPE, PACKING, AS_FLOAT = "W_q", "scale", "zero", "shape", "packing", "view_as_float"
SETTINGS = (
    *("nbits", "group_size", "axis", "unpack_view_dtype", "quant_scale", "quant_zero", "compute_dtype"),
    *("offload_meta", "encoded_state_dict", "stores_quant_config", "channel_wise", "optimize", "round_zero"),
)
"""What is beside codes, and is not needed."""

_PACKINGS: Mapping[str, tuple[str, int, tuple[int, ...]]] = {
    "8bit_u8": ("U8", 8, (0,)),
    "4bit_u8": ("U8", 4, (4, 0)),
    "3bit_32": ("I32", 3, tuple(range(27, -1, -3))),
    "2bit_u8": ("U8", 2, (6, 4, 2, 0)),
    "1bit_u8": ("U8", 1, tuple(range(7, -1, -1))),
}
"""Name of a packing -> dtype of the words, bits, how many bits are below each slice. Source: BitPack of hqq 0.2.8."""

_LONGEST_NAME = 64
_MAKER = "HQQ"


def detect(stored: Mapping[str, Stored], _sections: Sequence[Section]) -> Iterator[Found | Unread]:
    """See `Detector`."""
    for name, codes in stored.items():
        path, _, leaf = name.rpartition(".")
        if leaf != CODES:
            continue
        others = beside(stored, path, (SCALES, ZEROS, SHAPE, PACKING, AS_FLOAT, *SETTINGS))
        yield found_or_unread(f"{path}.weight", _MAKER, codes, others, partial(_source, codes, others))


def _source(codes: Stored, others: Mapping[str, Stored]) -> PackedSource:
    if missing := [part for part in (SCALES, ZEROS, SHAPE, PACKING) if part not in others]:
        raise MissingPartError(f"{CODES} without {' and '.join(missing)}")
    scales, zeros, (rows, columns) = others[SCALES], others[ZEROS], _shape(others[SHAPE])
    packing = _text(others[PACKING])
    dtype, bits, shifts = _PACKINGS.get(packing, ("", 0, ()))
    if dtype != codes.tensor.dtype or (AS_FLOAT in others and _number(others[AS_FLOAT])):
        raise UnreadError(f"{CODES} of {codes.tensor.dtype} packed as {printable(packing)}")
    across, count = codes.tensor.shape[-1] if codes.tensor.shape else 0, math.prod(scales.tensor.shape)
    turned = scales.tensor.shape[:1] == (1,) and count == across
    group = rows * columns // count if count and rows * columns % count == 0 else 0
    words = math.prod(codes.tensor.shape)
    fits = group and len(codes.tensor.shape) == 2 and -(-group * count // len(shifts)) <= words
    if not fits or words * len(shifts) >= group * count + len(shifts) * across or not (turned or group == across):
        shapes = " with ".join(printable(list(part.tensor.shape)) for part in (codes, scales))
        raise MisfitError(f"{CODES} {shapes} scales for {[rows, columns]} weights of {bits} bits")
    if (scales.tensor.dtype, scales.tensor.shape) != (zeros.tensor.dtype, zeros.tensor.shape):
        raise UnreadError(f"scales and zeros of {scales.tensor.dtype} and {zeros.tensor.dtype}")
    if scales.tensor.dtype not in WEIGHT_DTYPES:
        raise UnreadError(f"scales of {scales.tensor.dtype}, as codes of their own")
    encoding = Sliced(columns, bits, codes, shifts, scales, zeros, group, count, _MAKER, turned)
    return PackedSource(encoding, (rows, columns), scales.tensor.dtype)


def _shape(stored: Stored) -> tuple[int, int]:
    if (stored.tensor.dtype, stored.tensor.shape) not in (("I64", (2,)), ("I32", (2,))):
        raise UnreadError(f"{SHAPE} of {stored.tensor.dtype} {printable(list(stored.tensor.shape))}")
    rows, columns = (int(side) for side in _read(stored))
    if not 0 < rows < 1 << 40 or not 0 < columns <= LONGEST_ROW:
        raise UnreadError(f"weights of the shape {[rows, columns]}")
    return rows, columns


def _text(stored: Stored) -> str:
    if stored.tensor.dtype != "U8" or not 0 < stored.tensor.nbytes <= _LONGEST_NAME:
        raise UnreadError(f"{PACKING} of {stored.tensor.dtype} {printable(list(stored.tensor.shape))}")
    return bytes(_read(stored)).decode("utf-8", "replace")


def _number(stored: Stored) -> int:
    if stored.tensor.dtype != "U8" or stored.tensor.nbytes != 1:
        raise UnreadError(f"{stored.tensor.name.rpartition('.')[2]} of {stored.tensor.dtype}")
    return int(_read(stored)[0])


def _read(stored: Stored) -> Sequence[int]:
    try:
        found: Sequence[int] = read_elements(stored, 0, math.prod(stored.tensor.shape)).tolist()
    except CheckpointError as error:
        raise UnreadError(f"{stored.tensor.name.rpartition('.')[2]}: {error.what}") from None
    return found
