"""Kills workers and coordinators at random, in any order of shards, and compares what comes out: `make cluster`.

Runs have 1, 2 and 8 workers in turn. Seconds bound it: what was done by then is printed, and the exit code is 1 when
fewer were killed than wanted.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import cycle
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
        coordinators = _coordinators(source, folder, good, options.coordinators, stop)
        workers = _workers(source, folder, good, options.workers, stop)
    whole = coordinators >= options.coordinators and workers >= options.workers
    print("all exports have the bytes of a run without workers" if whole else "time was up before all were killed")
    return 0 if whole else 1


NUMBERS = (1, 2, 8)
"""How many workers runs have, in turn."""


def _command(source: Path, target: Path, workers: int) -> list[str]:
    spread = ["--workers", str(workers)] if workers else []
    plan = ["--shard-size", SHARD, "--preset", "all", "--method", "max", "--overwrite"]
    program = "tests.faults.shuffled" if workers else "studio"
    return [sys.executable, "-m", program, "quantize", str(source), str(target), *plan, *spread]


def _coordinators(source: Path, folder: Path, good: dict[str, str], count: int, stop: float) -> int:
    """Kill the coordinator at any moment of a run until it was killed so often; runs that were not killed end equal."""
    killed: Counter[int] = Counter()
    whole, target = 0, folder / "coordinated"
    lasts: dict[int, float] = {}
    for workers in cycle(NUMBERS):
        enough = killed.total() >= count or time.monotonic() > stop
        began = time.monotonic()
        running = subprocess.Popen(_command(source, target, workers), **_PIPES)  # type: ignore[call-overload]
        try:
            limit = None if enough or workers not in lasts else random.uniform(0, lasts[workers])
            _, said = running.communicate(timeout=limit)
            lasts[workers] = time.monotonic() - began
            _check(running.returncode, said, target, good)
            whole += 1
        except subprocess.TimeoutExpired:
            _kill_alone(running)
            killed[workers] += 1
        if enough:
            break
    print(f"coordinators killed: {_told(killed)}; {whole} exports equal")
    return killed.total()


_PIPES = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}


def _kill_alone(running: "subprocess.Popen[bytes]") -> None:
    """Kill a process; all that it started must end by itself."""
    started = psutil.Process(running.pid).children(recursive=True)
    running.kill()
    running.communicate()
    if left := psutil.wait_procs(started, timeout=120)[1]:
        raise SystemExit(f"{len(left)} processes outlive their coordinator: {left}")


def _workers(source: Path, folder: Path, good: dict[str, str], count: int, stop: float) -> int:
    """Kill one of the workers of a run at random, again and again."""
    killed: Counter[int] = Counter()
    whole, target = 0, folder / "worked"
    for workers in cycle(NUMBERS):
        if killed.total() >= count or time.monotonic() > stop:
            break
        running = subprocess.Popen(_command(source, target, workers), **_PIPES)  # type: ignore[call-overload]
        most = min(killed.total() + 2 * workers, count)
        while running.poll() is None:
            time.sleep(random.uniform(0.2, 0.8))
            writes = (folder / "worked.partial" / "journal.json").exists()
            if killed.total() < most and writes and (found := _workers_of(running.pid)):
                os.kill(random.choice(found), signal.SIGKILL)
                killed[workers] += 1
        _check(running.returncode, running.stderr.read() if running.stderr else b"", target, good)
        whole += 1
    print(f"workers killed: {_told(killed)}; {whole} exports equal")
    return killed.total()


def _told(killed: "Counter[int]") -> str:
    by_number = ", ".join(f"{killed[number]} of runs with {number}" for number in NUMBERS)
    return f"{killed.total()} ({by_number})"


def _workers_of(pid: int) -> list[int]:
    """The workers of a coordinator: what the process that they are forked from has started, or it itself."""
    try:
        children = psutil.Process(pid).children()
        workers = children if sys.platform == "darwin" else [two for one in children for two in one.children()]
        return [worker.pid for worker in workers if "resource_tracker" not in " ".join(worker.cmdline())]
    except psutil.Error:
        return []


def _check(code: int, said: bytes, target: Path, good: dict[str, str]) -> None:
    if code or snapshot(target) != good:
        raise SystemExit(f"exit code {code}, or other bytes:\n{said.decode()}")


if __name__ == "__main__":
    sys.exit(main())
