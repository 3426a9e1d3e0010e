"""Writes small models as llama.cpp's converter does, with the package gguf, and runs what was read back.

Source: convert_hf_to_gguf.py of llama.cpp 0c1e57098, its classes LlamaModel, Qwen2Model, Qwen2MoeModel, GemmaModel,
Phi3MiniModel, GraniteModel, SmolLM3Model, ArceeModel, Olmo2Model, OlmoeModel, Glm4Model.
"""

import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.runtimes.answering import answer_jobs

WORDS = 96
_COMMON = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": WORDS,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
_ROPE3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_SCALES = {
    "attention_multiplier": 0.25,
    "embedding_multiplier": 6.0,
    "residual_multiplier": 0.5,
    "logits_scaling": 4.0,
    "attention_bias": True,
}
_TIED = {"tie_word_embeddings": True, "head_dim": 32}
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("llama", "llama", {"rms_norm_eps": 1e-5, "rope_theta": 50000.0}),
    "tied llama": ("llama", "llama", {"tie_word_embeddings": True}),
    "biased llama": ("llama", "llama", {"attention_bias": True, "mlp_bias": True}),
    "llama 3": ("llama", "llama", {"rope_theta": 500000.0, "rope_scaling": _ROPE3}),
    "linear llama": ("llama", "llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "mixtral": ("llama", "mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2": ("qwen2", "qwen2", {}),
    "qwen3": ("qwen3", "qwen3", {"head_dim": 32}),
    "qwen2moe": ("qwen2moe", "qwen2_moe", _EXPERTS | {"shared_expert_intermediate_size": 48}),
    "qwen3moe": ("qwen3moe", "qwen3_moe", _EXPERTS | {"head_dim": 32, "norm_topk_prob": True}),
    "gemma": ("gemma", "gemma", _TIED),
    "gemma2": ("gemma2", "gemma2", _TIED | {"sliding_window": 16, "query_pre_attn_scalar": 32}),
    "gemma3": ("gemma3", "gemma3_text", _TIED | {"sliding_window": 16, "query_pre_attn_scalar": 32}),
    "phi3": ("phi3", "phi3", {"partial_rotary_factor": 0.5, "sliding_window": 16}),
    "granite": ("granite", "granite", _SCALES),
    "smollm3": ("smollm3", "smollm3", {"num_hidden_layers": 5}),
    "arcee": ("arcee", "arcee", {}),
    "olmo2": ("olmo2", "olmo2", {}),
    "olmoe": ("olmoe", "olmoe", {"num_experts": 4, "num_experts_per_tok": 2}),
    "glm4": ("glm4", "glm4", {"partial_rotary_factor": 0.5, "attention_bias": True}),
}
"""Name: (architecture for llama.cpp, model type of transformers, values of the config)."""

_KEYS = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    "attention.sliding_window": "sliding_window",
}
_NUMBERS = {
    "attention.scale": "attention_multiplier",
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "logit_scale": "logits_scaling",
}
_PERMUTED = ("llama", "granite", "smollm3", "arcee")
_STACK = re.compile(r"(.*\.experts)\.(gate_up|gate|up|down)_proj")


def make(target: str, kind: str, stored: str) -> dict[str, Any]:
    """Write a model of `kind` with matrices of type `stored`; its logits, and the names and sums of its weights."""
    arch, model_type, values = KINDS[kind]
    torch.manual_seed(len(kind))
    config = AutoConfig.for_model(model_type, **{**_COMMON, **values})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter) * 0.1
            parameter.copy_((noise if parameter.dim() > 1 else parameter + noise).half().float())
    _write(Path(target), model, arch, getattr(gguf.GGMLQuantizationType, stored))
    np.save(f"{target}.npy", _logits(model))
    return {"weights": sum(parameter.numel() for parameter in model.parameters())}


def _write(path: Path, model: Any, arch: str, stored: gguf.GGMLQuantizationType) -> None:
    config = model.config
    writer = gguf.GGUFWriter(path, arch)
    for key, name in _KEYS.items():
        if getattr(config, name, None) is not None:
            writer.add_uint32(f"{arch}.{key}", getattr(config, name))
    writer.add_float32(f"{arch}.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    writer.add_float32(f"{arch}.rope.freq_base", rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_string(f"{arch}.rope.scaling.type", "linear")
        writer.add_float32(f"{arch}.rope.scaling.factor", rope["factor"])
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    for key in ("key_length", "value_length"):
        writer.add_uint32(f"{arch}.attention.{key}", width)
    if partial := rope.get("partial_rotary_factor"):
        writer.add_uint32(f"{arch}.rope.dimension_count", int(width * partial))
    for key, name in _NUMBERS.items():
        if arch == "granite":
            writer.add_float32(f"{arch}.{key}", getattr(config, name))
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if getattr(config, key, None):
            writer.add_float32(f"{arch}.{key}", getattr(config, key))
    if experts := getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None):
        writer.add_uint32(f"{arch}.expert_count", experts)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([f"t{number}" for number in range(WORDS)])
    writer.add_token_types([1] * WORDS)
    writer.add_token_merges([])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", _rope_factors(config))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[arch.upper()], config.num_hidden_layers)
    for name, array in _tensors(model):
        base, _, leaf = name.rpartition(".") if name.endswith((".weight", ".bias")) else (name, "", "weight")
        found = names.get_name(base)
        assert found is not None, name
        changed = _changed(found, array, config, arch)
        is_matrix = changed.ndim > 1 and changed.shape[-1] % 32 == 0 and "gate_inp" not in found
        kind = stored if is_matrix else gguf.GGMLQuantizationType.F32
        writer.add_tensor(f"{found}.{leaf}", gguf.quants.quantize(changed, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(model: Any) -> list[tuple[str, np.ndarray]]:
    """The tensors as a checkpoint has them, experts stacked as llama.cpp wants them."""
    found = []
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        stack = _STACK.fullmatch(name)
        if stack and stack[2] == "gate_up":
            halves = zip(("gate", "up"), np.split(array, 2, 1), strict=True)
            found += [(f"{stack[1]}.{part}_proj", half) for part, half in halves]
        else:
            found.append((name, array))
    return found


def _changed(name: str, array: np.ndarray, config: Any, arch: str) -> np.ndarray:
    if arch in _PERMUTED and name.endswith((".attn_q", ".attn_k")):
        heads = config.num_attention_heads if name.endswith("q") else config.num_key_value_heads
        split = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
        return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(array.shape)
    if arch.startswith("gemma") and name.endswith("norm"):
        return array + 1
    return np.ascontiguousarray(array.squeeze(0) if name.endswith("ffn_gate_inp_shexp") else array)


def _rope_factors(config: Any) -> np.ndarray:
    """LlamaModel.generate_extra_tensors."""
    rope = config.rope_parameters
    low, high, old = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
    factors = []
    for place in range(0, config.head_dim, 2):
        wave = 2 * np.pi * rope["rope_theta"] ** (place / config.head_dim)
        if wave < old / high:
            factors.append(1.0)
        elif wave > old / low:
            factors.append(rope["factor"])
        else:
            smooth = (old / wave - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, np.float32)


def run(folder: str) -> dict[str, Any]:
    """Load a plain folder; how far its logits are from those saved at `logits`."""
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    np.save(f"{folder}/logits.npy", _logits(model.eval()))
    return {key: sorted(map(str, report[key])) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}


def run_gguf(path: str, target: str) -> None:
    """Run a file as transformers itself reads it."""
    place = Path(path)
    model = AutoModelForCausalLM.from_pretrained(
        place.parent, gguf_file=place.name, dtype=torch.float32, attn_implementation="eager"
    )
    np.save(target, _logits(model.eval()))


def tokens(folder: str, path: str, text: str) -> dict[str, list[int]]:
    """A text as the files of a folder cut it, and as transformers cuts it by the GGUF file itself."""
    from transformers import AutoTokenizer

    place = Path(path)
    ours = AutoTokenizer.from_pretrained(folder)
    theirs = AutoTokenizer.from_pretrained(place.parent, gguf_file=place.name)
    cut = ours(text).input_ids
    return {"ours": cut, "theirs": theirs(text).input_ids, "text": ours.decode(cut, skip_special_tokens=True)}


def _logits(model: Any) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor([[(37 * i + 11) % WORDS for i in range(48)]])).logits[0].float().numpy()


if __name__ == "__main__":
    torch.set_num_threads(2)
    answer_jobs({"make": make, "run": run, "run_gguf": run_gguf, "tokens": tokens})
