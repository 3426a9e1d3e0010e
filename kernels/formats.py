"""The formats as data: what a reader must know to decode a weight, and its exact packed size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from kernels.methods import settled

Element = Literal["e2m1", "e4m3", "uint"]
Scale = Literal["e4m3", "e8m0", "weight", "float32"]
ExponentRule = Literal["ceil", "floor"]

E2M1_MAX = 6.0
E4M3_MAX = 448.0
TENSOR_SCALE_DIVISOR = E2M1_MAX * E4M3_MAX
"""max|W| / 2688 is the tensor scale that maps the largest weight to the largest code times the largest block scale."""

LONGEST_TILED_ROW = 1 << 16
"""Weights of a row of tiles that are several rows high: these rows are in memory at once."""

FOUR_SIX_DIVISOR = E2M1_MAX * 256
"""The same for `four-six`, whose block scales may be half as large again."""


@dataclass(frozen=True, slots=True)
class Format:
    """A storage format for one weight of shape [..., K]; blocks run along K.

    `bits` is the width of a code, `block` the number of codes that share one scale. A scale is one byte (E4M3 or
    E8M0), or for the affine formats a scale and a bias in the dtype of the weight. `tensor_scale` tells whether one
    float32 multiplier per weight (per expert, in a stack) is stored too: the third tier.

    Scales of float32 are stored one per `tile` of (rows, columns), 0 for all; (0, 0) is the tensor scale alone. In
    memory each block has the one of its tile, so that rows and columns can be cut anywhere. A bias that is `symmetric`
    is the scale times the lowest code, and not stored.
    """

    name: str
    title: str
    bits: int
    block: int
    element: Element
    scale: Scale
    tensor_scale: bool = False
    tile: tuple[int, int] = (1, 1)
    symmetric: bool = False

    @property
    def in_mlx(self) -> bool:
        """True for what MLX has: other formats are for servers."""
        return self.scale != "float32" and not self.symmetric

    @property
    def byte_scales(self) -> bool:
        """True when a scale is a byte of E4M3 or E8M0."""
        return self.scale in ("e4m3", "e8m0")

    @property
    def height(self) -> int:
        """Rows that must be encoded together, from a multiple of this on."""
        return max(self.tile[0], 1)

    def tiles(self, rows: int, columns: int) -> tuple[int, int]:
        """How many scales of float32 are stored down and across; none where the tensor scale is the only one."""
        if self.tile == (0, 0):
            return 0, 0
        high, wide = self.tile
        return -(-rows // high) if high else 1, -(-columns // wide) if wide else 1

    @property
    def affine(self) -> bool:
        """True when weights are code x scale + bias, as MLX defines its integer formats."""
        return self.scale == "weight"

    def misfit(self, shape: Sequence[int]) -> str | None:
        """Why a weight of `shape` can not be stored in this format; None when it can."""
        if len(shape) < 2:
            return f"{self.name} needs at least 2 dimensions, this has {len(shape)}"
        if math.prod(shape) == 0:
            return "it has no elements"
        if shape[-1] % self.block:
            return f"its width {shape[-1]} is not a multiple of the block of {self.block}"
        if self.height > 1 and shape[-1] > LONGEST_TILED_ROW:
            return f"its width {shape[-1]} is more than {LONGEST_TILED_ROW:,}, for tiles of {self.height} rows"
        return None

    def unfit(self, shape: Sequence[int]) -> str | None:
        """Why a weight of `shape` can not be encoded in this format; None when it can."""
        if self.name not in FORMATS:
            return f"{self.name} is read and handed on only"
        return self.misfit(shape)

    def nbytes(self, shape: Sequence[int], scale_itemsize: int = 2) -> int:
        """Exact packed size in bytes of a weight of `shape`, with one tensor scale per matrix.

        `scale_itemsize` is the width of an affine scale (2 for bf16 and fp16, 4 for float32).
        Raises ValueError when the shape does not fit.
        """
        if reason := self.misfit(shape):
            raise ValueError(f"[nbytes] {reason}")
        count, matrices = math.prod(shape), math.prod(shape[:-2])
        per_block = (1 if self.symmetric else 2) * scale_itemsize if self.affine else 1
        scales = count // self.block * per_block
        if self.scale == "float32":
            scales = 4 * matrices * math.prod(self.tiles(shape[-2], shape[-1]))
        tensor_scales = 4 * matrices if self.tensor_scale else 0
        return count * self.bits // 8 + scales + tensor_scales

    def bits_per_weight(self, shape: Sequence[int], scale_itemsize: int = 2) -> float:
        """Bits stored per weight, scales included."""
        return 8 * self.nbytes(shape, scale_itemsize) / math.prod(shape)


FORMATS: dict[str, Format] = {
    row.name: row
    for row in (
        Format("nvfp4-2t", "NVFP4, two tiers", 4, 16, "e2m1", "e4m3"),
        Format("nvfp4-3t", "NVFP4, three tiers", 4, 16, "e2m1", "e4m3", tensor_scale=True),
        Format("mxfp4", "MXFP4", 4, 32, "e2m1", "e8m0"),
        Format("mxfp8", "MXFP8 (E4M3)", 8, 32, "e4m3", "e8m0"),
        Format("int4-g32", "INT4 affine, groups of 32", 4, 32, "uint", "weight"),
        Format("int4-g64", "INT4 affine, groups of 64", 4, 64, "uint", "weight"),
        Format("int8-g64", "INT8 affine, groups of 64", 8, 64, "uint", "weight"),
        Format("int8-g128", "INT8 affine, groups of 128", 8, 128, "uint", "weight"),
        Format("fp8-tensor", "FP8 (E4M3), a scale per tensor", 8, 16, "e4m3", "float32", True, (0, 0)),
        Format("fp8-channel", "FP8 (E4M3), a scale per row", 8, 16, "e4m3", "float32", tile=(1, 0)),
        Format("fp8-block", "FP8 (E4M3), a scale per 128 x 128", 8, 16, "e4m3", "float32", tile=(128, 128)),
        Format("int4-sym-g32", "INT4 symmetric, groups of 32", 4, 32, "uint", "weight", symmetric=True),
        Format("int4-sym-g128", "INT4 symmetric, groups of 128", 4, 128, "uint", "weight", symmetric=True),
        Format("int8-sym-g128", "INT8 symmetric, groups of 128", 8, 128, "uint", "weight", symmetric=True),
    )
}
"""The formats that a weight can be quantized to."""

MLX_FORMATS: dict[str, Format] = {name: row for name, row in FORMATS.items() if row.in_mlx}
"""Those of them that MLX has."""

_INTEGERS = (
    Format(f"int{bits}-g{block}", f"INT{bits} affine, groups of {block}", bits, block, "uint", "weight")
    for bits in (2, 3, 4, 5, 6, 8)
    for block in (32, 64, 128)
)

_SYMMETRIC = (
    Format(
        f"int{bits}-sym-g{block}",
        f"INT{bits} symmetric, groups of {block}",
        bits,
        block,
        "uint",
        "weight",
        symmetric=True,
    )
    for bits, block in ((4, 64), (8, 32), (8, 64))
)

STORED_FORMATS: dict[str, Format] = {
    **FORMATS,
    **{row.name: row for row in (*_INTEGERS, *_SYMMETRIC) if row.name not in FORMATS},
}
"""All formats that are read and handed on: those, and other integers that MLX or compressed-tensors have."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A format plus how its codes are chosen.

    `min_scale` is the smallest E4M3 byte that a block with a non-zero weight may get, `zero_scale` the byte of an
    all-zero block. Three tiers use 0x08 (2**-6, the smallest normal number, which every known reader handles) and
    0x38 (1.0); two tiers must allow 0x00, or small weights would be scaled up out of range.
    `exponent` chooses the E8M0 scale of the MX formats: "ceil" never saturates and is what MLX does, "floor" is the
    rule of the OCP Microscaling specification 1.0, section 6.3. `method` is the name of a row of `kernels.methods`.
    """

    format: Format
    min_scale: int = 0x00
    zero_scale: int = 0x00
    exponent: ExponentRule = "ceil"
    method: str = "max"

    @property
    def divisor(self) -> float:
        """max|W| over this is the tensor scale."""
        if self.format.element == "e4m3":
            return E4M3_MAX
        return FOUR_SIX_DIVISOR if self.method == "four-six" else TENSOR_SCALE_DIVISOR


@cache
def recipe(name: str, exponent: ExponentRule = "ceil", method: str = "max") -> Recipe:
    """The recipe of the format called `name`, whose method is what `method` comes to in that format.

    Weights can be encoded in those of FORMATS, the others of STORED_FORMATS say what is handed on as it is.
    Raises ValueError for an unknown format or method.
    """
    if name not in STORED_FORMATS:
        raise ValueError(f"[recipe] unknown format {name!r}, choose one of {', '.join(FORMATS)}")
    row = STORED_FORMATS[name]
    if row.tensor_scale and row.element == "e2m1":
        return Recipe(row, min_scale=0x08, zero_scale=0x38, method=settled(method, row.scale, row.bits))
    return Recipe(row, exponent=exponent, method=settled(method, row.scale, row.bits))
