"""Models: what the exports are made of. Tiny ones with random weights, by the fields of their configuration."""

from collections.abc import Mapping
from typing import Any

DEMO = "demo"
"""The trained model that comes with the program."""

SIZES: Mapping[str, Any] = {
    "bos_token_id": 0,
    "eos_token_id": 0,
    "head_dim": 32,
    "hidden_size": 128,
    "intermediate_size": 256,
    "max_position_embeddings": 512,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
    "vocab_size": 4096,
}
"""Given to every language model whose configuration has the field and whose row does not say otherwise."""

_EXPERTS = {"moe_intermediate_size": 64, "num_experts": 4, "num_experts_per_tok": 2}
_TIED = {"tie_word_embeddings": True}
_ROPE = {"rope_type": "default", "rope_theta": 50000.0}
_TOWER = {
    "depth": 1,
    "deepstack_visual_indexes": [0],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_heads": 2,
    "num_position_embeddings": 16,
    "out_hidden_size": 128,
    "patch_size": 14,
}
_VISION_TOKENS = {
    "image_token_id": 4090,
    "video_token_id": 4091,
    "vision_start_token_id": 4092,
    "vision_end_token_id": 4093,
}

_MROPE = {"rope_type": "default", "mrope_section": [4, 6, 6], "mrope_interleaved": True}
_QWEN3_VL = {"text_config": {"rope_parameters": {**_ROPE, **_MROPE}}, "vision_config": _TOWER, **_VISION_TOKENS}

BUILT: Mapping[str, Mapping[str, Any]] = {
    "llama": {"rope_parameters": _ROPE},
    "mistral": {"rope_parameters": _ROPE, "sliding_window": None},
    "qwen2": {**_TIED, "rope_parameters": _ROPE},
    "qwen3": {**_TIED, "rope_parameters": _ROPE},
    "gemma3_text": {**_TIED, "num_hidden_layers": 6, "query_pre_attn_scalar": 32, "sliding_window": 64},
    "phi3": {"original_max_position_embeddings": 512, "sliding_window": None},
    "smollm3": {**_TIED, "no_rope_layer_interval": 4},
    "granite": {"attention_multiplier": 0.1, "logits_scaling": 4.0},
    "qwen3_moe": {**_EXPERTS, "norm_topk_prob": True, "rope_parameters": _ROPE},
    "qwen2_moe": {**_EXPERTS, "shared_expert_intermediate_size": 128},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 64, "num_key_value_heads": 4},
    "glm4_moe": {
        **_EXPERTS,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
    },
    "qwen3_vl": _QWEN3_VL,
    "qwen3_vl-saved": _QWEN3_VL,
}
"""By model type: what differs from SIZES and from the defaults of transformers. `-saved`: config.json as transformers 5
writes it, without the fields of the hub's."""

HUB_FIELDS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "qwen3_vl": {
        "vision_config": {"model_type": "qwen3_vl"},
        "text_config": {**_ROPE, "rope_scaling": _MROPE, "tie_word_embeddings": False},
    },
}
"""By model and section: fields of config.json on the hub that transformers 5 calls otherwise, or leaves out."""

TOKENIZER_CLASSES: Mapping[str, str] = {"phi3": "GPT2Tokenizer"}
"""By model: what llama.cpp's converter wants to read in tokenizer_config.json before it takes a byte-level BPE."""

MODELS: tuple[str, ...] = (DEMO, *BUILT)
