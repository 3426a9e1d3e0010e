"""A small llama as llama.cpp's converter writes it: rows of queries and keys in pairs, experts in stacks."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.core.checkpoints import gaussian
from tests.core.gguf_files import Info, float32, gguf

HIDDEN, INNER, WORDS, HEADS, KEYS, BLOCKS = 64, 128, 96, 4, 2, 2
TOKENS = [f"t{number}" for number in range(WORDS)]
PAIRS: dict[str, Any] = {
    "general.architecture": "llama",
    "general.type": "model",
    "llama.context_length": 128,
    "llama.block_count": BLOCKS,
    "llama.embedding_length": HIDDEN,
    "llama.feed_forward_length": INNER,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KEYS,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10000.0,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": [3, 3, *[1] * (WORDS - 2)],
    "tokenizer.ggml.merges": [],
    "tokenizer.ggml.bos_token_id": 0,
    "tokenizer.ggml.eos_token_id": 1,
}
_SHAPES = {
    "attn_q": (HIDDEN, HIDDEN),
    "attn_k": (HIDDEN // 2, HIDDEN),
    "attn_v": (HIDDEN // 2, HIDDEN),
    "attn_output": (HIDDEN, HIDDEN),
    "ffn_gate": (INNER, HIDDEN),
    "ffn_up": (INNER, HIDDEN),
    "ffn_down": (HIDDEN, INNER),
}


def tensors(blocks: int = BLOCKS) -> dict[str, np.ndarray]:
    """All tensors of the file, as they lie there."""
    found = {"token_embd.weight": gaussian(WORDS, HIDDEN, dtype=np.float32)}
    for block in range(blocks):
        found[f"blk.{block}.attn_norm.weight"] = np.ones(HIDDEN, np.float32)
        found[f"blk.{block}.ffn_norm.weight"] = np.full(HIDDEN, 0.3, np.float32)
        for number, (name, shape) in enumerate(_SHAPES.items()):
            found[f"blk.{block}.{name}.weight"] = gaussian(*shape, seed=9 * block + number, dtype=np.float32)
    return {**found, "output_norm.weight": np.ones(HIDDEN, np.float32)}


def infos(arrays: Mapping[str, np.ndarray] | None = None) -> list[Info]:
    """Entries in float32."""
    return [float32(name, array) for name, array in (tensors() if arrays is None else arrays).items()]


def model(pairs: Mapping[str, Any] | None = None, entries: list[Info] | None = None) -> bytes:
    """The bytes of a file; `pairs` are changed ones, None takes one away."""
    merged = {**PAIRS, **(pairs or {})}
    known = {key: value for key, value in merged.items() if value is not None}
    return gguf(known, infos() if entries is None else entries)
