"""Small models of the architectures that GGUF files are written of."""

import numpy as np

from studio import core
from tests.core.checkpoints import BF16, checkpoint


def made(folder, kind):
    """A small model of an architecture that GGUF files are written of, with the tokenizer of the demo."""
    demo, width, inner, heads, keys, height = core.demo_checkpoint(), 128, 256, 4, 2, 32
    with core.open_model(demo) as known:
        words = known.config["vocab_size"]
    experts = 4 if kind in ("mixtral", "qwen3_moe") else 0
    shapes = {"model.embed_tokens": (words, width), "lm_head": (words, width), "model.norm": (width,)}
    for name, rows, columns in (("q", heads, 0), ("k", keys, 0), ("v", keys, 0), ("o", 0, heads)):
        shape = (rows * height or width, columns * height or width)
        shapes[f"model.layers.0.self_attn.{name}_proj"] = shape
    shapes |= {f"model.layers.0.{name}": (width,) for name in ("input_layernorm", "post_attention_layernorm")}
    inside = "block_sparse_moe" if kind == "mixtral" else "mlp"
    names = ("w1", "w3", "w2") if kind == "mixtral" else ("gate_proj", "up_proj", "down_proj")
    for place in [f"experts.{i}." for i in range(experts)] or [""]:
        for name, shape in zip(names, ((inner, width), (inner, width), (width, inner)), strict=True):
            shapes[f"model.layers.0.{inside}.{place}{name}"] = shape
    if experts:
        shapes[f"model.layers.0.{inside}.gate"] = (experts, width)
    if kind.startswith("qwen3"):
        shapes |= {f"model.layers.0.self_attn.{name}_norm": (height,) for name in "qk"}
    rng = np.random.default_rng(len(kind))
    tensors = {f"{name}.weight": rng.normal(0, 0.05, shape).astype(BF16) for name, shape in shapes.items()}
    if kind == "qwen2":
        for name, rows in (("q", heads), ("k", keys), ("v", keys)):
            tensors[f"model.layers.0.self_attn.{name}_proj.bias"] = rng.normal(0, 1, rows * height).astype(BF16)
    config = {
        "model_type": kind,
        "architectures": ["X"],
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": 1,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "head_dim": height,
        "vocab_size": words,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e4,
        "max_position_embeddings": 128,
        "num_experts_per_tok": 2,
        "num_local_experts": experts,
        "num_experts": experts,
        "norm_topk_prob": True,
        "moe_intermediate_size": inner,
    }
    checkpoint(folder, tensors, config)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((demo / name).read_bytes())
    return folder
