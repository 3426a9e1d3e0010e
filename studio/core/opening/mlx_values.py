"""Folders of mlx-lm: what it changes of weights while it loads those of their makers, turned back."""

from collections.abc import Sequence
from dataclasses import replace

from studio.core.architectures import Family, base_name
from studio.core.architectures.family import pattern
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.counting import counted
from studio.core.model import Layer
from studio.core.sources.plain import Plain
from studio.core.sources.plus_one import plus_one


def turned_back(layers: Sequence[Layer], family: Family, warnings: list[str]) -> tuple[Layer, ...]:
    """The layers with the convolutions and norms of their makers, where the convolutions show that mlx-lm stored them.

    Norms become what is left without the 1 that it added, which float32 holds where their own dtype does not. Adds to
    `warnings` what was done.
    """
    moved = [layer for layer in layers if _is_moved(layer, family)]
    if not moved:
        return tuple(layers)
    names = {layer.name for layer in moved}
    found = [_back(layer, family, in_other_shape=layer.name in names) for layer in layers]
    norms = [new for old, new in zip(layers, found, strict=True) if old is not new and old.name not in names]
    wide = sum(new.kept_dtype != old.kept_dtype for old, new in zip(layers, found, strict=True))
    what = f"{counted(len(norms), 'norm')} with 1 added, as mlx-lm stores them: it is taken away again"
    warnings.append(what + (f", and {counted(wide, 'of them needs', 'of them need')} float32 then" if wide else ""))
    return tuple(found)


def _is_moved(layer: Layer, family: Family) -> bool:
    """True for a convolution [channels, width, 1], which makers store as [channels, 1, width]."""
    if not family.mlx.moved or len(layer.shape) != 3 or not pattern(family.mlx.moved).search(layer.name):
        return False
    return layer.shape[1] != 1 and layer.shape[2] == 1


def _back(layer: Layer, family: Family, *, in_other_shape: bool) -> Layer:
    stored = layer.stored
    if in_other_shape:
        channels, width, _ = layer.shape
        return replace(layer, source=Plain(replace(stored, tensor=replace(stored.tensor, shape=(channels, 1, width)))))
    is_norm = len(layer.shape) == 1 and pattern(family.mlx.plus_one).search(base_name(layer.weight_name))
    if not family.mlx.plus_one or not is_norm or stored.tensor.dtype not in WEIGHT_DTYPES:
        return layer
    return replace(layer, source=plus_one(stored), weight=layer.weight_name)
