"""Configurations of architectures with attention and one feed-forward network per block."""

from typing import Any

LLAMA_3_1 = {
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 16,
    "rope_theta": 20000.0,
    "rope_type": "llama3",
}
PARTIAL = {"rope_type": "default", "rope_theta": 20000.0, "partial_rotary_factor": 0.5}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 20000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 20000.0,
    "short_factor": [1.0 + 0.1 * pair for pair in range(16)],
    "long_factor": [1.0 + 0.1 * pair for pair in range(16)],
    "original_max_position_embeddings": 512,
}
LAYER_ROPE = {
    "full_attention": {"rope_type": "default", "rope_theta": 50000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}
LOCAL = ["sliding_attention"] * 3
THIRDS = ["sliding_attention", "sliding_attention", "full_attention"] * 2
SIX_LAYERS = {"num_hidden_layers": 6, "sliding_window": 8}
MLA = {"kv_lora_rank": 64, "q_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 32, "v_head_dim": 32}
GPT = {"n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 512}

DENSE: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "llama-untied-3.1": {"tie_word_embeddings": False, "rope_parameters": LLAMA_3_1},
    "mistral": {"sliding_window": None},
    "qwen2": {},
    "qwen3": {"tie_word_embeddings": True},
    "gemma": {"num_key_value_heads": 1},
    "gemma2": {"sliding_window": 512, "query_pre_attn_scalar": 32},
    "gemma2-untold": {"sliding_window": 512, "query_pre_attn_scalar": 32},
    "gemma3_text": {**SIX_LAYERS, "query_pre_attn_scalar": 32, "rope_parameters": LAYER_ROPE},
    "gemma4_text": {
        **SIX_LAYERS,
        "global_head_dim": 32,
        "num_global_key_value_heads": 2,
        "hidden_size_per_layer_input": 32,
        "vocab_size_per_layer_input": 384,
        "num_kv_shared_layers": 3,
        "layer_types": THIRDS,
        "final_logit_softcapping": 30.0,
    },
    "gemma3n": {
        **SIX_LAYERS,
        "model_type": "gemma3n_text",
        "hidden_size_per_layer_input": 32,
        "vocab_size_per_layer_input": 384,
        "num_kv_shared_layers": 0,
        "laurel_rank": 32,
        "activation_sparsity_pattern": [0.0] * 6,
        "layer_types": THIRDS,
        "rope_parameters": LAYER_ROPE,
    },
    "phi": {"rope_parameters": PARTIAL},
    "phi-qknorm": {"rope_parameters": PARTIAL, "qk_layernorm": True},
    "phi3": {"sliding_window": None, "original_max_position_embeddings": 512},
    "glm": {"rope_parameters": PARTIAL},
    "glm4": {"rope_parameters": PARTIAL},
    "nemotron": {"rope_parameters": PARTIAL},
    "granite": {
        "embedding_multiplier": 6.0,
        "attention_multiplier": 0.1,
        "residual_multiplier": 0.5,
        "logits_scaling": 4.0,
    },
    "olmo": {},
    "olmo2": {},
    "olmo3": {"num_hidden_layers": 4, "sliding_window": 8},
    "cohere": {"logit_scale": 0.25},
    "cohere-qknorm": {"logit_scale": 0.25, "use_qk_norm": True},
    "cohere2": {"num_hidden_layers": 4, "sliding_window": 8, "logit_scale": 0.25},
    "hunyuan_v1_dense": {},
    "ernie4_5": {"tie_word_embeddings": True},
    "seed_oss": {"attention_bias": True, "attention_out_bias": False, "tie_word_embeddings": False},
    "smollm3": {"num_hidden_layers": 4, "no_rope_layer_interval": 4, "tie_word_embeddings": True},
    "exaone4": {
        "num_hidden_layers": 4,
        "sliding_window": 8,
        "layer_types": [*LOCAL, "full_attention"],
        "sliding_window_pattern": "LLLG",
    },
    "gpt2": GPT,
    "gpt2-hub": GPT,
    "gpt_neox": {"intermediate_size": 512, "rope_parameters": PARTIAL, "tie_word_embeddings": False},
    "gpt_bigcode": {**GPT, "n_inner": 512},
    "gptj": {**GPT, "rotary_dim": 16},
    "starcoder2": {"use_bias": True},
    "stablelm": {"rope_parameters": PARTIAL},
    "stablelm-2": {
        "rope_parameters": PARTIAL,
        "use_qkv_bias": True,
        "qk_layernorm": True,
        "use_parallel_residual": True,
    },
    "ministral3": {
        "num_hidden_layers": 4,
        "rope_parameters": {**YARN, "llama_4_scaling_beta": 0.1},
    },
    "apertus": {},
    "helium": {},
    "internlm3": {},
    "iquestcoder": {},
    "minicpm3": {**MLA, "num_key_value_heads": 4, "head_dim": None, "dim_model_base": 64, "rope_parameters": LONG},
    "nanochat": {"num_key_value_heads": 2},
    "bitnet": {},
}
