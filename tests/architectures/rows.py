"""The rows of the table: every architecture that transformers and mlx-lm share, and variants of it."""

from typing import Any

from tests.architectures.dense import DENSE
from tests.architectures.mixtures import MIXTURES
from tests.architectures.multimodal import MULTIMODAL
from tests.architectures.recurrent import RECURRENT

ROWS: dict[str, dict[str, Any]] = {**DENSE, **MIXTURES, **RECURRENT, **MULTIMODAL}

SIZES = {
    "vocab_size": 384,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0},
}
"""Given to every language model whose configuration has the field and whose row does not say otherwise."""

TOKENS = [(137 * place + 11) % 360 for place in range(24)]


def model_type(name: str) -> str:
    """The `model_type` in the config.json of a row; that of other rows is their name."""
    return str(ROWS[name].get("model_type", name.partition("-")[0])) if name in ROWS else name


SUBSET = (
    "llama",
    "qwen2",
    "gemma3",
    "qwen3_moe",
    "qwen3_next",
    "gpt_oss",
    "llama4",
    "deepseek_v3",
    "nemotron_h-infinity",
    "gemma4-moe",
    "lfm2_moe",
    "gpt2-hub",
    "gpt_neox",
    "qwen2_vl",
    "granitemoe",
)
"""One row for each kind of name, shape and section that runtimes read in a way of their own; the tests judge these."""
