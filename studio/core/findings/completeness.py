"""Checks of whether a model is all there: blocks, the weights of each, and sizes that the config states."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from studio.core.architectures import sections
from studio.core.counting import counted
from studio.core.findings.finding import Observation
from studio.core.findings.folder import CONFIG, Folder
from studio.core.findings.readers import generates, said
from studio.core.model import Layer

_BLOCK = re.compile(r"(.*?(?:layers|blocks|h))\.(\d{1,5})\.(.+)")
_NUMBER = re.compile(r"\.\d+(?=\.)")
_FEWEST_BLOCKS = 3
_SHARED = {
    "down_proj": (("up_proj", 0, 1), ("up_proj", 1, 0), ("gate_proj", 0, 1), ("gate_proj", 1, 0)),
    "k_proj": (("q_proj", 1, 1), ("v_proj", 1, 1)),
}
"""Names of matrices: another beside it, and which of the sizes of both are one."""

_OF_BLOCKS = re.compile(r"(?:^|\.)(?:self_attn|mlp|feed_forward|shared_experts?|experts\.\d+)$")
"""Modules of which that is so; what looks at pictures, or connects, may have others."""

_AT_ENDS = ("q_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def blocks(folder: Folder) -> Iterator[Observation]:
    """Blocks that are missing, or lack what all others of their kind have."""
    if folder.is_cut or not _is_whole(folder) or "block_configs" in folder.config:
        return  # of these configs each block may be of a kind of its own
    stacks: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name in dict.fromkeys(_modules(folder)):
        if found := _BLOCK.fullmatch(name):
            stacks[found[1]][int(found[2])].add(found[3])
    main = max(stacks, key=lambda stack: len(stacks[stack]), default="")
    wanted = said(folder, "num_hidden_layers")
    for stack, members in stacks.items():
        yield from _absent(stack, members, wanted if type(wanted) is int and stack == main else 0)
    there = len(stacks[main]) if main else 0
    if type(wanted) is int and there and wanted > there and not _counts_otherwise(folder):
        evidence = f"num_hidden_layers is {wanted:,}, {main} has {counted(there, 'block')}"
        yield Observation("blocks-missing", CONFIG, evidence)


def _is_whole(folder: Folder) -> bool:
    """False for one file of weights of which there may be others."""
    return folder.path.is_dir() or folder.model is not None


def _modules(folder: Folder) -> Iterator[str]:
    """The modules that hold weights; of GGUF under the names that transformers has for them."""
    if folder.model:
        return (layer.name.removesuffix(".bias") for layer in folder.layers)
    return (name.rpartition(".")[0] for name in folder.stored)


def _counts_otherwise(folder: Folder) -> bool:
    """True where blocks are shared, so that fewer are stored than are run."""
    keys = ("num_hidden_groups", "num_mem_blocks", "num_kv_shared_layers", "num_nextn_predict_layers")
    return any(key in section for section in sections(folder.config) for key in keys)


def _absent(stack: str, members: Mapping[int, set[str]], blocks: int) -> Iterator[Observation]:
    """Blocks below `blocks` that are not there, and what one lacks that all others have.

    A block that has something of its own, as the dense one of a mixture of experts, is of another kind. The first and
    the last may go without a norm, or without keys and values.
    """
    if len(members) < _FEWEST_BLOCKS:
        return
    for number in range(min(members), min(max(members), blocks)):
        if number not in members:
            yield Observation("blocks-missing", f"{stack}.{number}", f"of {counted(blocks, 'block')}")
    counts = Counter(name for names in members.values() for name in names)
    common = sorted(name for name, count in counts.items() if count == len(members) - 1)
    for number, names in members.items():
        inside = min(members) < number < max(members)
        lacks = [name for name in common if name not in names and (inside or name.endswith(_AT_ENDS))]
        if all(counts[name] > 1 for name in names) and len(lacks) < len(names):
            for name in lacks:
                yield Observation("weight-missing", f"{stack}.{number}.{name}", f"{len(members) - 1:,} others have one")


def shapes(folder: Folder) -> Iterator[Observation]:
    """A weight of another shape than those of its name in all other blocks of its kind; the ends may differ."""
    yield from _joined(folder)
    if "block_configs" in folder.config:
        return
    kinds = next((found for part in sections(folder.config) if isinstance(found := part.get("layer_types"), list)), [])
    named: dict[tuple[str, str], list[Layer]] = defaultdict(list)
    for layer in _readable(folder):
        named[_NUMBER.sub(".#", layer.name), _kind(layer, kinds)].append(layer)
    for layers in named.values():
        counts = Counter(layer.shape for layer in layers)
        odd = next((layer for layer in layers[1:-1] if counts[layer.shape] == 1), None)
        if odd and len(counts) == 2 and len(layers) >= _FEWEST_BLOCKS:
            evidence = f"{list(odd.shape)}, those of {counted(len(layers) - 1, 'other')} are {list(layers[0].shape)}"
            yield Observation("weight-shape", odd.name, evidence)


def _kind(layer: Layer, kinds: Sequence[Any]) -> str:
    """What the config calls the kind of a layer's block: of some models one kind has wider heads than another."""
    block = _BLOCK.fullmatch(layer.name) if kinds else None
    return str(kinds[int(block[2])]) if block and int(block[2]) < len(kinds) else ""


def _readable(folder: Folder) -> Iterator[Layer]:
    """The layers whose shapes are known: codes that nothing reads have those of their bytes."""
    unread = folder.recognized.unread
    return (layer for layer in folder.layers if layer.source.stored.tensor.name not in unread)


def _joined(folder: Folder) -> Iterator[Observation]:
    """Matrices that take or give the same vectors, and are of different widths: of one attention, or of one MLP."""
    readable = {layer.name: layer for layer in _readable(folder)}
    for name, layer in readable.items():
        path, _, leaf = name.rpartition(".")
        for other, own, its in _SHARED.get(leaf, ()) if _OF_BLOCKS.search(path) else ():
            there = readable.get(f"{path}.{other}")
            if there and len(there.shape) == len(layer.shape) == 2 and layer.shape[own] != there.shape[its]:
                evidence = f"{list(layer.shape)} beside {other} {list(there.shape)}"
                yield Observation("weight-shape", name, evidence)
                break


def sizes(folder: Folder) -> Iterator[Observation]:
    """Sizes of config.json that no weight has, and a model that has no embedding."""
    if folder.is_cut or not folder.config or not folder.layers:
        return
    roles = {layer.role for layer in folder.layers}
    if generates(folder) and "embedding" not in roles and "norm" in roles and _is_whole(folder):
        yield Observation("weight-missing", "", "there is no embedding of tokens")
    there = {size for layer in folder.layers for size in layer.shape}
    rows = {layer.shape[0] for layer in folder.layers if layer.role == "embedding" and len(layer.shape) == 2}
    hidden, tokens = said(folder, "hidden_size"), said(folder, "vocab_size")
    if type(hidden) is int and there and hidden not in there:
        yield Observation("config-sizes", CONFIG, f"hidden_size is {hidden:,}, no weight is of that size")
    if type(tokens) is int and rows and tokens not in there:
        evidence = f"vocab_size is {tokens:,}, the embedding has {', '.join(f'{size:,}' for size in sorted(rows))}"
        yield Observation("config-sizes", CONFIG, evidence)
