"""llama.cpp: what its converter and its graphs take of an export. Source: build 11549, its code and running it."""

import re
from collections.abc import Iterator, Sequence

from studio.core.architectures.config import model_types
from studio.core.layouts.fitting import kept, named, with_format
from studio.core.model import Model
from studio.core.planning.plan import Choice

_GRAPHS = """
bitnet cohere2 cohere2_moe deepseek_v32 gemma4 gemma4_text glm_moe_dsa llama mellum mistral mistral3 ministral3 mixtral
nanbeige nemotron_h qwen3 qwen3_5 qwen3_5_moe qwen3_5_text qwen3_moe qwen3_next
"""
GRAPHS_WITH_SCALES = frozenset(_GRAPHS.split())
"""Model types whose feed-forward graphs apply the tensor scale; others ignore it there and in experts, and give NaN."""

BLOCK = 64
"""NVFP4 rows are packed in units of this many weights."""

_FEED_FORWARD = re.compile(r"\b(mlp|feed_forward|ffn|experts|block_sparse_moe|moe|fc1|fc2)\b")
_PLAIN = r"\.kv_b_proj$"


def fit(model: Model, choices: Sequence[Choice]) -> tuple[Choice, ...]:
    """The choices as llama.cpp can convert and run them: kept or in two tiers, with the reason."""
    return tuple(_fitted(model, choice) for choice in choices)


def convertible(model: Model, choices: Sequence[Choice]) -> tuple[Choice, ...]:
    """`fit` for a folder, of which the converter takes NVFP4 alone."""
    unread = "llama.cpp's converter reads layers in NVFP4 only"
    return fit(model, [kept(c, unread) if c.recipe and not is_nvfp4(c) else c for c in choices])


def _fitted(model: Model, choice: Choice) -> Choice:
    if choice.recipe is None:
        return choice
    if is_ragged(choice):
        return kept(choice, f"llama.cpp packs rows in units of {BLOCK} weights")
    if named(choice, _PLAIN):
        return kept(choice, "llama.cpp takes it apart while converting, which it can do with plain weights only")
    if ignores_scale(model, choice):
        return with_format(choice, "nvfp4-2t", "two tiers, since llama.cpp ignores tensor scales in this graph")
    return choice


def is_nvfp4(choice: Choice) -> bool:
    """True for a layer in NVFP4, which is all that the converter takes of these layouts."""
    return choice.format in ("nvfp4-2t", "nvfp4-3t")


def is_ragged(choice: Choice) -> bool:
    """True when rows of a quantized layer can not be packed there."""
    packed = choice.recipe is not None and choice.recipe.format.scale == "e4m3"
    return packed and any(matrix.columns % BLOCK for matrix in choice.layer.matrices)


def ignores_scale(model: Model, choice: Choice) -> bool:
    """True for a layer with a tensor scale that its graph ignores."""
    tiered = choice.recipe is not None and choice.recipe.format.tensor_scale
    known = any(kind in GRAPHS_WITH_SCALES for kind in model_types(model.config))
    return tiered and not known and bool(_FEED_FORWARD.search(choice.layer.name))


def obstacles(model: Model, choices: Sequence[Choice]) -> Iterator[tuple[str, str]]:
    """(why llama.cpp does not convert or run the choices, what to export instead)."""
    quantized = [choice for choice in choices if choice.recipe]
    instead = "--for llama.cpp stores or keeps those as it can"
    if any(ignores_scale(model, choice) for choice in quantized):
        kind = model_types(model.config)[-1]
        yield f"its graph of {kind} ignores tensor scales in the feed-forward part and gives NaN", instead
    if any(map(is_ragged, quantized)):
        yield f"it packs rows in units of {BLOCK} weights, which some here are no multiple of", instead
    if others := sorted({choice.format for choice in quantized if not is_nvfp4(choice)}):
        yield f"its converter does not read {', '.join(others)}", instead
    if any(named(choice, _PLAIN) for choice in quantized):
        yield "it wants kv_b_proj plain", instead
    yield from refusals(model, choices)


def refusals(model: Model, choices: Sequence[Choice]) -> Iterator[tuple[str, str]]:
    """What no other choice of formats helps against, short of keeping layers."""
    quantized = [choice.layer for choice in choices if choice.recipe]
    if any(".block_sparse_moe.experts." in layer.name for layer in quantized):
        yield "llama.cpp's converter does not know the names of these experts", "keep them"
    biases = {layer.name.removesuffix(".bias") for layer in model.layers if layer.name.endswith("_proj.bias")}
    if "llama" in model_types(model.config) and any(".mlp." in name for name in biases & {m.name for m in quantized}):
        yield "llama.cpp can not add biases in a quantized feed-forward part", "keep those layers"
