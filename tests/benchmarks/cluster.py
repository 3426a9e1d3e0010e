"""What workers cost: a whole `quantize` with and without them, in turns: `python -m tests.benchmarks.cluster`.

Prints the times of every pair, their ratio, and the median of the ratios: the load of the machine changes, so only what
ran one after the other is compared. Where workers do not pay they are not begun; `--at-once` has them do all.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.core.checkpoints import checkpoint, gaussian, snapshot

EDGE = 4096


def main() -> int:
    """Run the pairs; the exit code is 1 where bytes differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--matrices", type=int, default=64, help="of 32 MiB each; 64 are 2.1 GB")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--method", default="search", help="default: search, what quantize takes without statistics")
    parser.add_argument("--at-once", action="store_true", help="workers begin before the first part")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = _source(folder / "model", options.matrices)
        command = [sys.executable, "-m", "studio", "quantize", str(source), "DST", "--shard-size", "64M", "--quiet"]
        command += ["--method", options.method]
        spread = [*command[:2], "tests.faults.at_once" if options.at_once else "studio", *command[3:]]
        workers = ["--workers", str(options.workers)]
        ratios = [_pair(command, spread + workers, folder, turn) for turn in range(options.pairs)]
        same = snapshot(folder / "alone") == snapshot(folder / "spread")
    print(f"median of {len(ratios)} ratios: {statistics.median(ratios):.3f}; bytes {'equal' if same else 'DIFFER'}")
    return 0 if same else 1


def _source(folder: Path, count: int) -> Path:
    """Gaussian matrices, each the rows of one, moved on."""
    rows = gaussian(EDGE, EDGE)
    names = (f"model.layers.{i}.mlp.down_proj.weight" for i in range(count))
    tensors = {name: np.roll(rows, 61 * i, axis=0) for i, name in enumerate(names)}
    return checkpoint(folder, tensors, {"model_type": "llama", "num_hidden_layers": count}, shards=8)


def _pair(alone: list[str], spread: list[str], folder: Path, turn: int) -> float:
    """The ratio of two runs; which is the first changes, as what the first wrote can hold the second up."""
    commands = [(alone, folder / "alone"), (spread, folder / "spread")]
    taken = {target.name: _seconds(command, target) for command, target in (commands[::-1] if turn % 2 else commands)}
    ratio = taken["spread"] / taken["alone"]
    print(f"alone {taken['alone']:6.2f} s, with workers {taken['spread']:6.2f} s, ratio {ratio:.3f}", flush=True)
    return ratio


def _seconds(command: list[str], target: Path) -> float:
    shutil.rmtree(target, ignore_errors=True)
    os.sync()
    started = time.monotonic()
    subprocess.run([str(target) if word == "DST" else word for word in command], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main())
