"""Scale: time and memory of every command on very many tensors and on very large ones, in processes of their own.

Usage: python -m tests.benchmarks.scale [FOLDER]; the folder needs 8 GB, most of it holes.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, Popen

import numpy as np

from studio.core.containers.safetensors import place

BLOCKS, EXPERTS = 40, 500
MEMORY = 150
"""Megabytes of anonymous memory that any command may take."""
BOUNDS = {"inspect": 5, "plan": 6, "measure": 30, "quantize": 60, "doctor": 40, "verify": 30, "verify --source": 50}
"""Seconds of processor time for 60,202 tensors, on a machine that does other things, too."""


@dataclass(frozen=True)
class Cost:
    """What a command took: wall and processor seconds, and megabytes of anonymous memory at the most."""

    wall: float
    cpu: float
    memory: float


def run(*arguments: object, start: Sequence[str] = ("-m", "studio")) -> Cost:
    """Run a command of the program, by these arguments of Python; raises RuntimeError when it fails."""
    started = time.perf_counter()
    command = [sys.executable, *start, *map(str, arguments), "--quiet"]
    process, peak = Popen(command, stdout=DEVNULL), 0
    status = Path(f"/proc/{process.pid}/status")
    while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
        lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
        peak = max([peak, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))])
        time.sleep(0.01)
    process.returncode = os.waitstatus_to_exitcode(ended[1])
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} exited with {process.returncode}")
    used = ended[2]
    return Cost(time.perf_counter() - started, used.ru_utime + used.ru_stime, peak / 1000)


def write(folder: Path, tensors: dict[str, tuple[tuple[int, ...], bytes | None]]) -> Path:
    """A checkpoint of bf16 tensors; those without bytes are holes."""
    folder.mkdir()
    head, header = place([(name, "BF16", shape) for name, (shape, _) in tensors.items()], {"format": "pt"})
    with (folder / "model.safetensors").open("wb") as file:
        file.write(head)
        for name, (_, data) in tensors.items():
            file.write(data) if data is not None else file.seek(header.tensors[name].nbytes, 1)
        file.truncate()
    config = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_hidden_layers": BLOCKS}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def bf16(*shape: int) -> tuple[tuple[int, ...], bytes]:
    """Weights of a Gaussian."""
    values = np.random.default_rng(0).normal(0, 0.02, shape).astype(np.float32)
    return shape, (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()


def mixture(folder: Path) -> Path:
    """60,202 tensors: a mixture of 500 tiny experts in each of 40 blocks."""
    wide, tall, square = bf16(32, 64), bf16(64, 32), bf16(64, 64)
    tensors: dict[str, tuple[tuple[int, ...], bytes | None]] = {}
    for block in range(BLOCKS):
        prefix = f"model.layers.{block}"
        tensors |= {f"{prefix}.self_attn.{kind}_proj.weight": square for kind in "qkvo"}
        tensors[f"{prefix}.mlp.gate.weight"] = bf16(EXPERTS, 64)
        for expert in range(EXPERTS):
            parts = {"gate": wide, "up": wide, "down": tall}
            tensors |= {f"{prefix}.mlp.experts.{expert}.{part}_proj.weight": data for part, data in parts.items()}
    return write(folder, {**tensors, "model.embed_tokens.weight": bf16(256, 64), "lm_head.weight": bf16(256, 64)})


def show(what: str, cost: Cost, bound: float = 0) -> None:
    """A row: what, seconds against their bound, memory against its own."""
    limit = f" of {bound}" if bound else ""
    print(
        f"{what:44s} {cost.cpu:6.1f}{limit:6s} s CPU {cost.wall:6.1f} s wall {cost.memory:5.0f} of {MEMORY} MB",
        flush=True,
    )


def many(folder: Path) -> None:
    """Every command on 60,202 tensors."""
    source, target = mixture(folder / "many"), folder / "export"
    commands = {
        **{name: (name, source) for name in ("inspect", "plan", "measure")},
        "quantize": ("quantize", source, target, "--layout", "modelopt"),
        "doctor": ("doctor", source, "--fail-on", "never"),
        "verify": ("verify", target),
        "verify --source": ("verify", target, "--source", source),
    }
    for name, command in commands.items():
        show(f"60,202 tensors: {name}", run(*command), BOUNDS[name])
    layers = 60_202
    print(f"manifest: {(target / 'nvfp4_studio.json').stat().st_size / layers:.0f} of 1000 bytes a layer")


def large(folder: Path) -> None:
    """A tensor of 2.8 GB, and a stack of experts of 4 GB."""
    embedding = {"model.layers.0.mlp.down_proj.weight": ((350_000, 4000), None)}
    stack = {"model.layers.0.mlp.experts.gate_up_proj": ((128, 4096, 4096), None)}
    for what, tensors in (("2.8 GB in a tensor", embedding), ("4 GB in a stack", stack)):
        source = write(folder / what.replace(" ", "-"), {**tensors, "model.norm.weight": bf16(64)})
        for limit in ("", "72M"):
            more = ["--max-memory", limit] if limit else []
            show(" ".join([f"{what}: measure", *more]), run("measure", source, *more))


def main() -> None:
    """Print the figures."""
    parent = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=parent) as place_:
        many(Path(place_))
        large(Path(place_))


if __name__ == "__main__":
    main()
