"""Conventions: a weight <-> its named tensors and its config section; no file access."""

from collections.abc import Sequence

from studio.core.errors import PlanError
from studio.core.layouts.compressed_tensors import CompressedTensors
from studio.core.layouts.mlx import Mlx
from studio.core.layouts.modelopt import ModelOpt
from studio.core.layouts.placement import Layout
from studio.core.layouts.plain import Plain
from studio.core.model import Model
from studio.core.names import printable
from studio.core.planning.plan import Choice

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (Mlx(), ModelOpt(), CompressedTensors())}

TARGETS: dict[str, Layout] = {**LAYOUTS, Plain.name: Plain()}
"""What a checkpoint can be converted to."""

DEFAULT_LAYOUT = "mlx"


def layout_for(name: str, reader: str) -> tuple[Layout, str]:
    """The layout called `name` and the runtime that it is written for; each follows from the other where it is "".

    Raises PlanError for a runtime that does not read the layout.
    """
    if not name:
        name = next((name for name, layout in LAYOUTS.items() if reader in layout.readers[:1]), "")
        name = name or next((name for name, layout in LAYOUTS.items() if reader in layout.readers), DEFAULT_LAYOUT)
    layout = TARGETS[name]
    if reader and reader not in layout.readers:
        able = [other for other, row in LAYOUTS.items() if reader in row.readers]
        hint = f"layouts that it loads: {', '.join(able)}" if able else f"it loads none of {', '.join(LAYOUTS)}"
        raise PlanError(f"{printable(reader)} does not load the layout {name}", hint=hint)
    return layout, reader or layout.readers[0]


def fitted(
    layout: Layout, reader: str, model: Model, choices: Sequence[Choice]
) -> tuple[tuple[Choice, ...], list[str]]:
    """The choices as `reader` can load them from `layout`, and why they can not be stored for it at all."""
    found = layout.fit(model, choices, reader)
    return found, layout.refusals(model, found, reader)


def readers() -> tuple[str, ...]:
    """Names of all runtimes that read a layout."""
    return tuple(dict.fromkeys(reader for layout in LAYOUTS.values() for reader in layout.readers))


__all__ = ["DEFAULT_LAYOUT", "LAYOUTS", "TARGETS", "Layout", "fitted", "layout_for", "readers"]
