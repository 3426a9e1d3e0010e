"""Conventions: a weight <-> its named tensors and its config section; no file access."""

from collections.abc import Sequence
from itertools import chain
from typing import TypeVar

from studio.core.errors import PlanError
from studio.core.layouts.compressed_tensors import CompressedTensors, lost_experts, wants_packed
from studio.core.layouts.gguf import Gguf
from studio.core.layouts.mlx import Mlx
from studio.core.layouts.modelopt import ModelOpt
from studio.core.layouts.placement import Layout, Target
from studio.core.layouts.plain import Plain
from studio.core.model import Layer, Model
from studio.core.names import printable
from studio.core.planning.plan import Choice

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (Mlx(), ModelOpt(), CompressedTensors())}

FOLDERS: dict[str, Layout] = {**LAYOUTS, Plain.name: Plain()}
"""What a folder can be written in."""

GGUF = Gguf()

TARGETS: dict[str, Target] = {**FOLDERS, GGUF.name: GGUF}
"""What a checkpoint can be converted to."""

DEFAULT_LAYOUT = "mlx"

T = TypeVar("T", bound=Target)


def layout_for(name: str, reader: str) -> tuple[Layout, str]:
    """The layout called `name` and the runtime that it is written for; each follows from the other where it is "".

    Raises PlanError for a runtime that does not read the layout.
    """
    return _read_by(FOLDERS[name or _layout_of(reader)], reader)


def target_for(name: str, reader: str) -> tuple[Target, str]:
    """As `layout_for`, of all that a checkpoint can be converted to."""
    return _read_by(TARGETS[name or _layout_of(reader)], reader)


def _layout_of(reader: str) -> str:
    first = (name for name, layout in LAYOUTS.items() if reader in layout.readers[:1])
    any_ = (name for name, layout in LAYOUTS.items() if reader in layout.readers)
    return next(chain(first, any_), DEFAULT_LAYOUT)


def _read_by(layout: T, reader: str) -> tuple[T, str]:
    if reader and reader not in layout.readers:
        able = [other for other, row in LAYOUTS.items() if reader in row.readers]
        hint = f"layouts that it loads: {', '.join(able)}" if able else f"it loads none of {', '.join(LAYOUTS)}"
        raise PlanError(f"{printable(reader)} does not load the layout {layout.name}", hint=hint)
    return layout, reader or layout.readers[0]


def fitted(
    layout: Target, reader: str, model: Model, choices: Sequence[Choice]
) -> tuple[tuple[Choice, ...], list[str]]:
    """The choices as `reader` can load them from `layout`, and why they can not be stored for it at all."""
    found = layout.fit(model, choices, reader)
    refused = layout.refusals(model, found, reader)
    if reader == "transformers" and (lost := lost_experts(model, found)):
        refused.append(f"transformers 5.23 finds {lost}: quantize those, too, or --for vllm")
    return found, refused


def packed_only(reader: str, model: Model, layer: Layer) -> bool:
    """True for a layer that `reader` does not find plain beside layers that are quantized."""
    return reader == "transformers" and wants_packed(model, layer)


def readers() -> tuple[str, ...]:
    """Names of all runtimes that read a layout."""
    return tuple(dict.fromkeys(reader for layout in LAYOUTS.values() for reader in layout.readers))


__all__ = [
    "DEFAULT_LAYOUT",
    "FOLDERS",
    "GGUF",
    "LAYOUTS",
    "TARGETS",
    "Layout",
    "Target",
    "fitted",
    "layout_for",
    "packed_only",
    "readers",
    "target_for",
]
