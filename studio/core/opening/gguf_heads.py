"""Heads of attention and their rotation, from the metadata of a GGUF file."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.core.names import printable
from studio.core.opening.gguf_facts import Facts, shortest

HEADS_KV, ROPE_BASE, ROTATED = "attention.head_count_kv", "rope.freq_base", "rope.dimension_count"
HEAD_WIDTHS = ("attention.key_length", "attention.value_length", ROTATED)
_SCALING = "rope.scaling."
_ORIGINAL = f"{_SCALING}original_context_length"
_YARN: Mapping[str, str] = {
    "beta_fast": f"{_SCALING}yarn_beta_fast",
    "beta_slow": f"{_SCALING}yarn_beta_slow",
    "attention_factor": f"{_SCALING}yarn_attn_factor",
}
_FACTOR_OF_LENGTHS = f"{_SCALING}attn_factor"
SCALINGS = {f"{_SCALING}{name}" for name in ("type", "factor", "finetuned", "attn_factor")} | {
    _ORIGINAL,
    *_YARN.values(),
}
"""What is read of how a context is stretched."""

_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""Of every model that stretches its context as Llama 3.1 does."""


def heads(facts: Facts, warnings: list[str]) -> dict[str, Any]:
    """What config.json says of heads and rotation; adds to `warnings` what it can not say. Raises CheckpointError."""
    config: dict[str, Any] = {}
    config["num_key_value_heads"] = facts.number(HEADS_KV if facts.get(HEADS_KV) else "attention.head_count")
    config["head_dim"] = _head_width(facts)
    if facts.row.partial and facts.get(ROTATED):
        config["partial_rotary_factor"] = facts.number(ROTATED) / config["head_dim"]
    return config | rotation(facts, warnings)


def rotation(facts: Facts, warnings: list[str]) -> dict[str, Any]:
    """The base of rotation, and how a context is stretched; see `heads`."""
    base = facts.number(ROPE_BASE) if facts.get(ROPE_BASE) else 10000.0
    return {"rope_theta": base, "rope_scaling": _rope_scaling(facts, warnings)}


def _head_width(facts: Facts) -> int:
    heads, width = facts.number("attention.head_count"), facts.number("embedding_length")
    keys = [key for key in HEAD_WIDTHS if facts.get(key) and not (facts.row.partial and key == ROTATED)]
    said = {key: int(facts.number(key)) for key in keys}
    found = next(iter(said.values()), int(width // heads))
    if odd := [f"{key} {value}" for key, value in said.items() if value != found]:
        raise facts.refuse(
            f"heads of {found} values with {' and '.join(odd)}: {facts.row.model_type} has no such heads"
        )
    if found <= 0:
        raise facts.refuse(f"heads of {found} values")
    return found


def _rope_scaling(facts: Facts, warnings: list[str]) -> dict[str, Any] | None:
    kind = facts.get(f"{_SCALING}type")
    if kind not in (None, "none", "linear", "yarn"):
        raise facts.refuse(f"{facts.row.name}.{_SCALING}type is {printable(kind, 40)}, which is not read")
    if facts.lengths:
        return _two_lengths(facts)
    if facts.rope_factors is not None:
        return _llama3_scaling(facts, facts.rope_factors, warnings)
    if kind in (None, "none"):
        return None
    found = {"rope_type": kind, "factor": facts.number(f"{_SCALING}factor")}
    if kind == "yarn":
        found["original_max_position_embeddings"] = facts.number(_ORIGINAL)
        found |= facts.row.yarn
        stretched = {**_YARN, **facts.row.yarn_fields}
        found |= {name: facts.number(key) for name, key in stretched.items() if facts.get(key)}
    return found


def _two_lengths(facts: Facts) -> dict[str, Any]:
    """The scaling of Phi, in the words of its makers; cosines are multiplied by what follows from the lengths."""
    long, short = ([shortest(one) for one in factors] for factors in facts.lengths)
    original = facts.whole(_ORIGINAL)
    times = max(facts.whole("context_length") / original, 1.0)
    wanted = math.sqrt(1 + math.log(times) / math.log(max(original, 2)))
    said = facts.number(_FACTOR_OF_LENGTHS) if facts.get(_FACTOR_OF_LENGTHS) else wanted
    if not math.isclose(said, wanted, rel_tol=1e-5):
        raise facts.refuse(f"{facts.row.name}.{_FACTOR_OF_LENGTHS} is {said:g}, the lengths of texts say {wanted:g}")
    return {"type": "longrope", "long_factor": long, "short_factor": short}


def _llama3_scaling(facts: Facts, factors: NDArray[np.float32], warnings: list[str]) -> dict[str, Any] | None:
    """What rope_freqs.weight was made from, if it was made as for Llama 3.1."""
    found = {"rope_type": "llama3", "factor": float(factors.max()), **_LLAMA3}
    base = float(facts.number(ROPE_BASE)) if facts.get(ROPE_BASE) else 10000.0
    if np.allclose(llama3_factors(base, 2 * factors.size, found), factors, rtol=1e-5):
        return found
    warnings.append("rope_freqs.weight: not the scaling of Llama 3.1, so config.json knows nothing of it")
    return None


def llama3_factors(base: float, width: int, scaling: Mapping[str, Any]) -> NDArray[np.float32]:
    """What the frequencies of a head of `width` are divided by, as llama.cpp's converter computes it: [width / 2]."""
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    old, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    waves = 2 * math.pi * base ** (np.arange(0, width, 2) / width)
    smooth = np.clip((old / waves - low) / (high - low), 0, 1)
    divided: NDArray[np.float32] = (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)
    return divided
