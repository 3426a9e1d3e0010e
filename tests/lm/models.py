"""Small models that predict something, the text that they read, and how a llama computes, in numpy."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from studio import core
from tests.core.checkpoints import BF16, CONFIG, Tensors, checkpoint, llama

LENGTH, WINDOWS = 24, 4
LLAMA = {**CONFIG, "vocab_size": 4096, "rms_norm_eps": 1e-5, "max_position_embeddings": 256, "eos_token_id": 0}
ARCEE = {**LLAMA, "architectures": ["ArceeForCausalLM"], "model_type": "arcee", "hidden_act": "relu2"}
"""An architecture that mlx-lm does not know."""

Note = Callable[[str, NDArray[np.float64]], None]
Wide = dict[str, NDArray[np.float32]]


def write_text(folder: Path, lines: int = 60) -> Path:
    path = folder / "text.txt"
    path.write_text("".join(f"Sentence number {n} says that {n * n} is a square.\n" for n in range(lines)))
    return path


def weights() -> Tensors:
    """Those of a llama, so large that its predictions differ from token to token."""
    found = llama(vocabulary=4096)
    return {name: (array * (6 if array.ndim > 1 else 1)).astype(BF16) for name, array in found.items()}


def write_llama(folder: Path) -> Path:
    return with_tokenizer(checkpoint(folder, weights(), LLAMA))


def write_arcee(folder: Path) -> Path:
    return with_tokenizer(checkpoint(folder, {k: v for k, v in weights().items() if "gate_proj" not in k}, ARCEE))


def with_tokenizer(folder: Path) -> Path:
    shutil.copy(core.demo_checkpoint() / "tokenizer.json", folder)
    return folder


def llama_logits(tensors: Wide, tokens: NDArray[np.int32], note: Note = lambda _name, _x: None) -> NDArray[np.float64]:
    """Logits [positions, words] of a llama with `LLAMA` as its configuration, in float64; `note` gets all inputs."""
    wide = {name: array.astype(np.float64) for name, array in tensors.items()}
    x = wide["model.embed_tokens.weight"][tokens]
    for block in range(2):
        prefix = f"model.layers.{block}."
        part = {name.removeprefix(prefix): array for name, array in wide.items()}
        x = x + _attention(part, _normed(x, part["input_layernorm.weight"]), partial(_note, note, prefix))
        x = x + _feed_forward(part, _normed(x, part["post_attention_layernorm.weight"]), partial(_note, note, prefix))
    x = _normed(x, wide["model.norm.weight"])
    note("lm_head", x)
    return x @ wide["lm_head.weight"].T


def _note(note: Note, prefix: str, name: str, x: NDArray[np.float64]) -> None:
    note(prefix + name, x)


def _normed(x: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + LLAMA["rms_norm_eps"]) * weight


def _feed_forward(part: dict[str, NDArray[np.float64]], x: NDArray[np.float64], note: Note) -> NDArray[np.float64]:
    note("mlp.gate_proj", x)
    gate, up = (x @ part[f"mlp.{name}_proj.weight"].T for name in ("gate", "up"))
    inside = gate / (1 + np.exp(-gate)) * up
    note("mlp.down_proj", inside)
    return inside @ part["mlp.down_proj.weight"].T


def _attention(part: dict[str, NDArray[np.float64]], x: NDArray[np.float64], note: Note) -> NDArray[np.float64]:
    width = 16
    note("self_attn.q_proj", x)
    q, k, v = (x @ part[f"self_attn.{name}_proj.weight"].T for name in "qkv")
    q, k, v = (array.reshape(len(x), -1, width).swapaxes(0, 1) for array in (q, k, v))
    k, v = (np.repeat(array, 2, axis=0) for array in (_turned(k), v))
    scores = _turned(q) @ k.swapaxes(1, 2) / np.sqrt(width)
    scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    found = (shares / shares.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(len(x), -1)
    note("self_attn.o_proj", found)
    return found @ part["self_attn.o_proj.weight"].T


def _turned(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotary embedding of [heads, positions, width]."""
    half = x.shape[-1] // 2
    angles = np.arange(x.shape[1])[:, None] * LLAMA["rope_theta"] ** (-np.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    return np.concatenate(
        [first * np.cos(angles) - second * np.sin(angles), second * np.cos(angles) + first * np.sin(angles)], axis=-1
    )
