"""What the layouts of the PyTorch world share: a module per matrix, uint8 codes, E4M3 scales, an exclusion list."""

import fnmatch
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from kernels import Format
from studio.core.architectures import MATRIX_ROLES, renamed
from studio.core.architectures.generic import BLOCK, PARTS
from studio.core.architectures.naming import part_of
from studio.core.containers.dtypes import BITS
from studio.core.layouts import llama_cpp
from studio.core.layouts.placement import Content, Placement, stored_nbytes
from studio.core.model import Layer, Matrix, Model
from studio.core.planning.plan import Choice

NVFP4 = ("nvfp4-2t", "nvfp4-3t")
Part = tuple[Content, str, str]
"""What of a matrix a module holds, under which name, as which dtype."""

_ANYWHERE = r"(.*\.)?"
_INSIDE = r"(\..*)?$"
_BLOCK = re.compile(BLOCK)
_NUMBER = re.compile(r"\b\d+\b")
_OTHER_NAMES = {
    "head": (
        _ANYWHERE + r"(lm_head|embed_out)$",
        _ANYWHERE + r"(\w*head|\w*predictions|mlm_score)\.(decoder|out_proj)$",
        _ANYWHERE + r"(generator_lm_head|output_projection|unembedding_projection|vocab_projector|lm_loss)$",
        r"(model\.)?(decoder|head|output|proj_out|pred_layer\.proj)$",
    ),
    "router": (_ANYWHERE + r"(router|gate)(\.\w+)?$",),
    "vision": (r".*(vision|visual|image)",),
    "audio": (r".*(audio|speech|sound)",),
    "projector": (r".*(projector|projection|connector|resampler|merger|embed_vision|embed_audio)",),
}
"""Names that runtimes give to modules of a role, whatever the checkpoint calls them."""


def place_module(
    matrix: Matrix, row: Format, parts: Sequence[Part], scalar: tuple[int, ...], scales: tuple[int, ...] = ()
) -> list[Placement]:
    """Where the parts of one module go; `scalar` is the shape of a tensor scale, `scales` that of others where odd."""
    dtypes = {content: dtype for content, _, dtype in parts}
    blocks = (matrix.rows, matrix.columns // row.block)
    usual = row.tiles(matrix.rows, matrix.columns) if row.scale == "float32" else blocks
    shapes: Mapping[Content, tuple[int, ...]] = {
        "codes": (matrix.rows, matrix.columns * row.bits // BITS[dtypes["codes"]]),
        "scales": scales or usual,
        "tensor_scale": scalar,
        "multiplier": scalar,
        "shape": (2,),
    }
    return [
        Placement(content, f"{matrix.name}.{name}", dtype, shapes[content], stored_nbytes(dtype, shapes[content]))
        for content, name, dtype in parts
    ]


def module_refusals(model: Model, choices: Sequence[Choice], title: str, reader: str) -> list[str]:
    """Layers that readers of these layouts do not expect to be quantized."""
    sentences = [why for why, _ in llama_cpp.refusals(model, choices)] if reader == "llama.cpp" else []
    for choice in choices:
        if choice.recipe and choice.layer.role == "embedding":
            sentences.append(f"{title} stores linear layers only, and {choice.layer.name} is an embedding")
        if choice.recipe and choice.layer.role == "router":
            sentences.append(f"{choice.layer.name} is a router, which runtimes read plain: exclude it")
        if choice.recipe and choice.layer.role == "head" and model.is_tied:
            sentences.append(f"{choice.layer.name} is tied to the embedding, which {title} can not quantize")
    return sentences


def kept_modules(choices: Sequence[Choice]) -> list[str]:
    """Names of the modules that stay as they are, as the checkpoint spells them, in file order."""
    names = [name for choice in _kept(choices) for name in _modules(choice.layer)]
    if not any(choice.recipe and choice.layer.role == "head" for choice in choices):
        names.append("lm_head")
    return list(dict.fromkeys(names))


def kept_patterns(model: Model, choices: Sequence[Choice]) -> list[str]:
    """Regular expressions that match the kept modules under the names of any runtime, and no quantized one.

    Runtimes move prefixes (`model.language_model.`, `language_model.model.`) and rename heads, routers and towers, so
    what counts is where a module stands in its block, or the part of the model that it belongs to.
    """
    quantized = [choice.layer for choice in choices if choice.recipe]
    tails = {_tail(name) for layer in quantized for name in _places(layer)}
    modules = (name for layer in quantized for name in (*_places(layer), *_modules(layer)))
    kinds = {_NUMBER.sub("0", name) for name in (*modules, *tails)}
    general: dict[str, None] = {}
    single: dict[str, None] = {}
    for choice in _kept(choices):
        layer = choice.layer
        general |= dict.fromkeys(_OTHER_NAMES.get(layer.role, ()))
        for name in _places(layer):
            tail = _tail(name)
            end = _INSIDE if layer.role == "expert" else "$"
            if layer.role in PARTS:
                general |= dict.fromkeys(_part_patterns(model, name))
            elif _NUMBER.sub("0", tail) not in kinds:
                general.setdefault(_ANYWHERE + _NUMBER.sub(r"\\d+", re.escape(_ending(tail, kinds))) + end)
            elif tail not in tails:
                single.setdefault(_ANYWHERE + re.escape(tail) + end)
        general |= dict.fromkeys(_renamed_patterns(model, layer))
    if not any(choice.recipe and choice.layer.role == "head" for choice in choices):
        general |= dict.fromkeys(_OTHER_NAMES["head"])
    return [text for text in general if not any(map(re.compile(text).match, kinds))] + list(single)


def target_patterns(groups: Mapping[str, Sequence[Choice]]) -> dict[str, list[str]]:
    """Regular expressions per group that match its modules under the names of any runtime, and those of no other.

    A kind of module that belongs to one group alone is one expression, one that does so in some blocks another, with
    the numbers of these; names are spelled out only where a block has it both ways.
    """
    kinds: dict[str, dict[str, set[tuple[str, ...]]]] = defaultdict(lambda: defaultdict(set))
    for group, choices in groups.items():
        for choice in choices:
            for matrix in choice.layer.matrices:
                tail = _tail(matrix.name)
                kinds[_NUMBER.sub("0", tail)][group].add(tuple(_NUMBER.findall(tail)))
    found: dict[str, list[str]] = {group: [] for group in groups}
    for kind, owners in kinds.items():
        for group, numbers in owners.items():
            others = {other for name, own in owners.items() if name != group for other in own}
            found[group] += [f"{_ANYWHERE}{_numbered(kind, text)}$" for text in _number_patterns(numbers, others)]
    return found


def _number_patterns(own: set[tuple[str, ...]], others: set[tuple[str, ...]]) -> list[list[str]]:
    """Expressions for the numbers in names, which fit `own` and none of `others`."""
    if not others:
        return [[r"\d+"] * len(next(iter(own)))]
    shared = {numbers[:1] for numbers in others}
    blocks = sorted({numbers[0] for numbers in own if numbers and numbers[:1] not in shared}, key=int)
    width = len(next(iter(own)))
    whole = [[f"({'|'.join(blocks)})", *[r"\d+"] * (width - 1)]] if blocks else []
    return whole + [list(numbers) for numbers in sorted(own) if numbers[:1] in shared]


def _numbered(kind: str, numbers: Sequence[str]) -> str:
    pieces = [re.escape(piece) for piece in _NUMBER.split(kind)]
    return "".join(text for pair in zip(pieces, [*numbers, ""], strict=True) for text in pair)


def _places(layer: Layer) -> list[str]:
    """The modules of a layer as runtimes exclude them: experts by the module that holds them all."""
    names = (f"{m.stack}.experts" if m.expert is not None else m.name for m in layer.matrices)
    return list(dict.fromkeys(names)) or [layer.name]


def kept_wildcards(model: Model, choices: Sequence[Choice]) -> list[str]:
    """Wildcards for the parts of the model that are kept whole, whatever their prefix in a runtime."""
    quantized = [matrix.name for choice in choices if choice.recipe for matrix in choice.layer.matrices]
    parts = (part_of(choice.layer.name, model.family) for choice in _kept(choices) if choice.layer.role in PARTS)
    wanted = dict.fromkeys(f"*{part}*" for part in parts if part)
    kinds = {_NUMBER.sub("0", name) for name in quantized}
    return [text for text in wanted if not fnmatch.filter(kinds, text)]


def _part_patterns(model: Model, name: str) -> tuple[str, ...]:
    """Expressions for the part of a model that a module is in: below its component anywhere, and at the top alone."""
    if component := part_of(name, model.family):
        own = re.escape(component) + _INSIDE
        return _ANYWHERE + own, rf"(model\.)?{own}"
    return (f"{_ANYWHERE}{re.escape('.'.join(_tail(name).split('.')[:2]))}\\..*",)


def _tail(name: str) -> str:
    """What is left of a name from its last numbered block on, or its last part."""
    found = _BLOCK.search(name)
    return name[found.start() :].removeprefix(".") if found else name.rpartition(".")[2]


def _ending(tail: str, kinds: Collection[str]) -> str:
    """The last two parts of a name, or as many as it takes to be none of `kinds`; runtimes rename what is above."""
    parts = tail.split(".")
    endings = (".".join(parts[start:]) for start in range(max(len(parts) - 2, 0), 0, -1))
    numbered = ((ending, _NUMBER.sub("0", ending)) for ending in endings)
    return next((own for own, kind in numbered if not any(_ends(other, kind) for other in kinds)), tail)


def _ends(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f".{ending}")


def _renamed_patterns(model: Model, layer: Layer) -> list[str]:
    """Expressions for the names of a layer in transformers whose ends are others there."""
    renames = model.family.transformers.module
    others = (new for name in _places(layer) if (new := renamed(name, renames)) != name)
    return [_ANYWHERE + _NUMBER.sub(r"\\d+", re.escape(".".join(new.split(".")[-2:]))) + "$" for new in others]


def _kept(choices: Sequence[Choice]) -> list[Choice]:
    """Kept layers that may be modules with weights; a matrix of no role is one of a module in some runtimes."""
    plain = (choice for choice in choices if choice.recipe is None and len(choice.layer.shape) > 1)
    return [c for c in plain if c.layer.role in MATRIX_ROLES or (c.layer.role == "other" and len(c.layer.shape) == 2)]


def _modules(layer: Layer) -> list[str]:
    return [matrix.name for matrix in layer.matrices] or [layer.name]
