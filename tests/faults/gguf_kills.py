"""Kills while a GGUF file grows: quantizing into one, and converting to one, end in the same bytes whatever was killed.

Usage: python -m tests.faults.gguf_kills [KILLS] [SEED]; the default is 20 kills of each.
"""

import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from studio import core
from tests.core.checkpoints import BF16, checkpoint
from tests.faults.killing import came_to_its_end

WIDTH, INNER, BLOCKS = 1024, 3072, 8


def model(folder: Path) -> Path:
    """A llama of 200 MB with the tokenizer of the demo."""
    demo = core.demo_checkpoint()
    with core.open_model(demo) as known:
        config = dict(known.config)
    config |= {"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": BLOCKS, "head_dim": WIDTH // 8}
    config |= {"num_attention_heads": 8, "num_key_value_heads": 4, "tie_word_embeddings": True}
    drawn = np.random.default_rng(0).normal(0, 0.02, (INNER, WIDTH)).astype(BF16)
    shapes = {"self_attn.q_proj": (WIDTH, WIDTH), "self_attn.k_proj": (WIDTH // 2, WIDTH)}
    shapes |= {"self_attn.v_proj": (WIDTH // 2, WIDTH), "self_attn.o_proj": (WIDTH, WIDTH)}
    shapes |= {"mlp.gate_proj": (INNER, WIDTH), "mlp.up_proj": (INNER, WIDTH), "mlp.down_proj": (WIDTH, INNER)}
    tensors = {"model.embed_tokens.weight": np.resize(drawn, (config["vocab_size"], WIDTH))}
    for block in range(BLOCKS):
        for number, (name, shape) in enumerate(shapes.items()):
            tensors[f"model.layers.{block}.{name}.weight"] = np.resize(np.roll(drawn, 7 * block + number), shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{block}.{name}.weight"] = np.ones(WIDTH, BF16)
    checkpoint(folder, {**tensors, "model.norm.weight": np.ones(WIDTH, BF16)}, config)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((demo / name).read_bytes())
    return folder


def killed(kills: int, chance: random.Random, whole: Path, *words: object) -> str:
    """Kill a command that writes a file again and again until it comes to its end; `whole` was never killed."""
    started = time.monotonic()
    came_to_its_end(*words, whole)
    seconds, target, ended = time.monotonic() - started, whole.with_name("killed.gguf"), 0
    for _ in range(kills):
        if came_to_its_end(*words, target, seconds=chance.uniform(0.3, seconds)) or target.exists():
            ended += check(target, whole)
    came_to_its_end(*words, target)
    ended += check(target, whole)
    return f"{words[0]}: {kills} kills of runs of {seconds:.1f} s, {ended} files came to their end"


def check(target: Path, whole: Path) -> int:
    """1 for the same bytes and nothing left beside them; the file is removed."""
    if target.read_bytes() != whole.read_bytes():
        raise RuntimeError(f"other bytes in {target}")
    target.unlink()
    target.with_name(f"{target.name}.partial.json").unlink(missing_ok=True)  # what a kill right after the rename leaves
    if left := [path.name for path in target.parent.glob(f"{target.name}*")]:
        raise RuntimeError(f"left over: {', '.join(left)}")
    return 1


def main() -> None:
    """Print how many kills hit, and that all files are the same."""
    kills, seed = (int(text) for text in [*sys.argv[1:], "20", "1"][:2])
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        source = model(place / "model")
        found = [killed(kills, chance, place / "whole.gguf", "gguf", source)]
        came_to_its_end("quantize", source, place / "packed", "--layout", "modelopt")
        (place / "whole.gguf").unlink()
        to_gguf = ("convert", "--layout", "gguf", place / "packed")
        found.append(killed(kills, chance, place / "whole.gguf", *to_gguf))
    print(f"{'; '.join(found)}: all with the same bytes, nothing left over")


if __name__ == "__main__":
    main()
