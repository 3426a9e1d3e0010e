"""Configurations of architectures with a mixture of experts and attention alone."""

from typing import Any

from tests.architectures.dense import LAYER_ROPE, MLA, PARTIAL, SIX_LAYERS, YARN

EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 96,
    "shared_expert_intermediate_size": 96,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "routed_scaling_factor": 1.5,
}
ONE_DENSE = {**EXPERTS, "first_k_dense_replace": 1, "mlp_layer_types": ["dense", "sparse"]}
DEEPSEEK = {**ONE_DENSE, **MLA, "num_key_value_heads": 4, "head_dim": 32}
INDEXED = {
    **DEEPSEEK,
    "index_topk": 64,
    "index_head_dim": 64,
    "index_n_heads": 4,
}
GEMMA4_EXPERTS = {
    **SIX_LAYERS,
    "global_head_dim": 32,
    "num_global_key_value_heads": 2,
    "hidden_size_per_layer_input": 0,
    "enable_moe_block": True,
    "num_experts": 4,
    "top_k_experts": 2,
    "moe_intermediate_size": 96,
}

MIXTURES: dict[str, dict[str, Any]] = {
    "qwen2_moe": {**EXPERTS, "decoder_sparse_step": 1},
    "qwen3_moe": {**EXPERTS, "decoder_sparse_step": 1, "norm_topk_prob": True},
    "gemma4_text-moe": GEMMA4_EXPERTS,
    "mixtral": EXPERTS,
    "mixtral-8": {**EXPERTS, "num_local_experts": 8},
    "gpt_oss": {**EXPERTS, "sliding_window": 8, "intermediate_size": 128},
    "deepseek_v2": {**DEEPSEEK, "topk_method": "greedy", "rope_parameters": YARN},
    "deepseek_v2-lite": {**DEEPSEEK, "q_lora_rank": None, "topk_method": "greedy", "rope_parameters": YARN},
    "deepseek_v3": DEEPSEEK,
    "deepseek_v32": INDEXED,
    "glm4_moe": {**ONE_DENSE, "rope_parameters": PARTIAL},
    "glm4_moe-qknorm": {**ONE_DENSE, "rope_parameters": PARTIAL, "use_qk_norm": True, "attention_bias": True},
    "glm4_moe_lite": DEEPSEEK,
    "glm_moe_dsa": INDEXED,
    "llama4_text": {**EXPERTS, "num_hidden_layers": 4, "interleave_moe_layer_step": 2, "intermediate_size_mlp": 256,
                    "num_experts_per_tok": 1},
    "granitemoe": {**EXPERTS, "embedding_multiplier": 6.0, "attention_multiplier": 0.1, "residual_multiplier": 0.5,
                   "logits_scaling": 4.0},
    "olmoe": EXPERTS,
    "minimax_m2": {**EXPERTS, "intermediate_size": 96},
    "ernie4_5_moe": {**EXPERTS, "moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 1,
                     "moe_layer_start_index": 1, "moe_layer_end_index": 1, "tie_word_embeddings": True},
    "exaone_moe": {**ONE_DENSE, "num_hidden_layers": 4, "num_shared_experts": 1, "sliding_window": 8,
                   "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]},
    "phimoe": {**EXPERTS, "attention_bias": True, "lm_head_bias": True},
    "longcat_flash": {**EXPERTS, **MLA, "num_layers": 2, "ffn_hidden_size": 256, "expert_ffn_hidden_size": 96,
                      "moe_topk": 2, "zero_expert_num": 2, "head_dim": 32, "num_key_value_heads": 4},
    "dots1": {**ONE_DENSE, "sliding_window": None, "max_window_layers": 2},
    "afmoe": {**EXPERTS, "num_hidden_layers": 4, "num_dense_layers": 1, "num_shared_experts": 1, "sliding_window": 8,
              "mup_enabled": True, "route_scale": 1.5},
    "solar_open": {**EXPERTS, "rope_parameters": {"rope_type": "default", "rope_theta": 20000.0,
                                                  "partial_rotary_factor": 1.0}},
    "laguna": {**EXPERTS, "num_hidden_layers": 4, "sliding_window": 8, "rope_parameters": LAYER_ROPE,
               "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
               "layer_types": ["full_attention", "sliding_attention"] * 2, "num_attention_heads_per_layer": [4] * 4},
    "mellum": {**EXPERTS, "num_hidden_layers": 4, "sliding_window": 8, "rope_parameters": LAYER_ROPE,
               "layer_types": ["full_attention", "sliding_attention"] * 2, "mlp_layer_types": ["sparse"] * 4},
    "mimo_v2_flash": {**EXPERTS, "num_hidden_layers": 4, "sliding_window": 8, "head_dim": 32, "v_head_dim": 32,
                      "rope_parameters": LAYER_ROPE,
                      "layer_types": ["full_attention", "sliding_attention"] * 2,
                      "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]},
    "dbrx": {
        "d_model": 128,
        "n_heads": 4,
        "n_layers": 2,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 20000.0},
        "ffn_config": {"hidden_size": 128, "ffn_hidden_size": 96, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "mistral4": {
        **EXPERTS,
        **MLA,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "first_k_dense_replace": 0,
        "rope_parameters": {**YARN, "llama_4_scaling_beta": 0.1},
    },
}
