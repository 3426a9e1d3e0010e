"""Kills workers and coordinators at random and compares what comes out: `python -m tests.faults.cluster_kills`."""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.core.checkpoints import checkpoint, gaussian, snapshot

SHAPE = (1024, 2048)
LAYERS = 64
SHARD = "2M"


def main() -> int:
    """Run both kinds; the exit code is 1 when an export differs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=50, help="kills of workers")
    parser.add_argument("--coordinators", type=int, default=20, help="kills of coordinators")
    parser.add_argument("--seconds", type=float, default=540.0)
    options = parser.parse_args()
    stop = time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        weights = {f"model.layers.{i}.mlp.down_proj.weight": gaussian(*SHAPE, seed=i) for i in range(LAYERS)}
        source = checkpoint(folder / "model", weights, {"model_type": "llama", "num_hidden_layers": LAYERS}, shards=4)
        subprocess.run(_command(source, folder / "good", 0), check=True, capture_output=True)
        good = snapshot(folder / "good")
        killed = _coordinators(source, folder, good, options.coordinators, stop)
        print(f"coordinators killed: {killed}, exports equal")
        killed = _workers(source, folder, good, options.workers, stop)
        print(f"workers killed: {killed}, exports equal")
    return 0


def _command(source: Path, target: Path, workers: int) -> list[str]:
    spread = ["--workers", str(workers)] if workers else []
    plan = ["--shard-size", SHARD, "--preset", "all", "--method", "max", "--overwrite"]
    return [sys.executable, "-m", "studio", "quantize", str(source), str(target), *plan, *spread]


def _coordinators(source: Path, folder: Path, good: dict[str, str], count: int, stop: float) -> int:
    """Kill the coordinator at random until it was killed so often, whole runs in between."""
    killed, target = 0, folder / "coordinated"
    while killed < count and time.monotonic() < stop:
        running = subprocess.Popen(_command(source, target, 2), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            _, said = running.communicate(timeout=random.uniform(2, 9))
            _check(running.returncode, said, target, good)
        except subprocess.TimeoutExpired:
            running.kill()
            running.communicate()
            killed += 1
    last = subprocess.run(_command(source, target, 2), capture_output=True)
    _check(last.returncode, last.stderr, target, good)
    return killed


def _workers(source: Path, folder: Path, good: dict[str, str], count: int, stop: float) -> int:
    """Kill one of the workers of a run at random, again and again."""
    killed, target = 0, folder / "worked"
    while killed < count and time.monotonic() < stop:
        running = subprocess.Popen(_command(source, target, 3), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while running.poll() is None:
            time.sleep(random.uniform(0.5, 1.5))
            if killed < count and (found := _workers_of(running.pid)) and (folder / "worked.partial").is_dir():
                os.kill(random.choice(found), signal.SIGKILL)
                killed += 1
        _check(running.returncode, running.stderr.read() if running.stderr else b"", target, good)
    return killed


def _workers_of(pid: int) -> list[int]:
    """Processes that a coordinator started, but for the one that only tracks resources."""
    try:
        children = psutil.Process(pid).children()
        return [child.pid for child in children if "resource_tracker" not in " ".join(child.cmdline())]
    except psutil.Error:
        return []


def _check(code: int, said: bytes, target: Path, good: dict[str, str]) -> None:
    if code or snapshot(target) != good:
        raise SystemExit(f"exit code {code}, or other bytes:\n{said.decode()}")


if __name__ == "__main__":
    sys.exit(main())
