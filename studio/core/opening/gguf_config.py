"""config.json from the metadata of a GGUF file, as transformers 4 and 5 and what stands on them read it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.core.architectures.gguf import GgufArchitecture
from studio.core.errors import CheckpointError
from studio.core.names import printable, some_of

_TOKENS: Mapping[str, str] = {
    "bos_token_id": "tokenizer.ggml.bos_token_id",
    "eos_token_id": "tokenizer.ggml.eos_token_id",
    "pad_token_id": "tokenizer.ggml.padding_token_id",
}
_HEADS_KV, _ROPE_BASE = "attention.head_count_kv", "rope.freq_base"
_ROTATED = "rope.dimension_count"
_HEAD_WIDTHS = ("attention.key_length", "attention.value_length", _ROTATED)
_SCALING = "rope.scaling."
_ORIGINAL = f"{_SCALING}original_context_length"
_YARN: Mapping[str, str] = {
    "beta_fast": f"{_SCALING}yarn_beta_fast",
    "beta_slow": f"{_SCALING}yarn_beta_slow",
    "attention_factor": f"{_SCALING}yarn_attn_factor",
}
_SCALINGS = {f"{_SCALING}{name}" for name in ("type", "factor", "finetuned")} | {_ORIGINAL, *_YARN.values()}
"""What is read of how a context is stretched."""

_PATTERN = "attention.sliding_window_pattern"
_NOT_FOR_CONFIG = {"vocab_size", "expert_count", "expert_used_count", "expert_feed_forward_length"}
"""Keys whose values follow from the tensors, and of experts where none are."""

_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""Of every model that stretches its context as Llama 3.1 does."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a config follows from.

    The row of the architecture, the pairs, shapes by llama.cpp's names, what rope_freqs.weight holds, whether the
    embedding is stored in F16.
    """

    row: GgufArchitecture
    pairs: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    rope_factors: NDArray[np.float32] | None
    half: bool
    file: Path

    def get(self, key: str) -> Any:
        """The value of a key of the architecture, None where there is none."""
        return self.pairs.get(f"{self.row.name}.{key}")

    def has(self, name: str) -> bool:
        """True where the first block, or the one behind it, has a tensor."""
        return any(f"blk.{block}.{name}" in self.shapes for block in (0, 1))

    def refuse(self, what: str) -> CheckpointError:
        """An error of this file."""
        return CheckpointError(what, file=self.file)

    def number(self, key: str) -> int | float:
        """A finite number above 0; raises CheckpointError for anything else."""
        value = self.get(key)
        if isinstance(value, list) and value and all(item == value[0] for item in value):
            value = value[0]
        if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
            said = "is missing" if value is None else f"is {printable(value, 60)}, not a number above 0"
            raise self.refuse(f"{self.row.name}.{key} {said}")
        return _shortest(value)

    def count(self, key: str) -> int:
        """A whole number, 0 where it is missing; raises CheckpointError for anything else."""
        value = self.get(key) or 0
        if type(value) is not int or value < 0:
            raise self.refuse(f"{self.row.name}.{key} is {printable(value, 60)}, not a whole number from 0 on")
        return value


def config_of(facts: Facts, warnings: list[str]) -> dict[str, Any]:
    """The config; adds to `warnings` what of the metadata it can not hold. Raises CheckpointError."""
    row = facts.row
    if odd := [key for key in row.never if facts.get(key)]:
        raise facts.refuse(
            f"{row.name} with {odd[0]}: another architecture than {row.model_type}, which is not known here"
        )
    config: dict[str, Any] = {"architectures": [row.architecture], "model_type": row.model_type}
    config |= {name: facts.number(key) for name, key in row.needed.items()}
    config["num_key_value_heads"] = facts.number(_HEADS_KV if facts.get(_HEADS_KV) else "attention.head_count")
    config["head_dim"] = _head_width(facts)
    if row.partial and facts.get(_ROTATED):
        config["partial_rotary_factor"] = facts.number(_ROTATED) / config["head_dim"]
    config["rope_theta"] = facts.number(_ROPE_BASE) if facts.get(_ROPE_BASE) else 10000.0
    config["rope_scaling"] = _rope_scaling(facts, warnings)
    config |= dict(row.implied)
    config |= {name: facts.number(key) for name, key in row.optional.items() if facts.get(key)}
    config |= {name: facts.count(key) for name, key in row.counts.items()}
    config |= {name: bool(facts.get(key)) for name, key in row.flags.items()}
    config |= {name: facts.has(own) for name, own in row.present.items()}
    config |= _windows(facts, config) if row.windows else {}
    if row.divided:
        config["query_pre_attn_scalar"] = _query_scale(config, row.divided)
    config |= {name: config[key] for name, key in row.again.items() if key in config}
    config |= _biases(facts)
    config |= {name: facts.pairs[key] for name, key in _TOKENS.items() if type(facts.pairs.get(key)) is int}
    config["vocab_size"] = facts.shapes["token_embd.weight"][0]
    config["tie_word_embeddings"] = "output.weight" not in facts.shapes
    config["torch_dtype"] = "float16" if facts.half else "bfloat16"
    if unknown := sorted(_unknown(facts)):
        warnings.append(f"{some_of(unknown)}: what the file says of the model there does not go into config.json")
    return config


def _shortest(value: float) -> int | float:
    """A float32 as the number that people wrote."""
    return value if isinstance(value, int) else float(str(np.float32(value)))


def _head_width(facts: Facts) -> int:
    heads, width = facts.number("attention.head_count"), facts.number("embedding_length")
    keys = [key for key in _HEAD_WIDTHS if facts.get(key) and not (facts.row.partial and key == _ROTATED)]
    said = {key: int(facts.number(key)) for key in keys}
    found = next(iter(said.values()), int(width // heads))
    if odd := [f"{key} {value}" for key, value in said.items() if value != found]:
        raise facts.refuse(
            f"heads of {found} values with {' and '.join(odd)}: {facts.row.model_type} has no such heads"
        )
    return found


def _query_scale(config: Mapping[str, Any], divided: int) -> int:
    wide = config["num_hidden_layers"] == divided
    return int(config["hidden_size"] // config["num_attention_heads"]) if wide else int(config["head_dim"])


def _rope_scaling(facts: Facts, warnings: list[str]) -> dict[str, Any] | None:
    kind = facts.get(f"{_SCALING}type")
    if kind not in (None, "none", "linear", "yarn"):
        raise facts.refuse(f"{facts.row.name}.{_SCALING}type is {printable(kind, 40)}, which is not read")
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


def _llama3_scaling(facts: Facts, factors: NDArray[np.float32], warnings: list[str]) -> dict[str, Any] | None:
    """What rope_freqs.weight was made from, if it was made as for Llama 3.1."""
    found = {"rope_type": "llama3", "factor": float(factors.max()), **_LLAMA3}
    base = float(facts.number(_ROPE_BASE)) if facts.get(_ROPE_BASE) else 10000.0
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


def _windows(facts: Facts, config: Mapping[str, Any]) -> dict[str, Any]:
    """What the blocks see, where the file says it of each."""
    seen = facts.get(_PATTERN)
    if seen is None:
        return {}
    if not isinstance(seen, list) or len(seen) != config["num_hidden_layers"]:
        raise facts.refuse(f"{facts.row.name}.{_PATTERN} does not say of each block whether it sees a window only")
    return {"layer_types": ["sliding_attention" if one else "full_attention" for one in seen]}


def _biases(facts: Facts) -> dict[str, Any]:
    """Which biases there are, where config.json says it."""
    found = {}
    for key, modules in facts.row.biases.items():
        there = {name for name in modules if facts.has(f"{name}.bias")}
        if len(there) not in (0, len(modules)):
            kind = facts.row.model_type
            raise facts.refuse(f"biases for some projections only ({some_of(sorted(there))}), which {kind} has not")
        found[key] = bool(there)
    return found


def _unknown(facts: Facts) -> Iterator[str]:
    row = facts.row
    read = (row.needed, row.optional, row.counts, row.flags, row.yarn_fields)
    known = {key for keys in read for key in keys.values()} | {*row.ignored, *_HEAD_WIDTHS, _HEADS_KV, _ROPE_BASE}
    known |= _NOT_FOR_CONFIG | _SCALINGS
    if row.windows:
        known.add(_PATTERN)
    for key, value in facts.pairs.items():
        name = key.removeprefix(f"{row.name}.")
        if name != key and name not in known and value not in (0, None):
            yield key
