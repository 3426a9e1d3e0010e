"""Configurations of architectures with a vision part beside the language model."""

from typing import Any

from tests.architectures.dense import DENSE, LAYER_ROPE, SIX_LAYERS
from tests.architectures.mixtures import EXPERTS, GEMMA4_EXPERTS, MIXTURES
from tests.architectures.recurrent import LINEAR

TOWER = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
QWEN_TOWER = {
    "depth": 1,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_heads": 2,
    "out_hidden_size": 128,
    "patch_size": 14,
    "num_position_embeddings": 16,
}
DEEP_TOWER = {**QWEN_TOWER, "deepstack_visual_indexes": [0]}
MROPE = {"rope_type": "default", "rope_theta": 20000.0, "mrope_section": [4, 6, 6]}
INTERLEAVED = {**MROPE, "mrope_interleaved": True}
QWEN_TOKENS = {"image_token_id": 370, "video_token_id": 371, "vision_start_token_id": 372, "vision_end_token_id": 373}
GEMMA_TOKENS = {
    "image_token_id": 370,
    "video_token_id": 371,
    "audio_token_id": 372,
    "boi_token_id": 373,
    "eoi_token_id": 374,
    "boa_token_id": 375,
    "eoa_token_id": 376,
    "eoa_token_index": 376,
}
GEMMA4_TOWER = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "position_embedding_size": 64,
}
MUSE_TOWER = {**TOWER, "pos_emb_height": 4, "pos_emb_width": 4, "max_position_embeddings": 16}
MUSE = {"out_hidden_size": 256, "projector_hidden_size": 128, "image_token_id": 370, "video_token_id": 371}
QWEN3_5 = {**LINEAR, "rope_parameters": {**LINEAR["rope_parameters"], "mrope_section": [2, 3, 3]}}

MULTIMODAL: dict[str, dict[str, Any]] = {
    "qwen2_vl": {
        "text_config": {"rope_parameters": MROPE},
        "vision_config": {
            "depth": 1,
            "embed_dim": 64,
            "hidden_size": 128,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 14,
        },
        **QWEN_TOKENS,
    },
    "qwen2_5_vl": {"text_config": {"rope_parameters": MROPE}, "vision_config": QWEN_TOWER, **QWEN_TOKENS},
    "qwen3_vl": {"text_config": {"rope_parameters": INTERLEAVED}, "vision_config": DEEP_TOWER, **QWEN_TOKENS},
    "qwen3_vl_moe": {
        "text_config": {**EXPERTS, "rope_parameters": INTERLEAVED, "decoder_sparse_step": 1},
        "vision_config": DEEP_TOWER,
        **QWEN_TOKENS,
    },
    "qwen3_5": {"text_config": QWEN3_5, "vision_config": QWEN_TOWER, **QWEN_TOKENS},
    "qwen3_5_moe": {"text_config": {**EXPERTS, **QWEN3_5}, "vision_config": QWEN_TOWER, **QWEN_TOKENS},
    "gemma3": {
        "text_config": {**SIX_LAYERS, "query_pre_attn_scalar": 32, "rope_parameters": LAYER_ROPE},
        "vision_config": TOWER,
        "mm_tokens_per_image": 4,
        "image_token_index": 370,
        "boi_token_index": 371,
        "eoi_token_index": 372,
    },
    "gemma4": {
        "text_config": DENSE["gemma4_text"],
        "vision_config": GEMMA4_TOWER,
        "audio_config": None,
        **GEMMA_TOKENS,
    },
    "gemma4-moe": {
        "text_config": GEMMA4_EXPERTS,
        "vision_config": GEMMA4_TOWER,
        "audio_config": None,
        **GEMMA_TOKENS,
    },
    "gemma4_unified": {
        "text_config": {**SIX_LAYERS, "global_head_dim": 32, "num_global_key_value_heads": 2},
        "vision_config": {"mm_embed_dim": 64, "mm_posemb_size": 16, "output_proj_dims": 64},
        "audio_config": None,
        **GEMMA_TOKENS,
    },
    "llama4": {
        "text_config": {**MIXTURES["llama4_text"], "model_type": "llama4_text"},
        "vision_config": {
            **TOWER,
            "vision_output_dim": 64,
            "projector_input_dim": 64,
            "projector_output_dim": 64,
            "pixel_shuffle_ratio": 0.5,
        },
        "image_token_index": 370,
        "boi_token_index": 371,
        "eoi_token_index": 372,
    },
    "mistral3": {
        "text_config": {**DENSE["ministral3"], "model_type": "ministral3"},
        "vision_config": {**TOWER, "model_type": "pixtral", "head_dim": 32},
        "tie_word_embeddings": False,
        "image_token_index": 370,
    },
    "llava": {
        "text_config": {"model_type": "llama"},
        "vision_config": {**TOWER, "model_type": "clip_vision_model", "projection_dim": 64, "num_hidden_layers": 2},
        "image_token_index": 370,
    },
    "kimi_k25": {
        "text_config": {**MIXTURES["deepseek_v3"], "model_type": "deepseek_v3"},
        "vision_config": {**TOWER, "pos_emb_height": 4, "pos_emb_width": 4},
        "projection_hidden_size": 64,
        **QWEN_TOKENS,
    },
    "minimax_m3_vl": {
        "text_config": {
            **EXPERTS,
            "intermediate_size": 96,
            "dense_intermediate_size": 256,
            "shared_intermediate_size": 96,
            "rotary_dim": 16,
            "mlp_layer_types": ["dense", "sparse"],
            "index_head_dim": 32,
            "index_n_heads": 2,
            "layer_types": ["full_attention", "full_attention"],
        },
        "vision_config": TOWER,
        "projector_hidden_size": 64,
        "image_token_index": 370,
        "video_token_index": 371,
    },
    "muse_glimmer": {"text_config": SIX_LAYERS, "vision_config": MUSE_TOWER, **MUSE},
    "muse_spark": {
        "text_config": {
            **SIX_LAYERS,
            **EXPERTS,
            "moe_hidden_size": 64,
            "mlp_layer_types": ["sparse"] * 6,
        },
        "vision_config": MUSE_TOWER,
        "audio_config": {"out_hidden_size": 128, "hidden_sizes": [32, 32, 32, 32], "depths": [1, 1, 1, 1]},
        **MUSE,
    },
}
MULTIMODAL["qwen3_vl_moe-inputfirst"] = MULTIMODAL["qwen3_vl_moe"]
MULTIMODAL["qwen3_5_moe-fused"] = MULTIMODAL["qwen3_5_moe"]
