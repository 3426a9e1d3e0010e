"""MLX: codes as uint32 under `weight`, `scales`, and `biases` for integers; bits and groups by shapes and config."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kernels import FORMATS, Format
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.model import Stored
from studio.core.sources.declared import Section
from studio.core.sources.found import Found, Unread, UnreadError
from studio.core.sources.in_format import InFormat, TensorScale
from studio.core.sources.packed import PackedSource

WEIGHT, SCALES, BIASES, TENSOR_SCALE = "weight", "scales", "biases", "global_scale"
_SECTIONS = ("quantization", "quantization_config")
_BLOCK_FLOATS = {FORMATS[name].bits * FORMATS[name].block: name for name in ("nvfp4-2t", "mxfp4", "mxfp8")}
"""Formats with a byte per block, by the bits of the codes of a block."""


def detect(stored: Mapping[str, Stored], sections: Sequence[Section]) -> Iterator[Found | Unread]:
    """See `Detector`."""
    settings = next((s.content for s in sections if s.place in _SECTIONS and "group_size" in s.content), {})
    for name, scales in stored.items():
        path, _, leaf = name.rpartition(".")
        codes = stored.get(f"{path}.{WEIGHT}") if leaf == SCALES else None
        if codes is None or codes.tensor.dtype != "U32" or scales.tensor.dtype not in ("U8", *WEIGHT_DTYPES):
            continue
        beside = {part: stored[f"{path}.{part}"] for part in (BIASES, TENSOR_SCALE) if f"{path}.{part}" in stored}
        parts = tuple(part.tensor.name for part in (codes, scales, *beside.values()))
        try:
            yield Found(codes.tensor.name, _source(path, codes, scales, beside, settings), parts)
        except UnreadError as error:
            yield Unread(codes.tensor.name, str(error), parts)


def _source(
    path: str, codes: Stored, scales: Stored, beside: Mapping[str, Stored], settings: Mapping[str, Any]
) -> PackedSource:
    *rows, words = codes.tensor.shape
    *others, blocks = scales.tensor.shape
    if rows != others or not rows or not blocks or 32 * words % blocks:
        raise UnreadError(f"MLX codes {list(codes.tensor.shape)} with scales {list(scales.tensor.shape)}")
    row = _format(path, scales, beside, 32 * words // blocks, settings)
    columns = blocks * row.block
    third = beside.get(TENSOR_SCALE)
    if third is None:
        encoding = InFormat(row, columns, codes, scales, beside.get(BIASES))
    else:
        many = third.tensor.shape == tuple(rows[:1]) and len(rows) == 2
        scale = TensorScale(third, "amax", rows[-1] if many else 0)
        encoding = InFormat(FORMATS["nvfp4-3t"], columns, codes, scales, tensor_scale=scale)
    kept = scales.tensor.dtype if row.affine else "BF16"
    return PackedSource(encoding, (*rows, columns), kept)


def _format(
    path: str, scales: Stored, beside: Mapping[str, Stored], bits_of_block: int, settings: Mapping[str, Any]
) -> Format:
    """The format of a layer; `bits_of_block` is the number of bits of the codes that share a scale."""
    if scales.tensor.dtype == "U8":
        name = _BLOCK_FLOATS.get(bits_of_block)
        if name is None or BIASES in beside or (TENSOR_SCALE in beside and name != "nvfp4-2t"):
            raise UnreadError(f"MLX codes with {bits_of_block} bits to a scale of a byte")
        return FORMATS[name]
    own = settings.get(path)
    said = own if isinstance(own, dict) else settings
    bits, group = said.get("bits"), said.get("group_size")
    if BIASES not in beside or beside[BIASES].tensor.shape != scales.tensor.shape:
        raise UnreadError("MLX integers without their biases")
    if type(bits) is not int or type(group) is not int or bits * group != bits_of_block:
        raise UnreadError(f"MLX integers of {bits_of_block} bits to a scale, but the config says {bits} x {group}")
    known = (row for row in FORMATS.values() if row.affine and (row.bits, row.block) == (bits, group))
    row = next(known, None)
    if row is None:
        raise UnreadError(f"MLX integers of {bits} bits in groups of {group}")
    return row
