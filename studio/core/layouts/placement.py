"""Placement: where the parts of a matrix go; the words that all layouts share."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels import Format
from studio.core.containers.dtypes import BITS
from studio.core.model import Layer, Matrix, Model
from studio.core.planning.plan import Choice

Content = Literal[
    "codes",
    "scales",
    "biases",
    "tensor_scale",
    "multiplier",
    "input_scale",
    "shape",
    "raw",
    "rows",
    "plus_one",
    "even",
    "odd",
]
"""What of a layer goes somewhere; a multiplier is a tensor scale that every layout stores as it is, shape the number of
rows and that of columns. Of a kept one: raw, its stored bytes; rows, the weights of its matrices, one after the other;
plus_one, 1 added to each value; even and odd, every other value of the last axis."""


InputScale = tuple[str, tuple[int, ...]]
"""Name, in its module, and shape of the scale of a layer's inputs."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Bytes `offset` .. `offset + nbytes` of the target tensor (name, dtype, shape) hold one part of a matrix."""

    content: Content
    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    offset: int = 0

    @property
    def whole(self) -> int:
        """Bytes of the whole target tensor."""
        return stored_nbytes(self.dtype, self.shape)


def stored_nbytes(dtype: str, shape: Sequence[int]) -> int:
    """Bytes of a stored tensor; KeyError for a dtype that none can have."""
    return math.prod(shape) * BITS[dtype] // 8


class Target(Protocol):
    """What codes can be written as: formats, and who reads them.

    formats: what it can store. readers: names of the runtimes that load it, the one that it is written for first.
    joins: they take fused groups as one, with one tensor scale. input_scale: how the scale of a layer's inputs is
    stored, by the convention of the tensor scale; None where there is no place for one. static_inputs:
    formats whose readers need it. alone: formats that readers take for all layers or for none.
    """

    name: str
    title: str
    formats: tuple[str, ...]
    readers: tuple[str, ...]
    joins: bool
    input_scale: InputScale | None
    static_inputs: tuple[str, ...]
    alone: tuple[str, ...]

    def fit(self, model: Model, choices: Sequence[Choice], reader: str) -> tuple[Choice, ...]:
        """The choices as `reader` can load them: what it can not is kept or given another format, with the reason."""
        ...

    def refusals(self, model: Model, choices: Sequence[Choice], reader: str) -> list[str]:
        """Why the plan can not be stored for `reader`, one sentence each; empty when it can."""
        ...

    def store_scale(self, g: float) -> np.float32:
        """The number stored for the multiplier g."""
        ...

    def multiplier(self, stored: np.float32) -> np.float32:
        """The multiplier g that readers compute from the stored number."""
        ...


class Layout(Target, Protocol):
    """A convention of safetensors: names and dtypes of the stored parts, meaning of the tensor scale, config section.

    metadata: safetensors metadata. scale_convention: the stored tensor scale by g = max|W| / 2688 and A = max|W|.
    """

    metadata: Mapping[str, str]
    scale_convention: str

    def cautions(self, model: Model, choices: Sequence[Choice]) -> list[str]:
        """What users of the export must know before they load it, one sentence each."""
        ...

    def place(self, model: Model, layer: Layer, matrix: Matrix, row: Format) -> list[Placement]:
        """Where the parts of a quantized matrix go."""
        ...

    def place_kept(self, model: Model, layer: Layer) -> list[Placement]:
        """Where the bytes of a kept layer go: pieces in the order of those bytes."""
        ...

    def rounded(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        """The formats of whose layers readers of an export with this config quantize the inputs as they run."""
        ...

    def documents(self, model: Model, choices: Sequence[Choice]) -> dict[str, bytes]:
        """File name -> content of config.json and other files that describe the export."""
        ...


def stored_number(layout: Layout, content: Content, g: float) -> np.float32:
    """What is stored of the multiplier g as a part of this kind."""
    return np.float32(g) if content == "multiplier" else layout.store_scale(g)


def multiplier_of_part(layout: Layout, content: Content, stored: np.float32) -> np.float32:
    """The multiplier g that readers compute from a part of this kind."""
    return np.float32(stored) if content == "multiplier" else layout.multiplier(stored)


def nearest_stored(wanted: float, g: float, multiplier: Callable[[np.float32], np.float32]) -> np.float32:
    """Of the numbers nearest to `wanted` the first that readers turn into g to the bit, or else the nearest; finite."""
    near = np.float32(min(wanted, float(np.finfo(np.float32).max)))
    with np.errstate(all="ignore"):  # neighbours of the largest and the smallest numbers are none
        others = [np.nextafter(near, np.float32(side)) for side in (0, np.inf)]
        exact = [one for one in (near, *others) if 0 < one < np.inf and multiplier(one) == np.float32(g)]
    return exact[0] if exact else near


def placed_input(layout: Target, matrix: Matrix) -> Placement:
    """Where the scale of the inputs of a matrix goes, in a layout that has a place for it."""
    assert layout.input_scale is not None
    name, shape = layout.input_scale
    return Placement("input_scale", f"{matrix.name}.{name}", "F32", shape, 4)


def unsupported(layout: Target, choices: Sequence[Choice]) -> list[str]:
    """A sentence per chosen format that `layout` can not store."""
    used = {choice.format for choice in choices if choice.recipe}
    return [f"layout {layout.name} can not store {name}" for name in sorted(used - set(layout.formats))]


def raw(layer: Layer) -> list[Placement]:
    """A kept layer in one piece under its own name, codes widened."""
    return [Placement("raw", layer.weight_name, layer.kept_dtype, layer.shape, layer.kept_nbytes)]


def pieces(parts: Sequence[Placement], start: int, count: int) -> Iterator[tuple[int, str, int, int]]:
    """Where bytes `start` .. `start + count` of a kept layer lie in its placements.

    Yields (how far into those bytes, tensor name, byte offset in the tensor, number of bytes).
    """
    position = 0
    for part in parts:
        first, last = max(start, position), min(start + count, position + part.nbytes)
        if first < last:
            yield first - start, part.name, part.offset + first - position, last - first
        position += part.nbytes


def rows(layer: Layer) -> list[Placement]:
    """A kept layer cut into its matrices, each a module of its own with its outputs as rows."""
    return [
        Placement("rows", f"{m.name}.weight", layer.kept_dtype, (m.rows, m.columns), m.rows * m.columns * size)
        for size in [layer.kept_nbytes // layer.count]
        for m in layer.matrices
    ]


def kept_form(parts: Sequence[Placement]) -> Literal["bytes", "rows", "whole"]:
    """In what form a kept layer must come to fill its placements."""
    contents = {part.content for part in parts}
    return "bytes" if contents == {"raw"} else "rows" if contents == {"rows"} else "whole"


def edited(content: Content, values: NDArray[Any]) -> NDArray[Any]:
    """What is written of the stored `values` of a kept layer, flat; raises ValueError for another kind of content."""
    match content:
        case "raw":
            return values
        case "plus_one":
            return (values.astype(np.float32) + np.float32(1)).astype(values.dtype)
        case "even":
            return values[0::2]
        case "odd":
            return values[1::2]
    raise ValueError(f"[edited] {content} is no edit of stored values")
