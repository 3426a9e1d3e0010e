"""Small checkpoints with random weights, as transformers stores them: a Llama with its own head, and Qwen3-MoE."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

Tensors = dict[str, np.ndarray]

HIDDEN = 128
VOCABULARY = 4096
EXPERTS = 4
EXPERT_WIDTH = 192
_BLOCKS = 2
_HEADS, _KEYS, _HEAD_WIDTH = 4, 2, 32

_COMMON = {
    "attention_bias": False,
    "bos_token_id": 0,
    "dtype": "bfloat16",
    "eos_token_id": 0,
    "head_dim": _HEAD_WIDTH,
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "max_position_embeddings": 256,
    "num_attention_heads": _HEADS,
    "num_hidden_layers": _BLOCKS,
    "num_key_value_heads": _KEYS,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-5,
    "transformers_version": "5.23.0",
    "vocab_size": VOCABULARY,
}
LLAMA = {
    **_COMMON,
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "intermediate_size": 320,
    "mlp_bias": False,
    "rope_parameters": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 16,
        "rope_theta": 20000.0,
        "rope_type": "llama3",
    },
    "tie_word_embeddings": False,
}
QWEN3_MOE = {
    **_COMMON,
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "decoder_sparse_step": 1,
    "intermediate_size": 320,
    "mlp_only_layers": [],
    "moe_intermediate_size": EXPERT_WIDTH,
    "norm_topk_prob": True,
    "num_experts_per_tok": 2,
    "num_local_experts": EXPERTS,
    "rope_parameters": {"rope_theta": 50000.0, "rope_type": "default"},
    "tie_word_embeddings": True,
}


def write_llama(folder: Path, tokenizer: Path, width: int = 320) -> Path:
    """A Llama whose output head is a tensor of its own, and whose rotary embedding is scaled."""
    draw = np.random.default_rng(1)
    tensors = _embedding(draw)
    for block in range(_BLOCKS):
        prefix = f"model.layers.{block}"
        tensors |= _attention(draw, prefix) | _norms(draw, prefix)
        tensors |= _feed_forward(draw, f"{prefix}.mlp", width)
    tensors["lm_head.weight"] = _weight(draw, VOCABULARY, HIDDEN)
    return _write(folder, tokenizer, {**LLAMA, "intermediate_size": width}, [tensors])


def write_qwen3_moe(folder: Path, tokenizer: Path) -> Path:
    """Every expert in tensors of its own, in three shards with an index."""
    return _write(folder, tokenizer, QWEN3_MOE, _thirds(_qwen3_moe()))


def write_stacked_qwen3_moe(folder: Path, tokenizer: Path) -> Path:
    """The same weights with all experts in two 3-D tensors, as transformers 5 keeps them in memory."""
    return _write(folder, tokenizer, QWEN3_MOE, [_stacked(_qwen3_moe())])


def _qwen3_moe() -> Tensors:
    draw = np.random.default_rng(2)
    tensors = _embedding(draw)
    for block in range(_BLOCKS):
        prefix = f"model.layers.{block}"
        tensors |= _attention(draw, prefix) | _norms(draw, prefix)
        for norm in ("q_norm", "k_norm"):
            tensors[f"{prefix}.self_attn.{norm}.weight"] = _norm(draw, _HEAD_WIDTH)
        for expert in range(EXPERTS):
            tensors |= _feed_forward(draw, f"{prefix}.mlp.experts.{expert}", EXPERT_WIDTH)
        tensors[f"{prefix}.mlp.gate.weight"] = _weight(draw, EXPERTS, HIDDEN)
    return tensors


def _stacked(tensors: Tensors) -> Tensors:
    joined = {name: array for name, array in tensors.items() if ".experts." not in name}
    for block in range(_BLOCKS):
        stack = f"model.layers.{block}.mlp.experts"
        gate, up, down = (
            np.stack([tensors[f"{stack}.{expert}.{part}_proj.weight"] for expert in range(EXPERTS)])
            for part in ("gate", "up", "down")
        )
        joined |= {f"{stack}.gate_up_proj": np.concatenate([gate, up], axis=1), f"{stack}.down_proj": down}
    return joined


def _thirds(tensors: Tensors) -> list[Tensors]:
    """Three shards, cut inside the experts of a block."""
    names = list(tensors)
    step = -(-len(names) // 3)
    return [{name: tensors[name] for name in names[i : i + step]} for i in range(0, len(names), step)]


def _embedding(draw: np.random.Generator) -> Tensors:
    return {
        "model.embed_tokens.weight": draw.standard_normal((VOCABULARY, HIDDEN)).astype(ml_dtypes.bfloat16),
        "model.norm.weight": _norm(draw, HIDDEN),
    }


def _attention(draw: np.random.Generator, prefix: str) -> Tensors:
    widths = {"q": _HEADS * _HEAD_WIDTH, "k": _KEYS * _HEAD_WIDTH, "v": _KEYS * _HEAD_WIDTH}
    tensors = {f"{prefix}.self_attn.{name}_proj.weight": _weight(draw, rows, HIDDEN) for name, rows in widths.items()}
    return {**tensors, f"{prefix}.self_attn.o_proj.weight": _weight(draw, HIDDEN, _HEADS * _HEAD_WIDTH)}


def _feed_forward(draw: np.random.Generator, prefix: str, width: int) -> Tensors:
    shapes = {"gate": (width, HIDDEN), "up": (width, HIDDEN), "down": (HIDDEN, width)}
    return {f"{prefix}.{name}_proj.weight": _weight(draw, *shape) for name, shape in shapes.items()}


def _norms(draw: np.random.Generator, prefix: str) -> Tensors:
    return {f"{prefix}.{name}_layernorm.weight": _norm(draw, HIDDEN) for name in ("input", "post_attention")}


def _weight(draw: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return (draw.standard_normal((rows, columns)) / np.sqrt(columns)).astype(ml_dtypes.bfloat16)


def _norm(draw: np.random.Generator, width: int) -> np.ndarray:
    return (1 + 0.1 * draw.standard_normal(width)).astype(ml_dtypes.bfloat16)


def _write(folder: Path, tokenizer: Path, config: Mapping[str, Any], shards: Sequence[Tensors]) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    shutil.copy(tokenizer, folder)
    count = len(shards)
    names = [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    for name, tensors in zip(["model.safetensors"] if count == 1 else names, shards, strict=True):
        save_file(tensors, folder / name, {"format": "pt"})
    if count > 1:
        weight_map = {key: name for name, tensors in zip(names, shards, strict=True) for key in tensors}
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder
