"""End to end: a synthetic checkpoint in, a verified export out, against `cp` and reading the file, in one run.

Usage: python tests/benchmarks/end_to_end.py [GIGABYTES] [FOLDER]; the folder needs twice the size, default 2 GB.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np

from studio import core
from studio.core.containers.safetensors import place

ROWS, COLUMNS = 14336, 4096
CHUNK = 16 << 20


def make_checkpoint(folder: Path, gigabytes: float) -> Path:
    """A folder with one shard of bf16 matrices, heavy-tailed, with outlier channels; about `gigabytes` large."""
    count = max(round(gigabytes * 1e9 / (2 * ROWS * COLUMNS)), 1)
    rng = np.random.default_rng(0)
    weight = rng.standard_t(4, (ROWS, COLUMNS)).astype(np.float32) * 0.02
    weight[:, rng.choice(COLUMNS, 8, replace=False)] *= 15
    data = weight.astype(ml_dtypes.bfloat16).tobytes()
    names = [(f"model.layers.{i}.mlp.down_proj.weight", "BF16", (ROWS, COLUMNS)) for i in range(count)]
    head, _ = place(names, {"format": "pt"})
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    with (folder / "model.safetensors").open("wb") as file:
        file.write(head)
        for _ in names:
            file.write(data)
    return folder / "model.safetensors"


def read_all(path: Path) -> None:
    """Read a file as fast as one thread can, into a buffer that is used again."""
    buffer = bytearray(CHUNK)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def forget(path: Path) -> None:
    """Drop the pages of a file from the cache, after all that is still to be written has been."""
    os.sync()
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def flush(path: Path) -> None:
    """Wait until a file is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def timed(action: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def anonymous_peak(stop: threading.Event, found: list[int]) -> None:
    """Sample the anonymous memory of this process until `stop`; appends kilobytes."""
    while not stop.wait(0.02):
        status = Path("/proc/self/status").read_text(encoding="ascii")
        found.append(int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))))


def quantize(source: Path, target: Path) -> dict[str, float]:
    """Export three tiers with all statistics; seconds of the phases and in total."""
    shutil.rmtree(target, ignore_errors=True)
    started = time.perf_counter()
    with core.open_model(source) as model, core.start(core.Machine(), model) as engine:
        plan = core.preset("linear")
        job = core.prepare(model, plan, core.resolve(plan, model), core.LAYOUTS["modelopt"], target)
        *_, last = core.export(engine, job)
    assert isinstance(last, core.Finished)
    return {**last.outcome.seconds, "total": time.perf_counter() - started}


def main() -> None:
    """Print the figures."""
    gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    parent = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory(dir=parent) as place_:
        folder = Path(place_)
        shard = make_checkpoint(folder / "source", gigabytes)
        size = shard.stat().st_size
        copies, flushed, runs, reads = [], [], [], []
        stop, memory = threading.Event(), [0]
        threading.Thread(target=anonymous_peak, args=(stop, memory), daemon=True).start()
        for i in range(4):
            read_all(shard)
            copies.append(timed(lambda: subprocess.run(["cp", shard, folder / "copy"], check=True)))
            flushed.append(copies[-1] + timed(lambda: flush(folder / "copy")))
            (folder / "copy").unlink()
            runs.append(quantize(shard.parent, folder / "export"))
            reads.append(timed(lambda: read_all(shard)))
            print(f"run {i + 1}: cp {copies[-1]:.2f} s, quantize {runs[-1]['quantize']:.2f} s,", end=" ")
            print(f"verify {runs[-1]['verify']:.2f} s, total {runs[-1]['total']:.2f} s, read {reads[-1]:.2f} s")
        stop.set()
        best = min(runs, key=lambda run: run["quantize"])
        print(f"\n{size / 1e9:.2f} GB bf16, NVFP4 three tiers with statistics, page cache warm, best of {len(runs)}")
        print(f"quantize / cp of the input   {best['quantize'] / min(copies):.2f}   (goal: at most 1.3)")
        verify, total = (min(run[key] for run in runs) for key in ("verify", "total"))
        print(f"verify / quantize            {verify / best['quantize']:.2f}   (goal: at most 0.6)")
        print(f"whole run / cp of the input  {total / min(copies):.2f}   (goal: at most 1.5; cp does not flush)")
        print(f"whole run / cp with a flush  {total / min(flushed):.2f}")
        print(f"peak anonymous memory        {max(memory) / 1000:.0f} MB (goal: under 150)")
        cold(shard, folder)


def cold(shard: Path, folder: Path) -> None:
    """The same from a cold page cache, against reading the file cold."""
    reads, runs = [], []
    for _ in range(5):
        forget(shard)
        reads.append(timed(lambda: read_all(shard)))
        forget(shard)
        runs.append(quantize(shard.parent, folder / "export")["quantize"])
    print(f"cold: quantize / reading     {min(runs) / min(reads):.2f}   (goal: at most 1.1; medians", end=" ")
    print(f"{statistics.median(runs) / statistics.median(reads):.2f})", end=" ")
    print(f"[read {min(reads):.2f} to {max(reads):.2f} s, quantize {min(runs):.2f} to {max(runs):.2f} s]")


if __name__ == "__main__":
    main()
