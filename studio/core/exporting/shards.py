"""Shards: which target tensor goes into which file and where, known to the byte before anything is computed."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from studio.core.containers.dtypes import BITS
from studio.core.containers.safetensors import Tensor, place
from studio.core.errors import PlanError
from studio.core.layouts import Layout
from studio.core.layouts.placement import Placement
from studio.core.model import Matrix, Model
from studio.core.planning.plan import Choice
from studio.core.running.pipeline import scopes

SHARD_NBYTES = 5_000_000_000


@dataclass(frozen=True, slots=True)
class Item:
    """A layer on its way: its choice, sized for the layout, and where the parts of each matrix go.

    `kept` for a layer that is copied.
    """

    choice: Choice
    matrices: tuple[tuple[Matrix, tuple[Placement, ...]], ...] = ()
    kept: tuple[Placement, ...] = ()

    @property
    def placements(self) -> list[Placement]:
        """All placements of the layer."""
        return [*self.kept, *(part for _, parts in self.matrices for part in parts)]


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of the export: its name, its header, the tensors in it and the layers that fill them."""

    name: str
    head: bytes
    tensors: Mapping[str, Tensor]
    items: tuple[Item, ...]

    @property
    def nbytes(self) -> int:
        """Size of the file in bytes."""
        return len(self.head) + sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def choices(self) -> list[Choice]:
        """The choices of its layers."""
        return [item.choice for item in self.items]


def plan_shards(
    model: Model, choices: Sequence[Choice], layout: Layout, limit: int = SHARD_NBYTES
) -> tuple[Shard, ...]:
    """All shards of an export, each at most `limit` bytes unless one bundle of layers is larger.

    Layers that share a target tensor or a tensor scale stay together. Raises PlanError when two layers would write
    the same tensor.
    """
    items = [_item(model, choice, layout) for choice in choices]
    _check_cover(items)
    groups = _fill(_bundles(items), limit)
    names = [_shard_name(i, len(groups)) for i in range(len(groups))]
    return tuple(_shard(name, group, layout) for name, group in zip(names, groups, strict=True))


def sized(model: Model, choices: Sequence[Choice], layout: Layout) -> tuple[Choice, ...]:
    """The choices with the exact bytes that `layout`, which must be able to store them, takes for each."""
    return tuple(_item(model, choice, layout).choice for choice in choices)


def _item(model: Model, choice: Choice, layout: Layout) -> Item:
    layer, recipe = choice.layer, choice.recipe
    if recipe is None:
        item = Item(choice, kept=tuple(layout.place_kept(model, layer)))
    else:
        row = recipe.format
        item = Item(choice, tuple((m, tuple(layout.place(model, layer, m, row))) for m in layer.matrices))
    stored = sum(part.nbytes for part in item.placements)
    return replace(item, choice=replace(choice, beside=choice.beside + stored - choice.nbytes))


def _shard_name(index: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{index + 1:05d}-of-{count:05d}.safetensors"


def _check_cover(items: Iterable[Item]) -> None:
    """Every target tensor must be written exactly once."""
    ranges: dict[str, list[tuple[int, int]]] = defaultdict(list)
    whole: dict[str, tuple[str, tuple[int, ...]]] = {}
    for item in items:
        for part in item.placements:
            ranges[part.name].append((part.offset, part.offset + part.nbytes))
            if whole.setdefault(part.name, (part.dtype, part.shape)) != (part.dtype, part.shape):
                raise _clash(part.name)
    for name, (dtype, shape) in whole.items():
        position = 0
        for start, stop in sorted(ranges[name]):
            if start != position:
                raise _clash(name)
            position = stop
        if position != math.prod(shape) * BITS[dtype] // 8:
            raise _clash(name)


def _clash(name: str) -> PlanError:
    return PlanError("the export would write it twice or in part: the checkpoint already uses this name", tensor=name)


def _bundles(items: Sequence[Item]) -> list[list[Item]]:
    """Items in order, joined where they share a target tensor or a scope."""
    by_layer = {item.choice.layer.name: item for item in items}
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while (up := parent.setdefault(key, key)) != key:
            parent[key] = key = parent.setdefault(up, up)
        return key

    for scope in scopes([item.choice for item in items]):
        for choice in scope:
            parent[root(f"layer {choice.layer.name}")] = root(f"layer {scope[0].layer.name}")
            for part in by_layer[choice.layer.name].placements:
                parent[root(f"tensor {part.name}")] = root(f"layer {choice.layer.name}")
    bundles: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        bundles[root(f"layer {item.choice.layer.name}")].append(item)
    return list(bundles.values())


def _fill(bundles: Iterable[list[Item]], limit: int) -> list[list[Item]]:
    groups: list[list[Item]] = [[]]
    room = limit
    for bundle in bundles:
        size = sum(part.nbytes for item in bundle for part in item.placements)
        if groups[-1] and size > room:
            groups.append([])
            room = limit
        groups[-1] += bundle
        room -= size
    return groups


def _shard(name: str, items: Sequence[Item], layout: Layout) -> Shard:
    wanted = {part.name: (part.name, part.dtype, part.shape) for item in items for part in item.placements}
    ordered = sorted(wanted.values(), key=lambda entry: -BITS[entry[1]])
    metadata = {**layout.metadata, "nvfp4_studio.tensor_scale": layout.scale_convention}
    head, header = place(ordered, metadata)
    return Shard(name, head, header.tensors, tuple(items))
