"""Modules with codes, told by the names of their parts alone: also those whose parts do not fit or are missing."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from studio.core.model import Stored
from studio.core.sources.in_format import Convention


@dataclass(frozen=True, slots=True)
class Parts:
    """Which leaves of a module are its parts in one layout."""

    layout: str
    codes: str
    dtypes: tuple[str, ...]
    scales: tuple[str, ...]
    third: str = ""
    meaning: Convention = "multiplier"
    inputs: tuple[str, ...] = ()


CONVENTIONS = (
    Parts(
        "compressed-tensors",
        "weight_packed",
        ("U8", "I32"),
        ("weight_scale",),
        "weight_global_scale",
        "divisor",
        ("input_global_scale",),
    ),
    Parts("modelopt", "weight", ("U8",), ("weight_scale",), "weight_scale_2", inputs=("input_scale", "input_scale_2")),
    Parts("mlx", "weight", ("U32",), ("scales",), "global_scale", "amax"),
    Parts("fp8", "weight", ("F8_E4M3",), ("weight_scale_inv", "weight_scale", "scale"), inputs=("input_scale",)),
    Parts("int8", "weight", ("I8",), ("weight_scale", "scale"), inputs=("input_scale",)),
)
"""The first that fits the names and dtypes of a module counts."""

_CODES = ("weight", "weight_packed", "qweight")
_OF_WEIGHTS = ("weight_scale", "weight_scale_2", "weight_global_scale", "weight_scale_inv")
LONE_SCALES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_OF_WEIGHTS, _CODES),
    **dict.fromkeys(("biases", "scales", "qzeros", "SCB"), ("weight", "qweight")),
    "absmax": ("",),
}
"""Leaves that mean nothing without one of these beside them; "" is the tensor that they are named after."""


@dataclass(frozen=True, slots=True)
class Module:
    """A module that holds codes.

    layout: the convention that the names follow. third: its tensor scale, of which `meaning` says what it is there.
    """

    name: str
    layout: str
    codes: Stored
    scales: Stored | None
    third: Stored | None
    meaning: Convention
    inputs: Stored | None

    @property
    def is_nvfp4(self) -> bool:
        """True for four-bit codes with scales of a byte for 16, or what was meant to be such."""
        if self.scales is None or self.layout not in ("compressed-tensors", "modelopt", "mlx"):
            return False
        dtypes = self.codes.tensor.dtype, self.scales.tensor.dtype
        if dtypes == ("U8", "F8_E4M3"):
            return bool(self.scales.tensor.shape)
        return dtypes in (("U8", "U8"), ("U32", "U8")) and self.bits_of_block == 64

    @property
    def bits_of_block(self) -> int:
        """Bits of the codes that share a block scale, 0 where the shapes do not fit."""
        codes, scales = self.codes.tensor, self.scales.tensor if self.scales else None
        if scales is None or len(scales.shape) != len(codes.shape) or not codes.shape or not scales.shape[-1]:
            return 0
        bits = codes.shape[-1] * {"U32": 32, "I32": 32}.get(codes.dtype, 8)
        fits = codes.shape[:-1] == scales.shape[:-1] and bits % scales.shape[-1] == 0
        return bits // scales.shape[-1] if fits else 0

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of its tensors."""
        parts = (self.codes, self.scales, self.third, self.inputs)
        return tuple(part.tensor.name for part in parts if part is not None)

    @property
    def height(self) -> int:
        """Rows of one matrix."""
        return self.codes.tensor.shape[-2]

    @property
    def stack(self) -> tuple[int, ...]:
        """How many matrices are stacked in which way."""
        return self.codes.tensor.shape[:-2]

    @property
    def rows(self) -> int:
        """Rows of codes, those of all experts of a stack."""
        return math.prod(self.codes.tensor.shape[:-1])


def modules_of(stored: Mapping[str, Stored]) -> dict[str, Module]:
    """The modules that hold codes, by name."""
    leaves: dict[str, dict[str, Stored]] = defaultdict(dict)
    for name, item in stored.items():
        path, _, leaf = name.rpartition(".")
        leaves[path][leaf] = item
    found = (_module(path, parts) for path, parts in leaves.items())
    return {module.name: module for module in found if module}


def _module(path: str, parts: Mapping[str, Stored]) -> Module | None:
    for row in CONVENTIONS:
        codes = parts.get(row.codes)
        if codes is not None and codes.tensor.dtype in row.dtypes and len(codes.tensor.shape) > 1:
            scales = next((parts[leaf] for leaf in row.scales if leaf in parts), None)
            inputs = next((parts[leaf] for leaf in row.inputs if leaf in parts), None)
            return Module(path, row.layout, codes, scales, parts.get(row.third), row.meaning, inputs)
    return None
