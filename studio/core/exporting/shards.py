"""Shards: which target tensor goes into which file and where, known to the byte before anything is computed."""

import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b, sha256

from kernels import Format
from studio.core.containers.dtypes import BITS
from studio.core.containers.safetensors import LARGEST_HEADER, Tensor, place
from studio.core.errors import PlanError
from studio.core.layouts import Layout
from studio.core.layouts.placement import Placement, placed_input
from studio.core.model import Matrix, Model
from studio.core.planning.plan import Choice
from studio.core.running.pipeline import scope_of

SHARD_NBYTES = 5_000_000_000

MOST_LAYERS = 4096
"""Layers of a shard: what is known of a shard's layers while it is written bounds the memory that takes."""


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


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One file of the export to be: its name, its bytes and those of its tensors, its header's SHA-256, its layers."""

    name: str
    nbytes: int
    data_nbytes: int
    head: str
    choices: tuple[Choice, ...]

    def lay_out(self, model: Model, layout: Layout) -> Shard:
        """Where every byte of it goes; computed when it is its turn, as it takes memory with the number of tensors."""
        return _shard(self.name, [_item(model, choice, layout) for choice in self.choices], layout)

    def tensors(self, model: Model, layout: Layout) -> set[str]:
        """The names of the tensors in it."""
        return {part.name for choice in self.choices for part in _unsized(model, choice, layout).placements}


def plan_shards(
    model: Model, choices: Sequence[Choice], layout: Layout, limit: int = SHARD_NBYTES
) -> tuple[ShardPlan, ...]:
    """All shards of an export, each of at most `limit` bytes and MOST_LAYERS layers unless one bundle is larger.

    Layers that share a target tensor or a tensor scale stay together. Raises PlanError when two layers would write
    the same tensor.
    """
    groups = _fill(choices, *_bundles(model, choices, layout), limit)
    names = [_shard_name(i, len(groups)) for i in range(len(groups))]
    return tuple(_planned(name, group, model, layout) for name, group in zip(names, groups, strict=True))


def _planned(name: str, choices: tuple[Choice, ...], model: Model, layout: Layout) -> ShardPlan:
    shard = _shard(name, [_item(model, choice, layout) for choice in choices], layout)
    sized = tuple(item.choice for item in shard.items)
    return ShardPlan(name, shard.nbytes, shard.nbytes - len(shard.head), sha256(shard.head).hexdigest(), sized)


def sized(model: Model, choices: Sequence[Choice], layout: Layout) -> tuple[Choice, ...]:
    """The choices with the exact bytes that `layout`, which must be able to store them, takes for each."""
    return tuple(_item(model, choice, layout).choice for choice in choices)


def _item(model: Model, choice: Choice, layout: Layout) -> Item:
    item = _unsized(model, choice, layout)
    beside = choice.beside + sum(part.nbytes for part in item.placements) - choice.nbytes
    if beside == choice.beside:
        return item
    return replace(item, choice=replace(choice, beside=beside))


def _unsized(model: Model, choice: Choice, layout: Layout) -> Item:
    layer, recipe = choice.layer, choice.recipe
    if recipe is None:
        return Item(choice, kept=tuple(layout.place_kept(model, layer)))
    return Item(choice, tuple((m, tuple(_placed(model, choice, recipe.format, layout, m))) for m in layer.matrices))


def _placed(model: Model, choice: Choice, row: Format, layout: Layout, matrix: Matrix) -> list[Placement]:
    inputs = [placed_input(layout, matrix)] if choice.input_scales else []
    return [*layout.place(model, choice.layer, matrix, row), *inputs]


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


def _bundles(model: Model, choices: Sequence[Choice], layout: Layout) -> tuple[Iterable[Sequence[int]], Sequence[int]]:
    """Places of choices, in order, together where they share a target tensor or a scope; and the bytes of each."""
    parent = array("q", range(len(choices)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    sizes, leader, owner = array("q"), dict[str, int](), dict[bytes, int]()
    for i, choice in enumerate(choices):
        if scope := scope_of(choice):
            parent[root(i)] = root(leader.setdefault(scope, i))
        placements = _unsized(model, choice, layout).placements
        sizes.append(sum(part.nbytes for part in placements))
        for part in placements:
            parent[root(i)] = root(owner.setdefault(_short(part.name), i))
    bundles: dict[int, list[int]] = defaultdict(list)
    for i in range(len(choices)):
        bundles[root(i)].append(i)
    return bundles.values(), sizes


def _short(name: str) -> bytes:
    """A name in few bytes: a model has hundreds of thousands. Two of one digest would only lie in one file."""
    return blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()


def _fill(
    choices: Sequence[Choice], bundles: Iterable[Sequence[int]], sizes: Sequence[int], limit: int
) -> list[tuple[Choice, ...]]:
    groups: list[list[Choice]] = [[]]
    room = limit
    for bundle in bundles:
        nbytes = sum(sizes[i] for i in bundle)
        full = nbytes > room or len(groups[-1]) + len(bundle) > MOST_LAYERS
        if groups[-1] and full:
            groups.append([])
            room = limit
        groups[-1] += [choices[i] for i in bundle]
        room -= nbytes
    return [tuple(group) for group in groups]


def _shard(name: str, items: Sequence[Item], layout: Layout) -> Shard:
    _check_cover(items)
    wanted = {part.name: (part.name, part.dtype, part.shape) for item in items for part in item.placements}
    ordered = sorted(wanted.values(), key=lambda entry: -BITS[entry[1]])
    metadata = {**layout.metadata, "nvfp4_studio.tensor_scale": layout.scale_convention}
    head, header = place(ordered, metadata)
    if len(head) > LARGEST_HEADER:
        raise PlanError(f"{name} would have a header of {len(head):,} bytes, readers take {LARGEST_HEADER:,}")
    return Shard(name, head, header.tensors, tuple(items))
