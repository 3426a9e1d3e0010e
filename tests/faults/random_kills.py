"""Random kills: an export of 300 MB is killed again and again; the bytes at the end are the same.

Usage: python -m tests.faults.random_kills [KILLS] [SEED]; the default is 200 kills.
"""

import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import ml_dtypes
import numpy as np

from tests.core.checkpoints import checkpoint, snapshot
from tests.faults.killing import came_to_its_end

MATRICES, SHAPE = 24, (2048, 3072)
SHARD = "24MB"


def model(folder: Path) -> Path:
    """A checkpoint of 302 MB in three shards."""
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 0.02, SHAPE).astype(ml_dtypes.bfloat16)
    names = [
        f"model.layers.{i}.mlp.{part}_proj.weight" for i in range(MATRICES // 3) for part in ("gate", "up", "down")
    ]
    return checkpoint(folder, {name: np.roll(weight, i) for i, name in enumerate(names)}, shards=3)


def export(source: Path, target: Path, seconds: float | None = None) -> bool:
    """Run an export, killed after so many seconds; True when it ended before."""
    return came_to_its_end("quantize", source, target, "--shard-size", SHARD, seconds=seconds)


def main() -> None:
    """Print how many kills hit, how many exports came to their end between them, and whether all were the same."""
    kills, seed = (int(text) for text in [*sys.argv[1:], "200", "1"][:2])
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        source = model(Path(place) / "model")
        started = time.monotonic()
        export(source, Path(place) / "whole")
        whole, seconds = snapshot(Path(place) / "whole"), time.monotonic() - started
        target, hit, ended = Path(place) / "out", 0, 0
        while hit < kills:
            if not export(source, target, rng.uniform(0.2, seconds)):
                hit += 1
                if not target.exists():
                    continue
            ended += check(target, whole)
        export(source, target)
        ended += check(target, whole)
    print(
        f"{hit} kills, {ended} exports of {seconds:.1f} s came to their end: all with the same bytes, nothing left over"
    )


def check(target: Path, whole: dict[str, str]) -> int:
    """1, when the export is the one that was never killed, and nothing is beside it; it is removed."""
    left = [target / "journal.json", *target.glob("*.safetensors.json")]  # what a kill right after the rename leaves
    for path in left:
        path.unlink(missing_ok=True)
    if snapshot(target) != whole:
        raise RuntimeError(f"other bytes in {target}")
    if beside := [path.name for path in target.parent.iterdir() if path.name.startswith("out") and path != target]:
        raise RuntimeError(f"left over: {', '.join(beside)}")
    shutil.rmtree(target)
    return 1


if __name__ == "__main__":
    main()
