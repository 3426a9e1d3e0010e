"""Shapes: what config.json says of architectures whose heads, rotation or blocks are not as everywhere."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from studio.core.counting import counted
from studio.core.opening.gguf_facts import Facts
from studio.core.opening.gguf_heads import HEADS_KV, ROPE_BASE, ROTATED, heads, rotation

_LOG_MULTIPLIER = 0.1
"""By which llama.cpp multiplies `mscale_all_dim` of DeepSeek."""

_GROUPS, _GROUPS_USED = "expert_group_count", "expert_group_used_count"


def _latent_attention(facts: Facts, warnings: list[str]) -> dict[str, Any]:
    """DeepSeek V2 and V3: keys and values from few numbers; newer files have one head of these, older ones all."""
    mla = "_mla" if facts.get("attention.key_length_mla") else ""
    rotated = facts.whole(ROTATED)
    config: dict[str, Any] = {
        "num_key_value_heads": facts.whole("attention.head_count"),
        "kv_lora_rank": facts.whole("attention.kv_lora_rank"),
        "q_lora_rank": facts.whole("attention.q_lora_rank") if facts.get("attention.q_lora_rank") else None,
        "qk_rope_head_dim": rotated,
        "qk_nope_head_dim": facts.whole(f"attention.key_length{mla}") - rotated,
        "v_head_dim": facts.whole(f"attention.value_length{mla}"),
    }
    if config["qk_nope_head_dim"] <= 0:
        raise facts.refuse(f"{facts.row.name}: heads of which more than all is rotated")
    groups = facts.whole(_GROUPS) if facts.get(_GROUPS) else 1
    if not facts.get(_GROUPS):
        what = "it does not tell in how many groups experts are, config.json says one: compare n_group and topk_group"
        warnings.append(f"{facts.row.name}.{_GROUPS} is missing: {what} with the original")
    config |= {"n_group": groups, "topk_group": facts.whole(_GROUPS_USED) if facts.get(_GROUPS_USED) else groups}
    if facts.row.model_type == "deepseek_v2":
        config["topk_method"] = "group_limited_greedy" if groups > 1 else "greedy"
    config |= rotation(facts, warnings)
    if config["rope_scaling"] and facts.get("rope.scaling.yarn_log_multiplier"):
        scale = round(float(facts.number("rope.scaling.yarn_log_multiplier")) / _LOG_MULTIPLIER, 6)
        config["rope_scaling"] |= {"mscale": scale, "mscale_all_dim": scale}
    return config


def _linear_attention(facts: Facts, warnings: list[str]) -> dict[str, Any]:
    """Qwen3-Next and Qwen3.5: blocks with a state beside blocks with attention."""
    values = facts.whole("ssm.time_step_rank")
    width, rest = divmod(facts.whole("ssm.inner_size"), values)
    keys = facts.whole("ssm.group_count")
    if rest or values % keys:
        raise facts.refuse(
            f"{facts.row.name}: {counted(keys, 'head')} of keys and {values:,} of values do not fit together"
        )
    config = heads(facts, warnings) | {
        "linear_conv_kernel_dim": facts.whole("ssm.conv_kernel"),
        "linear_key_head_dim": facts.whole("ssm.state_size"),
        "linear_value_head_dim": width,
        "linear_num_key_heads": keys,
        "linear_num_value_heads": values,
        "layer_types": [_LAYERS[there] for there in facts.blocks("ssm_out.weight")],
    }
    sections = facts.get("rope.dimension_sections")
    return _in_sections(facts, config, sections) if isinstance(sections, list) else config


_LAYERS = {True: "linear_attention", False: "full_attention"}


def _in_sections(facts: Facts, config: dict[str, Any], sections: list[Any]) -> dict[str, Any]:
    """The rotation of Qwen3.5, whose config.json has all of it in one place."""
    if len(sections) < 3 or any(type(one) is not int or one < 0 for one in sections):
        raise facts.refuse(f"{facts.row.name}.rope.dimension_sections are no three whole numbers")
    if config.pop("rope_scaling"):
        raise facts.refuse(f"{facts.row.name} with a stretched context is not read")
    rope = {"rope_type": "default", "rope_theta": config.pop("rope_theta"), "mrope_interleaved": True}
    rope |= {"mrope_section": sections[:3], "partial_rotary_factor": config.pop("partial_rotary_factor", 1.0)}
    return config | {"rope_parameters": rope}


def _windows_and_wholes(facts: Facts, _warnings: list[str]) -> dict[str, Any]:
    """Gemma 4: heads, keys and rotation differ between blocks that see a window and those that see all."""
    seen = facts.get("attention.sliding_window_pattern")
    count = len(facts.blocks(""))
    if not isinstance(seen, list) or len(seen) != count or all(seen):
        raise facts.refuse(f"{facts.row.name}: it does not tell of each block whether it sees a window only")
    shared = facts.count("attention.shared_kv_layers")
    config: dict[str, Any] = {
        "layer_types": ["sliding_attention" if one else "full_attention" for one in seen],
        "head_dim": facts.whole("attention.key_length_swa"),
        "global_head_dim": facts.number("attention.key_length"),
        "num_kv_shared_layers": shared,
        "hidden_size_per_layer_input": facts.count("embedding_length_per_layer_input"),
        "vocab_size_per_layer_input": facts.shapes.get("per_layer_token_embd.weight", (0,))[0],
        "rope_parameters": _two_rotations(facts),
    }
    keys = _of_each(facts, HEADS_KV, count)
    windows, wholes = (
        {key for key, one in zip(keys, seen, strict=True) if bool(one) is kind} for kind in (True, False)
    )
    widths = _of_each(facts, "feed_forward_length", count)
    own, behind = set(widths[: count - shared]), set(widths[count - shared :]) or {widths[0]}
    if max(map(len, (windows, wholes, own, behind))) > 1 or not windows or behind not in (own, {2 * widths[0]}):
        raise facts.refuse(f"{facts.row.name}: blocks of one kind have different heads or widths")
    config |= {"num_key_value_heads": windows.pop(), "num_global_key_value_heads": wholes.pop()}
    config |= {"intermediate_size": widths[0], "use_double_wide_mlp": behind != own}
    alone = [there for there, one in zip(facts.blocks("attn_v.weight"), seen, strict=True) if not one][: count - shared]
    config["attention_k_eq_v"] = not any(alone)
    experts = bool(facts.get("expert_count"))
    return config | {"enable_moe_block": experts} | (_experts_of_gemma(facts) if experts else {})


def _experts_of_gemma(facts: Facts) -> dict[str, Any]:
    return {
        "num_experts": facts.whole("expert_count"),
        "top_k_experts": facts.whole("expert_used_count"),
        "moe_intermediate_size": facts.whole("expert_feed_forward_length"),
    }


def _of_each(facts: Facts, key: str, count: int) -> list[int]:
    """A whole number above 0 of each block."""
    found = facts.get(key)
    numbers = found if isinstance(found, list) else [found] * count
    if len(numbers) != count or any(type(one) is not int or one <= 0 for one in numbers):
        raise facts.refuse(f"{facts.row.name}.{key} is no whole number above 0 for each of {counted(count, 'block')}")
    return numbers


def _two_rotations(facts: Facts) -> dict[str, Any]:
    whole, factors = facts.whole("attention.key_length"), facts.rope_factors
    if factors is None or factors.size != whole // 2:
        raise facts.refuse("rope_freqs.weight does not tell which part of a head is rotated")
    rotated = int((factors == 1).sum())
    if not (factors[:rotated] == 1).all() or not (factors[rotated:] > _NOT_ROTATED).all():
        raise facts.refuse("rope_freqs.weight: neither 1 nor endless, which is not read")
    full = {"rope_type": "proportional", "partial_rotary_factor": 2 * rotated / whole}
    window = {"rope_type": "default", "rope_theta": facts.number(f"{ROPE_BASE}_swa")}
    if (part := facts.number(f"{ROTATED}_swa") / facts.whole("attention.key_length_swa")) != 1:
        window["partial_rotary_factor"] = part
    return {"full_attention": full | {"rope_theta": facts.number(ROPE_BASE)}, "sliding_attention": window}


_NOT_ROTATED = np.float32(1e29)
"""What frequencies are divided by where nothing is to be rotated is larger."""


def _falcon(facts: Facts, warnings: list[str]) -> dict[str, Any]:
    """Falcon: one head of keys for all, or groups of heads, with one norm or two in front of a block."""
    if any(facts.has(f"{module}.bias") for module in ("attn_qkv", "attn_output", "ffn_up", "ffn_down")):
        raise facts.refuse("falcon with biases, as those of RefinedWeb have, is not read")
    found = heads(facts, warnings)
    keys, norms = int(found["num_key_value_heads"]), 2 if facts.has("attn_norm_2.weight") else 1
    wide = keys > 1 or norms == 2
    return {
        "num_kv_heads": keys,
        "num_key_value_heads": keys,
        "multi_query": not wide,
        "new_decoder_architecture": wide,
        "num_ln_in_parallel_attn": norms if wide else None,
        "rope_theta": found["rope_theta"],
        "rope_scaling": found["rope_scaling"],
    }


def _state_space(facts: Facts, _warnings: list[str]) -> dict[str, Any]:
    """Mamba and Falcon Mamba."""
    hidden, inner = facts.whole("embedding_length"), facts.whole("ssm.inner_size")
    return {
        "state_size": facts.whole("ssm.state_size"),
        "conv_kernel": facts.whole("ssm.conv_kernel"),
        "expand": _times(facts, inner, hidden),
        "intermediate_size": inner,
        "time_step_rank": facts.whole("ssm.time_step_rank"),
        "layer_norm_epsilon": facts.number("attention.layer_norm_rms_epsilon"),
        "use_bias": facts.has("ssm_in.bias"),
        "use_conv_bias": facts.has("ssm_conv1d.bias"),
    }


def _state_space_2(facts: Facts, warnings: list[str]) -> dict[str, Any]:
    """Mamba 2, whose states have heads."""
    config = _state_space(facts, warnings)
    count = int(config.pop("time_step_rank"))
    width = _times(facts, int(config.pop("intermediate_size")), count)
    return config | {"num_heads": count, "head_dim": width, "n_groups": facts.whole("ssm.group_count")}


def _here_and_there(facts: Facts, warnings: list[str]) -> dict[str, Any]:
    """Granite 4: blocks with a state as Mamba 2 has it, a few with attention."""
    states, keys = facts.blocks("ssm_out.weight"), facts.get(HEADS_KV)
    keys = keys if isinstance(keys, list) else [keys] * len(states)
    found = {key for key, state in zip(keys, states, strict=False) if not state}
    if len(keys) != len(states) or len(found) > 1 or any(type(key) is not int or key <= 0 for key in found):
        raise facts.refuse(f"{facts.row.name}.{HEADS_KV} does not tell the heads of the blocks with attention")
    heads_, count = facts.whole("attention.head_count"), facts.whole("ssm.time_step_rank")
    inner, hidden = facts.whole("ssm.inner_size"), facts.whole("embedding_length")
    config: dict[str, Any] = {
        "num_key_value_heads": found.pop() if found else heads_,
        "head_dim": _times(facts, hidden, heads_),
        "layer_types": ["mamba" if state else "attention" for state in states],
        "mamba_n_heads": count,
        "mamba_d_head": _times(facts, inner, count),
        "mamba_expand": _times(facts, inner, hidden),
        "mamba_n_groups": facts.whole("ssm.group_count"),
        "mamba_d_state": facts.whole("ssm.state_size"),
        "mamba_d_conv": facts.whole("ssm.conv_kernel"),
        "mamba_conv_bias": facts.has("ssm_conv1d.bias"),
        "mamba_proj_bias": facts.has("ssm_in.bias"),
        "attention_bias": any(facts.blocks("attn_q.bias")),
        "num_local_experts": facts.count("expert_count"),
        "num_experts_per_tok": facts.count("expert_used_count"),
        "position_embedding_type": "rope" if facts.get("rope.scaling.finetuned") else "nope",
    }
    return config | rotation(facts, warnings)


def _times(facts: Facts, whole: int, part: int) -> int:
    if whole % part:
        raise facts.refuse(f"{facts.row.name}: an inner size of {whole:,}, which {part:,} does not divide")
    return whole // part


SHAPES: Mapping[str, Callable[[Facts, list[str]], dict[str, Any]]] = {
    "latent attention": _latent_attention,
    "linear attention": _linear_attention,
    "attention here and there": _here_and_there,
    "windows and wholes": _windows_and_wholes,
    "falcon": _falcon,
    "state space": _state_space,
    "state space 2": _state_space_2,
}
"""By the word of a row, see `GgufArchitecture.shape`."""
