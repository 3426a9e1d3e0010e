"""config.json from the metadata of a GGUF file, as transformers 4 and 5 and what stands on them read it."""

from collections.abc import Iterator, Mapping
from typing import Any

from studio.core.names import some_of
from studio.core.opening.gguf_facts import Facts
from studio.core.opening.gguf_heads import HEAD_WIDTHS, HEADS_KV, ROPE_BASE, SCALINGS, heads
from studio.core.opening.gguf_shapes import SHAPES

_TOKENS: Mapping[str, str] = {
    "bos_token_id": "tokenizer.ggml.bos_token_id",
    "eos_token_id": "tokenizer.ggml.eos_token_id",
    "pad_token_id": "tokenizer.ggml.padding_token_id",
}
_PATTERN = "attention.sliding_window_pattern"
_NOT_FOR_CONFIG = {"vocab_size", "expert_count", "expert_used_count", "expert_feed_forward_length"}
"""Keys whose values follow from the tensors, and of experts where none are."""


def config_of(facts: Facts, warnings: list[str]) -> dict[str, Any]:
    """The config; adds to `warnings` what of the metadata it can not hold. Raises CheckpointError."""
    row = facts.row
    if odd := [key for key in row.never if facts.get(key)]:
        raise facts.refuse(
            f"{row.name} with {odd[0]}: another architecture than {row.model_type}, which is not known here"
        )
    config: dict[str, Any] = {"architectures": [row.architecture], "model_type": row.model_type}
    config |= {name: facts.number(key) for name, key in row.needed.items()}
    if facts.behind:
        config["num_hidden_layers"] = len(facts.blocks(""))
    config |= dict(row.implied)
    config |= SHAPES.get(row.shape, heads)(facts, warnings)
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


def _query_scale(config: Mapping[str, Any], divided: int) -> int:
    wide = config["num_hidden_layers"] == divided
    return int(config["hidden_size"] // config["num_attention_heads"]) if wide else int(config["head_dim"])


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
    known = {key for keys in read for key in keys.values()} | {*row.ignored, *HEAD_WIDTHS, HEADS_KV, ROPE_BASE}
    known |= _NOT_FOR_CONFIG | SCALINGS
    if row.windows:
        known.add(_PATTERN)
    for key, value in facts.pairs.items():
        name = key.removeprefix(f"{row.name}.")
        if name != key and name not in known and value not in (0, None):
            yield key
