"""Rows of architectures whose weights llama.cpp splits, reorders or computes anew; part of the table of `gguf_rows`."""

from typing import Any

from studio.core.architectures.gguf import GgufArchitecture
from studio.core.architectures.gguf_names import (
    BLOCK,
    CORRECTION,
    DENSE_FIRST,
    EXPERT_COUNTS,
    EXPERTS,
    FALCON,
    GELU,
    GEMMA4,
    GEMMA4_EXPERTS,
    GRANITE_SHARED,
    LATENT,
    LINEAR,
    LINEAR_APART,
    LINEAR_JOINED,
    MAMBA,
    MAMBA1,
    MAMBA2,
    MAMBA_INSIDE,
    MULTIPLIERS,
    NORMED,
    NORMS_BEHIND,
    ONE_NORM,
    OUTSIDE,
    OUTSIDE_FALCON,
    OUTSIDE_GEMMA4,
    OUTSIDE_MAMBA,
    POST,
    ROTATED,
    ROUTED,
    SHARED,
    SHARED_EXPERTS,
    STACKS_OF_GEMMA4,
    STACKS_OF_GRANITE,
    TWO_NORMS,
    WIDTH,
)

_DEEPSEEK = (
    LATENT | EXPERTS | SHARED_EXPERTS | {name: BLOCK[name] for name in ("ffn_norm", "ffn_gate", "ffn_up", "ffn_down")}
)
_LATENT: dict[str, Any] = {
    "experts": True,
    "rejoined": {"self_attn.kv_b_proj.weight": ("heads", ("attn_k_b.weight", "attn_v_b.weight"))},
    "fields": WIDTH | ROUTED | {"n_shared_experts": "expert_shared_count"},
    "optional": {"routed_scaling_factor": "expert_weights_scale"},
    "counts": DENSE_FIRST,
    "flags": NORMED,
    "shape": "latent attention",
    "biases": {"attention_bias": ("attn_q_a", "attn_kv_a_mqa", "attn_output")},
    "ignored": (
        "attention.q_lora_rank",
        "attention.kv_lora_rank",
        "attention.key_length_mla",
        "attention.value_length_mla",
        "expert_gating_func",
        "expert_group_count",
        "expert_group_used_count",
        "rope.scaling.yarn_log_multiplier",
    ),
    "never": ("nextn_predict_layers",),
}
_TURNS = {
    "attn_qkv": "values behind",
    "ssm_conv1d": "values behind",
    "attn_gate": "values",
    "ssm_alpha": "one of each value",
    "ssm_beta": "one of each value",
    "ssm_a": "one of each value",
    "ssm_dt": "one of each value",
}
_CHANNEL = {"ssm_conv1d.weight": "a channel"}
_FLAT = {"ssm_a": "flat", "ssm_d": "flat", "ssm_norm.weight": "flat"}
_SPACE = ("ssm.conv_kernel", "ssm.state_size", "ssm.group_count", "ssm.time_step_rank", "ssm.inner_size")
_STATES: dict[str, Any] = {
    "reshaped": _CHANNEL,
    "logs": ("ssm_a",),
    "plus_one": True,
    "unchanged": ("ssm_norm",),
    "partial": True,
    "shape": "linear attention",
    "behind": "mtp",
    "ignored": (
        *_SPACE,
        "attention.recurrent_layers",
        "full_attention_interval",
        "nextn_predict_layers",
        "rope.dimension_sections",
    ),
}
_HYBRID: dict[str, Any] = {
    "orders": ROTATED,
    "reshaped": _CHANNEL | _FLAT,
    "logs": ("ssm_a",),
    "fields": WIDTH | {"shared_intermediate_size": "expert_shared_feed_forward_length"},
    "optional": MULTIPLIERS,
    "implied": {"hidden_act": "silu", "mamba_chunk_size": 256},
    "shape": "attention here and there",
    "ignored": _SPACE,
}
_GEMMA4 = BLOCK | NORMS_BEHIND | GEMMA4
_WINDOWS: dict[str, Any] = {
    "outside": OUTSIDE | OUTSIDE_GEMMA4,
    "fields": {"sliding_window": "attention.sliding_window"},
    "optional": {"final_logit_softcapping": "final_logit_softcapping"},
    "implied": GELU,
    "shape": "windows and wholes",
    "ignored": (
        "attention.key_length_swa",
        "attention.value_length_swa",
        "attention.shared_kv_layers",
        "attention.sliding_window_pattern",
        "embedding_length_per_layer_input",
        "feed_forward_length",
        "rope.dimension_count_swa",
        "rope.freq_base_swa",
    ),
}
_FALCON: dict[str, Any] = {
    "outside": OUTSIDE_FALCON,
    "blocks": "transformer.h",
    "orders": {"attn_qkv": "key groups"},
    "layer_norm": "layer_norm_epsilon",
    "fields": {"ffn_hidden_size": "feed_forward_length"},
    "implied": {"activation": "gelu", "alibi": False, "bias": False, "parallel_attn": True},
    "shape": "falcon",
    "ignored": ("tensor_data_layout",),
}
_STATE_SPACE: dict[str, Any] = {
    "outside": OUTSIDE_MAMBA,
    "blocks": "backbone.layers",
    "reshaped": _CHANNEL,
    "logs": ("ssm_a",),
    "implied": {"hidden_act": "silu"},
    "shape": "state space",
    "ignored": (*_SPACE, "context_length", "ssm.dt_b_c_rms", "attention.head_count", "feed_forward_length"),
}

SPECIAL_ROWS: tuple[GgufArchitecture, ...] = (
    GgufArchitecture(
        "deepseek2",
        "deepseek_v3",
        "DeepseekV3ForCausalLM",
        _DEEPSEEK | {CORRECTION: "mlp.gate.e_score_correction_bias"},
        marks=(CORRECTION,),
        implied={"rope_interleave": True, "scoring_func": "sigmoid", "topk_method": "noaux_tc"},
        **_LATENT,
    ),
    GgufArchitecture("deepseek2", "deepseek_v2", "DeepseekV2ForCausalLM", _DEEPSEEK, **_LATENT),
    GgufArchitecture(
        "qwen3next",
        "qwen3_next",
        "Qwen3NextForCausalLM",
        BLOCK | POST | EXPERTS | SHARED | LINEAR | LINEAR_JOINED,
        experts=True,
        rejoined={"linear_attn.in_proj_qkvz.weight": ("heads of keys", ("attn_qkv.weight", "attn_gate.weight"))},
        orders={"attn_qkv": "linear groups"},
        fields=EXPERT_COUNTS | {"shared_expert_intermediate_size": "expert_shared_feed_forward_length"},
        optional=WIDTH,
        implied={"hidden_act": "silu", "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []},
        **_STATES,
    ),
    GgufArchitecture(
        "qwen35",
        "qwen3_5_text",
        "Qwen3_5ForCausalLM",
        BLOCK | POST | LINEAR | LINEAR_APART,
        orders=_TURNS,
        across={"ssm_out": "values"},
        fields=WIDTH,
        counts={"mtp_num_hidden_layers": "nextn_predict_layers"},
        implied={"hidden_act": "silu", "attn_output_gate": True},
        **_STATES,
    ),
    GgufArchitecture(
        "qwen35moe",
        "qwen3_5_moe_text",
        "Qwen3_5MoeForCausalLM",
        BLOCK | POST | EXPERTS | SHARED | LINEAR | LINEAR_APART,
        experts=True,
        orders=_TURNS,
        across={"ssm_out": "values"},
        fields=EXPERT_COUNTS | {"shared_expert_intermediate_size": "expert_shared_feed_forward_length"},
        counts={"mtp_num_hidden_layers": "nextn_predict_layers"},
        implied={"hidden_act": "silu", "attn_output_gate": True},
        **(_STATES | {"ignored": (*_STATES["ignored"], "feed_forward_length")}),
    ),
    GgufArchitecture(
        "granitehybrid",
        "granitemoehybrid",
        "GraniteMoeHybridForCausalLM",
        BLOCK | MAMBA_INSIDE | {"ffn_down": "shared_mlp.output_linear"},
        rejoined={"shared_mlp.input_linear.weight": ("one behind the other", ("ffn_gate.weight", "ffn_up.weight"))},
        **_HYBRID,
    ),
    GgufArchitecture(
        "granitehybrid",
        "granitemoehybrid",
        "GraniteMoeHybridForCausalLM",
        BLOCK | MAMBA_INSIDE | GRANITE_SHARED,
        experts=True,
        joined=STACKS_OF_GRANITE,
        rejoined={
            "shared_mlp.input_linear.weight": (
                "one behind the other",
                ("ffn_gate_shexp.weight", "ffn_up_shexp.weight"),
            )
        },
        **_HYBRID,
    ),
    GgufArchitecture("gemma4", "gemma4_text", "Gemma4ForCausalLM", _GEMMA4, **_WINDOWS),
    GgufArchitecture(
        "gemma4",
        "gemma4_text",
        "Gemma4ForCausalLM",
        _GEMMA4 | GEMMA4_EXPERTS,
        experts=True,
        joined=STACKS_OF_GEMMA4,
        **_WINDOWS,
    ),
    GgufArchitecture("falcon", "falcon", "FalconForCausalLM", FALCON | ONE_NORM, **_FALCON),
    GgufArchitecture(
        "falcon", "falcon", "FalconForCausalLM", FALCON | TWO_NORMS, marks=("attn_norm_2.weight",), **_FALCON
    ),
    GgufArchitecture("mamba", "mamba", "MambaForCausalLM", MAMBA | MAMBA1, **_STATE_SPACE),
    GgufArchitecture(
        "mamba",
        "falcon_mamba",
        "FalconMambaForCausalLM",
        MAMBA | MAMBA1,
        marks=("ssm.dt_b_c_rms",),
        **(_STATE_SPACE | {"implied": {"hidden_act": "silu", "mixer_rms_eps": 1e-6}}),
    ),
    GgufArchitecture(
        "mamba2",
        "mamba2",
        "Mamba2ForCausalLM",
        MAMBA | MAMBA2,
        **(_STATE_SPACE | {"shape": "state space 2", "reshaped": _CHANNEL | _FLAT}),
    ),
)
