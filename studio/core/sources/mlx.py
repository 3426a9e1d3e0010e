"""MLX: codes as uint32 under `weight`, `scales`, and `biases` for integers; bits and groups by shapes and config."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from kernels import FORMATS, STORED_FORMATS, Format
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.model import LONGEST_ROW, Stored
from studio.core.sources.block_floats import tensor_scale_of
from studio.core.sources.declared import Section
from studio.core.sources.found import Found, MisfitError, MissingPartError, Unread, UnreadError, beside
from studio.core.sources.in_format import InFormat
from studio.core.sources.packed import PackedSource

WEIGHT, SCALES, BIASES, TENSOR_SCALE = "weight", "scales", "biases", "global_scale"
_MAKER = "MLX"
_SECTIONS = ("quantization", "quantization_config")
_BLOCK_FLOATS = {FORMATS[name].bits * FORMATS[name].block: name for name in ("nvfp4-2t", "mxfp4", "mxfp8")}
"""Formats with a byte per block, by the bits of the codes of a block."""

_INTEGERS = tuple(row for row in STORED_FORMATS.values() if row.affine and row.in_mlx)


def detect(stored: Mapping[str, Stored], sections: Sequence[Section]) -> Iterator[Found | Unread]:
    """See `Detector`."""
    integers = _Integers(stored, sections)
    for path, codes, scales in _modules(stored):
        others = beside(stored, path, (BIASES, TENSOR_SCALE))
        parts = tuple(part.tensor.name for part in (codes, scales, *others.values()))
        try:
            yield Found(codes.tensor.name, _source(path, codes, scales, others, integers), parts)
        except UnreadError as error:
            yield Unread(codes.tensor.name, str(error), parts, error.fault)


def _modules(stored: Mapping[str, Stored]) -> Iterator[tuple[str, Stored, Stored]]:
    """Every module that has codes and scales: (path, codes, scales)."""
    for name, scales in stored.items():
        path, _, leaf = name.rpartition(".")
        codes = stored.get(f"{path}.{WEIGHT}") if leaf == SCALES else None
        if codes and codes.tensor.dtype == "U32" and scales.tensor.dtype in ("U8", *WEIGHT_DTYPES):
            yield path, codes, scales


class _Integers:
    """Which integers a module has: as the config says, without one by how wide things are in the checkpoint."""

    def __init__(self, stored: Mapping[str, Stored], sections: Sequence[Section]) -> None:
        self._stored = stored
        said = (section.content for section in sections if section.place.rpartition(".")[2] in _SECTIONS)
        self._settings: Mapping[str, Any] = next((content for content in said if "group_size" in content), {})

    def of(self, path: str, bits_of_block: int) -> Format:
        """The format of a module whose scales each belong to codes of so many bits. Raises UnreadError."""
        fitting = [row for row in _INTEGERS if row.bits * row.block == bits_of_block]
        what = f"MLX integers of {bits_of_block} bits to a scale"
        if not fitting:
            raise MisfitError(f"{what}, which no integers of MLX have")
        if not self._settings:
            fitting = self._as_wide_as_others[bits_of_block]
            if len(fitting) != 1:
                same = (row for row in _INTEGERS if row.bits * row.block == bits_of_block)
                ways = " or ".join(f"{row.bits} x {row.block}" for row in same)
                raise UnreadError(f"{what}: {ways}, and no config says which")
            return fitting[0]
        bits, group = self._said(path)
        row = next((row for row in fitting if (row.bits, row.block) == (bits, group)), None)
        if row is None:
            raise MisfitError(f"{what}, but the config says {bits} x {group}")
        return row

    def _said(self, path: str) -> tuple[Any, Any]:
        own = self._settings.get(path)
        if own is False:
            raise UnreadError("MLX integers, but the config says that it is not quantized")
        said = own if isinstance(own, dict) else self._settings
        bits, group = said.get("bits"), said.get("group_size")
        return (bits if type(bits) is int else None), (group if type(group) is int else None)

    @cached_property
    def _as_wide_as_others(self) -> Mapping[int, list[Format]]:
        """By bits to a scale the integers with which every row of every module is as wide as something is long."""
        widths = {side for item in self._stored.values() for side in _sides(item)}
        across = defaultdict(set)
        for _, codes, scales in _modules(self._stored):  # with a byte to a block they are no integers
            words, blocks = codes.tensor.shape[-1:], scales.tensor.shape[-1:]
            if words and blocks and blocks[0] and scales.tensor.dtype != "U8":
                across[32 * words[0] // blocks[0]].add(blocks[0])
        return {
            bits: [
                row for row in _INTEGERS if row.bits * row.block == bits and {n * row.block for n in blocks} <= widths
            ]
            for bits, blocks in across.items()
        }


def _sides(item: Stored) -> Sequence[int]:
    """Sizes of a tensor that tell how wide weights are: of codes the rows, of scales nothing."""
    shape, leaf = item.tensor.shape, item.tensor.name.rpartition(".")[2]
    if leaf in (SCALES, BIASES):
        return ()
    return shape[-2:-1] if item.tensor.dtype == "U32" else shape[-2:]


def _source(
    path: str, codes: Stored, scales: Stored, others: Mapping[str, Stored], integers: _Integers
) -> PackedSource:
    *rows, words = codes.tensor.shape or (0,)
    *rows_of_scales, blocks = scales.tensor.shape or (0,)
    if rows != rows_of_scales or not rows or not blocks or not words or 32 * words % blocks:
        raise MisfitError(f"MLX codes {list(codes.tensor.shape)} with scales {list(scales.tensor.shape)}")
    row = _format(path, scales, others, 32 * words // blocks, integers)
    columns = blocks * row.block
    if columns > LONGEST_ROW:
        raise UnreadError(f"{row.title} in rows of more than {LONGEST_ROW:,} weights")
    third = others.get(TENSOR_SCALE)
    if third is None:
        encoding = InFormat(row, columns, codes, scales, others.get(BIASES), maker=_MAKER)
    else:
        scale = tensor_scale_of(third, "amax", rows)
        encoding = InFormat(FORMATS["nvfp4-3t"], columns, codes, scales, tensor_scale=scale, maker=_MAKER)
    kept = scales.tensor.dtype if row.affine else "BF16"
    return PackedSource(encoding, (*rows, columns), kept)


def _format(path: str, scales: Stored, others: Mapping[str, Stored], bits_of_block: int, integers: _Integers) -> Format:
    """The format of a layer; `bits_of_block` is the number of bits of the codes that share a scale."""
    if scales.tensor.dtype == "U8":
        name = _BLOCK_FLOATS.get(bits_of_block)
        if name is None or BIASES in others or (TENSOR_SCALE in others and name != "nvfp4-2t"):
            raise UnreadError(f"MLX codes with {bits_of_block} bits to a scale of a byte")
        return FORMATS[name]
    biases = others[BIASES].tensor if BIASES in others else None
    if biases is None or (biases.dtype, biases.shape) != (scales.tensor.dtype, scales.tensor.shape):
        raise MissingPartError("MLX integers without biases like their scales")
    if TENSOR_SCALE in others:
        raise UnreadError("MLX integers with a tensor scale")
    return integers.of(path, bits_of_block)
