"""Configurations of architectures with recurrent or convolutional layers, alone or beside attention."""

from typing import Any

from tests.architectures.dense import MLA, PARTIAL
from tests.architectures.mixtures import EXPERTS, ONE_DENSE

LINEAR = {
    "num_hidden_layers": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4,
    "rope_parameters": {"rope_type": "default", "rope_theta": 20000.0, "partial_rotary_factor": 0.5},
}
HEADS = {"mamba_n_heads": 8, "mamba_d_head": 32, "mamba_d_state": 16, "mamba_n_groups": 1, "mamba_chunk_size": 16}
STATE = {"state_size": 16, "expand": 2, "conv_kernel": 4, "time_step_rank": 32}
MAMBA2 = {"state_size": 16, "num_heads": 8, "head_dim": 32, "n_groups": 2, "chunk_size": 16, "use_conv_bias": True}
NEMOTRON_H = {
    **EXPERTS,
    "layers_block_type": ["mamba", "moe", "attention", "moe"],
    "ssm_state_size": 16,
    "mamba_num_heads": 8,
    "mamba_head_dim": 32,
    "n_groups": 2,
    "chunk_size": 16,
    "moe_shared_expert_intermediate_size": 96,
}
GRANITE = {
    "shared_intermediate_size": 128,
    "embedding_multiplier": 6.0,
    "attention_multiplier": 0.1,
    "residual_multiplier": 0.5,
    "logits_scaling": 4.0,
}

RECURRENT: dict[str, dict[str, Any]] = {
    "qwen3_next": {**EXPERTS, **LINEAR, "decoder_sparse_step": 1},
    "nemotron_h": {**NEMOTRON_H, "time_step_limit": [0.001, 10.0]},
    "nemotron_h-infinity": NEMOTRON_H,
    "granitemoehybrid": {
        **EXPERTS,
        **GRANITE,
        **HEADS,
        "num_hidden_layers": 2,
        "layer_types": ["mamba", "attention"],
        "time_step_limit": [0.001, 10.0],
    },
    "granitemoe-shared": {
        **GRANITE,
        "model_type": "granitemoehybrid",
        "shared_intermediate_size": 256,
        "time_step_limit": [0.001, 10.0],
        "num_local_experts": 0,
        "num_experts_per_tok": 0,
        "num_hidden_layers": 2,
        "layer_types": ["attention", "attention"],
    },
    "falcon_h1": {
        **HEADS,
        "mamba_d_ssm": 256,
        "mlp_multipliers": [0.8, 0.7],
        "ssm_multipliers": [0.9, 0.8, 0.7, 0.6, 0.5],
        "embedding_multiplier": 2.0,
        "lm_head_multiplier": 0.5,
        "key_multiplier": 0.7,
        "attention_out_multiplier": 0.8,
        "ssm_in_multiplier": 0.7,
        "ssm_out_multiplier": 0.9,
        "time_step_limit": [0.0, 1e6],
    },
    "lfm2": {"num_hidden_layers": 4, "layer_types": ["conv", "full_attention"] * 2, "block_auto_adjust_ff_dim": False},
    "lfm2_moe": {
        **EXPERTS,
        "num_hidden_layers": 4,
        "num_dense_layers": 1,
        "layer_types": ["conv", "full_attention"] * 2,
    },
    "mamba": STATE,
    "falcon_mamba": STATE,
    "mamba2": {**MAMBA2, "time_step_limit": [0.001, 10.0]},
    "mamba2-infinity": MAMBA2,
    "jamba": {
        **EXPERTS,
        "num_hidden_layers": 4,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "mamba_d_state": 16,
        "mamba_dt_rank": 32,
        "use_mamba_kernels": False,
    },
    "minimax": {
        **EXPERTS,
        "layer_types": ["linear_attention", "full_attention"],
        "block_size": 16,
        "linear_attn_alpha_factor": 1.5,
    },
    "recurrent_gemma": {
        "num_hidden_layers": 3,
        "lru_width": 128,
        "attention_window_size": 2048,
        "num_key_value_heads": 1,
        "rope_parameters": PARTIAL,
    },
    "olmo_hybrid": {**LINEAR, "layer_types": ["linear_attention", "full_attention"] * 2},
    "bailing_hybrid": {
        **EXPERTS,
        **MLA,
        "first_k_dense_replace": 1,
        "num_hidden_layers": 4,
        "num_key_value_heads": 4,
        "layer_group_size": 2,
    },
    "kimi_linear": {
        **ONE_DENSE,
        **MLA,
        "q_lora_rank": None,
        "num_key_value_heads": 4,
        "linear_head_dim": 32,
        "linear_num_heads": 4,
        "layer_types": ["linear_attention", "full_attention"],
    },
}
