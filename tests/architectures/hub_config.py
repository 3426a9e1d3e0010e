"""The config.json of a hub checkpoint, with every field that other readers than transformers 5 look for."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

_GEMMA4 = {"vocab_size": 384, "text_config.global_head_dim": 32}
_MINIMAX = {"shared_intermediate_size": 0, "rotary_dim": 32}
FIELDS: dict[str, dict[str, Any]] = {
    "apertus": {"mlp_bias": False, "post_norm": False, "qk_norm": True},
    "dbrx": {"attn_config.rope_theta": 50000.0},
    "exaone_moe": {"is_moe_layer": [False, True, True, True]},
    "gemma2-untold": {"tie_word_embeddings": None},
    "gemma3": {"vocab_size": 384},
    "gemma4": _GEMMA4,
    "gemma4-moe": _GEMMA4,
    "gemma4_text": {"global_head_dim": 32},
    "gemma4_text-moe": {"global_head_dim": 32},
    "gemma4_unified": {**_GEMMA4, "text_config.hidden_size_per_layer_input": 0},
    "glm_moe_dsa": {"topk_method": "noaux_tc", "scoring_func": "sigmoid", "moe_layer_freq": 1},
    "gpt2": {"n_ctx": 512},
    "gpt2-hub": {"n_ctx": 512},
    "gpt_neox": {"rotary_emb_base": 20000, "rotary_pct": 0.5},
    "granitemoe-shared": {"layer_types": ["attention", "attention"]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "lfm2": {"block_dim": 128, "block_ff_dim": 256},
    "longcat_flash": {
        "attention_method": "MLA",
        "zero_expert_type": "identity",
        "mla_scale_q_lora": True,
        "mla_scale_kv_lora": True,
    },
    "mamba2": {"intermediate_size": 256},
    "mamba2-infinity": {"intermediate_size": 256},
    "minimax": _MINIMAX,
    "minimax_m2": _MINIMAX,
    "qwen3_vl_moe": {"text_config.norm_topk_prob": True},
    "qwen3_vl_moe-inputfirst": {"text_config.norm_topk_prob": True},
    "solar_open": {"intermediate_size": 256, "first_k_dense_replace": 0},
}
"""By row: fields that no rule gives, a dot leads into a section, and None takes a field out."""


def hub_config(name: str, config: PreTrainedConfig, saved: Mapping[str, Any]) -> dict[str, Any]:
    """`saved` completed: the values of fields left at their defaults, other names of fields, the rotary base."""
    data = {**saved, **_complete(config)}
    for section in ("text_config", "vision_config", "audio_config"):
        if inner := getattr(config, section, None):
            is_text = section == "text_config"
            tie = {"tie_word_embeddings": data.get("tie_word_embeddings", False)}
            data[section] = {**_complete(inner), **tie} if is_text else inner.to_dict()
    if name == "gemma3n":
        whole = {"model_type": "gemma3n", "architectures": ["Gemma3nForConditionalGeneration"]}
        data = {**whole, "tie_word_embeddings": True, "text_config": data}
    for path, value in FIELDS.get(name, {}).items():
        *sections, field = path.split(".")
        place = data
        for section in sections:
            place = place[section]
        if value is None:
            place.pop(field, None)
        else:
            place[field] = value
    return data


def _complete(config: PreTrainedConfig) -> dict[str, Any]:
    data = config.to_dict()
    data |= {alias: data[name] for alias, name in type(config).attribute_map.items() if name in data}
    if "num_attention_heads" in data and "hidden_size" in data:
        data = {"head_dim": data["hidden_size"] // data["num_attention_heads"], **data}
    rope = data.get("rope_parameters")
    return data | (_rotary(rope) if isinstance(rope, dict) else {})


def _rotary(rope: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of transformers 4 for `rope_parameters`."""
    if "full_attention" in rope:
        local = rope["sliding_attention"]["rope_theta"]
        return {"rope_theta": rope["full_attention"]["rope_theta"], "rope_local_base_freq": local}
    scaling = {key: value for key, value in rope.items() if key not in ("rope_theta", "partial_rotary_factor")}
    kept = {key: rope[key] for key in ("rope_theta", "partial_rotary_factor") if key in rope}
    is_plain = scaling.get("rope_type", "default") == "default" and len(scaling) <= 1
    return {**kept, "rope_scaling": None if is_plain else {**scaling, "type": scaling["rope_type"]}}
