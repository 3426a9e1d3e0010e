"""config.json as readers take it: values where each of them looks, one truth about the head, no former quantization."""

from collections.abc import Mapping, MutableMapping
from typing import Any

from studio.core.architectures import sections, text_section
from studio.core.architectures.fields import complete_fields
from studio.core.layouts.documents import config_without_quantization
from studio.core.model import Model

_FROM_ROPE = ("rope_theta", "partial_rotary_factor")

_OTHER_HEADS = ("falcon", "zamba", "zamba2")
"""Model types whose classes know another head_dim, and take none."""

_TIE = "tie_word_embeddings"


def exported_config(model: Model) -> dict[str, Any]:
    """The config of an export: the model's own, completed for readers older than what wrote it."""
    config = config_without_quantization(model)
    config.pop("model_file", None)
    written_by_5 = _is_from_transformers_5(config)
    for section in sections(config):
        assert isinstance(section, dict)
        complete_rope(section)
        if written_by_5:
            _complete(section)
    vision = config.get("vision_config")
    if written_by_5 and isinstance(vision, dict) and vision.get("model_type") == "qwen3_vl_vision":
        vision["model_type"] = "qwen3_vl"
    text = text_section(config)
    if written_by_5 and text is not config and "vocab_size" in text:
        config.setdefault("vocab_size", text["vocab_size"])
    if model.generates:
        _say_whether_tied(config, model.is_tied)
    return config


def _is_from_transformers_5(config: Mapping[str, Any]) -> bool:
    said = str(config.get("transformers_version", "")).startswith("5")
    return said or any(isinstance(section.get("rope_parameters"), dict) for section in sections(config))


def complete_rope(section: MutableMapping[str, Any]) -> None:
    """Put what transformers 5 nests beside the other values, where older readers look for it."""
    rope = section.get("rope_parameters")
    if not isinstance(rope, dict) or not rope:
        return
    by_kind = all(isinstance(value, dict) for value in rope.values())
    local = rope.get("sliding_attention")
    whole = rope.get("full_attention", rope)
    if not isinstance(whole, dict):
        return
    for key in _FROM_ROPE:
        if key in whole:
            section.setdefault(key, whole[key])
    if isinstance(local, dict) and "rope_theta" in local:
        section.setdefault("rope_local_base_freq", local["rope_theta"])
    if whole is rope and not by_kind:
        scaled = whole.get("rope_type", "default") != "default" or "mrope_section" in whole
        section.setdefault("rope_scaling", dict(whole) if scaled else None)


def _complete(section: MutableMapping[str, Any]) -> None:
    """Add what classes of transformers 5 derive instead of writing it, and the number of experts under both names."""
    complete_fields(section)
    if "num_local_experts" in section:
        section.setdefault("num_experts", section["num_local_experts"])
    hidden, heads = section.get("hidden_size", 0), section.get("num_attention_heads", 0)
    known = section.get("head_dim") is not None or section.get("model_type") in _OTHER_HEADS
    if not known and isinstance(hidden, int) and isinstance(heads, int) and heads > 0:
        section["head_dim"] = hidden // heads


def _say_whether_tied(config: dict[str, Any], tied: bool) -> None:
    for section in sections(config):
        assert isinstance(section, dict)
        section[_TIE] = tied
