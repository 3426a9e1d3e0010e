"""Folders of MLX as sources: mlx-lm has weights of some architectures under names, or with values, of its own."""

from studio.core.errors import PlanError
from studio.core.layouts import Target
from studio.core.layouts.plain import is_mlx_stack
from studio.core.model import Model
from studio.core.names import printable
from studio.core.opening.exports import is_exported
from studio.core.sources.plus_one import PlusOne

_STACK_OF_MAKERS = ".mlp"
"""Experts of modules of this name are called as MLX calls its projections; others, as w1 to w3, are not."""


def check_names(model: Model, layout: Target) -> None:
    """Refuse a folder of MLX whose names, or values, can not be turned back to those of the architecture's makers."""
    if _is_from_mlx(model) and _is_changed(model, layout):
        kind = printable(model.architecture) or "an unknown architecture"
        what = f"mlx-lm stores {kind} under other names, or with other values, than its makers"
        raise PlanError(
            f"{what}; this program can not turn them back",
            file=model.path,
            hint="convert the checkpoint that this folder was made from",
        )


def _is_changed(model: Model, layout: Target) -> bool:
    """True for names, or values, that may not be those of the makers; an export of ours tells what it changed."""
    names = model.family.mlx
    if is_exported(model):
        return False
    undone = any(isinstance(layer.source, PlusOne) for layer in model.layers)
    if names.stored or names.bias or (not undone and (names.plus_one or names.moved)):
        return True
    others = any(not layer.matrices[0].stack.endswith(_STACK_OF_MAKERS) for layer in filter(is_mlx_stack, model.layers))
    return layout.name != "mlx" and bool(not model.known or names.module or names.keep or others)


def _is_from_mlx(model: Model) -> bool:
    section = model.config.get("quantization")
    return (isinstance(section, dict) and "group_size" in section) or any(map(is_mlx_stack, model.layers))
