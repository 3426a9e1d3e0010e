"""Workers: what an export takes with 1, 2, 4 and 8 workers on this machine, and what a forecast says.

Usage: python -m tests.benchmarks.workers [FOLDER [processors|store]]; the folder needs 1 GB. First from a folder by a
slow backend, where the processors of the machine hold it up, then from a web server that gives so many bytes in a
second and no more.
Workers do all parts, as those of a cluster do.
"""

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from subprocess import DEVNULL, run
from urllib.parse import unquote

import numpy as np

from studio import core
from studio.core.containers.safetensors import place
from tests.core.stores.web import Handler, serving

BLOCKS, HIDDEN, INNER = 12, 768, 2048
SHARD_NBYTES = 5 * 10**6
COUNTS = (1, 2, 4, 8)
STORE = 1_500_000
"""Bytes per second of the web server."""
PORTION = 64 << 10
SLOW = "numpy"
"""A backend that takes so long that the rest of a run counts little."""


def write(folder: Path) -> Path:
    """A llama of 170 MB of random weights, in a file for each block."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    attention, wide, tall = (HIDDEN, HIDDEN), (INNER, HIDDEN), (HIDDEN, INNER)
    data = {shape: _bf16(rng, shape) for shape in (attention, wide, tall)}
    weights = {}
    for block in range(BLOCKS):
        prefix, file = f"model.layers.{block}", f"model-{block + 1:05}-of-{BLOCKS:05}.safetensors"
        shapes = {f"{prefix}.self_attn.{kind}_proj.weight": attention for kind in "qkvo"}
        shapes |= {f"{prefix}.mlp.{kind}_proj.weight": wide for kind in ("gate", "up")}
        shapes[f"{prefix}.mlp.down_proj.weight"] = tall
        head, _ = place([(name, "BF16", shape) for name, shape in shapes.items()], {"format": "pt"})
        (folder / file).write_bytes(head + b"".join(data[shape] for shape in shapes.values()))
        weights |= dict.fromkeys(shapes, file)
    index = {"metadata": {}, "weight_map": weights}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": BLOCKS}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _bf16(rng: np.random.Generator, shape: tuple[int, ...]) -> bytes:
    values = rng.normal(0, 0.02, shape).astype(np.float32)
    return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()


class _Limited(Handler):
    """Gives ranges of files, all connections together so many bytes in a second."""

    free = 0.0
    lock = threading.Lock()

    def do_GET(self) -> None:  # noqa: N802
        path = self.web.folder / unquote(self.path).lstrip("/")
        asked = self.headers.get("Range", "")
        if not path.is_file() or not asked.startswith("bytes="):
            self.answer(404, b"")
            return
        size = path.stat().st_size
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1, size)
        self.send_response(206)
        told = {"Content-Range": f"bytes {start}-{stop - 1}/{size}", "Content-Length": str(stop - start)}
        for name, value in {**told, "ETag": f'"{size}"'}.items():
            self.send_header(name, value)
        self.end_headers()
        with path.open("rb") as file:
            file.seek(start)
            while start < stop:
                piece = file.read(min(PORTION, stop - start))
                self._wait(len(piece))
                self.wfile.write(piece)
                start += len(piece)

    def _wait(self, count: int) -> None:
        with _Limited.lock:
            now = time.monotonic()
            turn = _Limited.free = max(_Limited.free, now) + count / STORE
        time.sleep(max(turn - now, 0.0))


@contextmanager
def limited(folder: Path) -> Iterator[str]:
    """The address of a folder behind such a server."""
    with serving(folder.parent, kind=_Limited) as web:
        yield f"{web.url}/{folder.name}"


def exported(source: str, target: Path, workers: int, backend: str) -> float:
    """The seconds that an export takes with so many workers."""
    command = [sys.executable, "-m", "tests.faults.at_once", "quantize", source, str(target), "--quiet", "--overwrite"]
    more = ["--shard-size", str(SHARD_NBYTES), "--workers", str(workers), "--threads", "1", "--backend", backend]
    started = time.monotonic()
    run([*command, *more], check=True, stdout=DEVNULL)
    return time.monotonic() - started


def compare(source: str, target: Path, todo: list[core.Piece], rates: core.Rates, backend: str) -> None:
    """A row for each number of workers."""
    processors = len(os.sched_getaffinity(0))
    for workers in COUNTS:
        said = core.forecast(todo, rates, workers, processors=processors)
        took = exported(source, target, workers, backend)
        load = os.getloadavg()[0]
        print(
            f"{workers:7d}  {said.seconds:8.1f} s said  {took:8.1f} s taken  {said.bound:14s} load {load:.1f}",
            flush=True,
        )


def main() -> None:
    """Print the figures."""
    parent = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    plan = core.preset("linear")
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        source, target = write(Path(folder) / "source"), Path(folder) / "target"
        with core.open_model(source) as model:
            todo = core.pieces(model, core.resolve(plan, model), core.LAYOUTS["mlx"], SHARD_NBYTES)
        parts = sys.argv[2:] or ["processors", "store"]
        read = sum(piece.quantized + piece.kept for piece in todo)
        print(f"{core.size_text(read)} in {len(todo)} shards, {len(os.sched_getaffinity(0))} processors")
        if "processors" in parts:
            rates = core.Rates(*core.measured_rates(plan, SLOW))
            alone = sum(piece.seconds(rates, 1) for piece in todo)
            print(f"from a folder, {alone:.1f} s of processors by {SLOW}:", flush=True)
            compare(str(source), target, todo, rates, SLOW)
        if "store" in parts:
            rates = core.Rates(*core.measured_rates(plan), store=STORE)
            print(f"from a web server that gives {core.size_text(STORE)}/s:", flush=True)
            with limited(source) as address:
                compare(address, target, [replace(piece, written=0) for piece in todo], rates, "auto")


if __name__ == "__main__":
    main()
