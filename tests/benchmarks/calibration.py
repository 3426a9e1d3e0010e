"""Calibration: memory and time of statistics on a checkpoint four times larger than the memory allowed.

Usage: python -m tests.benchmarks.calibration [FOLDER]; the folder needs little: the weights are holes of a file.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen

from studio import core
from studio.core.containers.safetensors import place
from tests.core.checkpoints import CONFIG, write_json

HIDDEN, INNER, BLOCKS, WORDS = 2048, 5632, 36, 4096
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN // 2, HIDDEN),
    "self_attn.v_proj": (HIDDEN // 2, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
    "input_layernorm": (HIDDEN,),
    "post_attention_layernorm": (HIDDEN,),
}
SIZES = {
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "vocab_size": WORDS,
}


def write_checkpoint(folder: Path) -> int:
    """A llama of zeros in a file of holes; bytes of its weights."""
    inside = {f"layers.{block}.{name}": shape for block in range(BLOCKS) for name, shape in SHAPES.items()}
    shapes = {"model.embed_tokens": (WORDS, HIDDEN), "lm_head": (WORDS, HIDDEN), "model.norm": (HIDDEN,)}
    shapes |= {f"model.{name}": shape for name, shape in inside.items()}
    head, header = place([(f"{name}.weight", "BF16", shape) for name, shape in shapes.items()], {"format": "pt"})
    folder.mkdir(parents=True)
    path, nbytes = folder / "model.safetensors", sum(tensor.nbytes for tensor in header.tensors.values())
    path.write_bytes(head)
    os.truncate(path, len(head) + nbytes)
    write_json(folder / "config.json", {**CONFIG, **SIZES})
    shutil.copy(core.demo_checkpoint() / "tokenizer.json", folder)
    return nbytes


def peak_of(arguments: list[str]) -> int:
    """Kilobytes that a process had in memory at the most, files that it maps included."""
    process, peak = Popen(arguments, stdin=PIPE, stdout=DEVNULL), 0
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines()
        except OSError:
            break
        peak = max([peak, *(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))])
        time.sleep(0.05)
    if process.wait():
        raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}")
    return peak


def main(folder: Path) -> None:
    """Print what it took."""
    nbytes = write_checkpoint(folder / "model")
    limit, began = nbytes // 4, time.perf_counter()
    options = {"--text": core.calibration_text(), "--out": folder / "out", "--windows": 2, "--length": 64, "--seed": 0}
    given = [f"{name}={value}" for name, value in {**options, "--max-memory": limit}.items()]
    peak = peak_of([sys.executable, "-m", "studio.lm", "calibrate", str(folder / "model"), *given])
    seconds = time.perf_counter() - began
    print(f"{nbytes / 1e9:.2f} GB of weights, {limit / 1e6:.0f} MB allowed: {peak / 1e3:.0f} MB, {seconds:.0f} s")
    assert peak * 1000 < limit


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as temporary:
        main(Path(temporary))
