"""Fields of config.json that transformers 5 no longer writes, as its classes imply them; older readers ask for them."""

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

Section = Mapping[str, Any]
Value = Callable[[Section], Any]


def _always(value: Any) -> Value:
    return lambda _: value


def _copy(*keys: str) -> Value:
    """The value of the first of `keys` that is there; a dot leads into an object."""

    def value(section: Section) -> Any:
        for key in keys:
            found: Any = section
            for part in key.split("."):
                found = found.get(part) if isinstance(found, dict) else None
            if found is not None:
                return found
        return None

    return value


def _inner_width(section: Section) -> Any:
    """Width of a Mamba block."""
    return section["expand"] * section["hidden_size"]


def _rotary_dim(section: Section) -> Any:
    rope = section.get("rope_parameters")
    factor = rope.get("partial_rotary_factor", 1.0) if isinstance(rope, dict) else 1.0
    return int(section["head_dim"] * factor)


def _is_moe_layer(section: Section) -> Any:
    return [kind == "sparse" for kind in section["mlp_layer_types"]]


_MINIMAX: dict[str, Value] = {"shared_intermediate_size": _always(0), "rotary_dim": _rotary_dim}
_LAYER_NAMES = {"linear_attention": "mamba", "full_attention": "attention"}

IMPLIED: Mapping[str, Mapping[str, Value]] = {
    "apertus": {"mlp_bias": _always(False), "post_norm": _always(False), "qk_norm": _always(True)},
    "exaone_moe": {"is_moe_layer": _is_moe_layer},
    "glm_moe_dsa": {
        "topk_method": _always("noaux_tc"),
        "scoring_func": _always("sigmoid"),
        "moe_layer_freq": _always(1),
    },
    "gpt2": {"n_ctx": _copy("n_positions")},
    "gpt_neox": {
        "rotary_emb_base": _copy("rope_parameters.rope_theta"),
        "rotary_pct": _copy("rope_parameters.partial_rotary_factor"),
    },
    "lfm2": {"block_dim": _copy("hidden_size"), "block_ff_dim": _copy("intermediate_size")},
    "longcat_flash": {
        "attention_method": _always("MLA"),
        "zero_expert_type": _always("identity"),
        "mla_scale_q_lora": _always(True),
        "mla_scale_kv_lora": _always(True),
    },
    "mamba2": {"intermediate_size": _inner_width},
    "minimax_m2": _MINIMAX,
    "qwen3_vl_moe_text": {"norm_topk_prob": _always(True)},
    "solar_open": {"intermediate_size": _copy("moe_intermediate_size"), "first_k_dense_replace": _always(0)},
    "gemma4_unified_text": {"hidden_size_per_layer_input": _always(0)},
}
"""By model type of the section. Source: the classes of transformers 5.23 and the arguments of mlx-lm 0.32.2."""


def complete_fields(section: MutableMapping[str, Any]) -> None:
    """Add the fields that the model type of a section implies, where they are missing and can be told."""
    kind = str(section.get("model_type", ""))
    for name, value in IMPLIED.get(kind, {}).items():
        if section.get(name) is None:
            try:
                found = value(section)
            except (KeyError, TypeError, ValueError, OverflowError):
                continue  # what it follows from is missing or odd: the reader will say so
            if found is not None:
                section[name] = found
    if kind == "dbrx":
        _move_rotary_base(section)
    if kind.startswith("granitemoe") and isinstance(section.get("layer_types"), list):
        section["layer_types"] = [_LAYER_NAMES.get(str(name), name) for name in section["layer_types"]]


def _move_rotary_base(section: MutableMapping[str, Any]) -> None:
    """DBRX keeps it in the section of attention, where transformers 5 leaves the default."""
    attention, base = section.get("attn_config"), _copy("rope_parameters.rope_theta")(section)
    if isinstance(attention, dict) and base is not None:
        section["attn_config"] = {**attention, "rope_theta": base}
