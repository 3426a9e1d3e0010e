"""Streams on a disk of two shards, killed at random: `python -m tests.faults.streams`, as root for the small disk.

The folder for temporary files is a file system of its own (tmpfs) of the size that the program says it needs.
"""

import argparse
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.core.checkpoints import BF16, checkpoint, gaussian
from tests.core.stores.buckets import BUCKET, client, held, put
from tests.core.stores.web import serving

BLOCKS = 8
SHAPE = (1024, 2048)
NAMES = ("q_proj", "k_proj", "v_proj", "o_proj")
SHARD = "3M"
OTHER = {"README.md", "SHA256SUMS"}
"""Files that have the name of their folder in them."""


def main() -> int:
    """Run all of it; the exit code is 1 when an export differs, a disk was too small, or too few were killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20, help="kills, half of them with workers")
    parser.add_argument("--seconds", type=float, default=500.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, storing(), ExitStack() as stack:
        folder = Path(scratch)
        source = make_source(folder, BLOCKS)
        put(source, "in/model")
        web = stack.enter_context(serving(source.parent))
        _run(str(source), str(folder / "good"), folder)
        good = {path.name: path.read_bytes() for path in (folder / "good").iterdir()}
        s3, http = f"s3://{BUCKET}/in/model", f"{web.url}/model"
        for number, (url, workers) in enumerate([(s3, 0), (http, 0), (s3, 2)]):
            _on_a_small_disk(folder, url, f"out-{number}", workers, good)
        _into_a_folder(folder, http, good)
        killed = 0
        for workers in (0, 2):
            killed += _killed(folder, s3, workers, options.kills // 2, time.monotonic() + options.seconds / 2, good)
    return 0 if killed >= options.kills else 1


@contextmanager
def storing() -> Iterator[None]:
    """A bucket on moto's server in this process; others find it by the environment."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update(AWS_ENDPOINT_URL=f"http://{host}:{port}", ENDPOINT_OF_TESTS=f"http://{host}:{port}", **keys)
    client().create_bucket(Bucket=BUCKET)
    yield
    server.stop()


def make_source(folder: Path, blocks: int) -> Path:
    """16 MB for each block, the members of each fused group in different files."""
    names = [f"model.layers.{block}.self_attn.{name}.weight" for name in NAMES for block in range(blocks)]
    tensors = {name: (gaussian(*SHAPE, seed=i) * (1 + i % 5)).astype(BF16) for i, name in enumerate(names)}
    config = {"model_type": "llama", "num_hidden_layers": blocks, "hidden_size": SHAPE[1]}
    return checkpoint(folder / "model", tensors, config, shards=4)


def _command(source: str, target: str, *more: str) -> list[str]:
    how = ("--shard-size", SHARD, "--method", "max", "--json", "--threads", "1")
    return [sys.executable, "-m", "studio", "quantize", source, target, *how, *more]


def _run(source: str, target: str, place: Path, *more: str) -> list[dict[str, Any]]:
    """The events of a run with its temporary files at `place`."""
    ran = subprocess.run(_command(source, target, *more), capture_output=True, text=True, env=_with(place))
    if ran.returncode:
        raise SystemExit(f"exit code {ran.returncode}:\n{ran.stderr}")
    return [json.loads(line) for line in ran.stdout.splitlines()]


def _with(place: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(place)}


@contextmanager
def _disk(folder: Path, nbytes: int) -> Iterator[Path]:
    """A file system of so many bytes, where this process may mount one; otherwise an ordinary folder, which is said."""
    place = folder / "disk"
    place.mkdir(exist_ok=True)
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={nbytes}", "none", place], check=False
    ).returncode
    if not mounted:
        print("SKIPPED: a small disk can not be mounted here (not root): only the bytes are compared")
    try:
        yield place
    finally:
        if mounted:
            subprocess.run(["umount", place], check=True)


def _needed(folder: Path, url: str, workers: int) -> int:
    """What the program says that a stream takes."""
    spread = ["--workers", str(workers)] if workers else []
    told = _run(url, f"s3://{BUCKET}/dry", folder, "--stream", "--dry-run", *spread)
    return int(next(event["nbytes"] for event in told if event["event"] == "occupies"))


def _on_a_small_disk(folder: Path, url: str, name: str, workers: int, good: dict[str, bytes]) -> None:
    """From a URL into the bucket, on a disk of just the bytes that it is said to take."""
    nbytes, spread = _needed(folder, url, workers), ["--workers", str(workers)] if workers else []
    with _disk(folder, nbytes) as place:
        _run(url, f"s3://{BUCKET}/{name}", place, "--stream", *spread)
        compare(held(name), good)
        left = list(place.glob("nvfp4-studio-out-*"))
        if left:
            raise SystemExit(f"left on the disk: {left}")
        if os.path.ismount(place) and not workers:
            whole = _command(url, f"s3://{BUCKET}/{name}-whole")
            ran = subprocess.run(whole, capture_output=True, text=True, env=_with(place))
            if ran.returncode != 4 or "no disk space left" not in ran.stderr:
                raise SystemExit(f"without --stream it should not fit:\n{ran.stderr}")
    with_workers = f", {workers} workers" if workers else ""
    size = sum(map(len, good.values()))
    print(f"{url} -> s3://{with_workers}: equal bytes, an export of {size:,} on a disk of {nbytes:,}")


def _into_a_folder(folder: Path, url: str, good: dict[str, bytes]) -> None:
    """From a URL into a folder elsewhere, on a disk of what one shard needs of the source."""
    target = folder / "streamed"
    told = _run(url, str(target), folder, "--stream", "--dry-run")
    nbytes = int(next(event["nbytes"] for event in told if event["event"] == "occupies"))
    with _disk(folder, nbytes) as place:
        _run(url, str(target), place, "--stream")
    compare({path.name: path.read_bytes() for path in target.iterdir()}, good)
    print(f"{url} -> folder: equal bytes, what is fetched on a disk of {nbytes:,}")


def _killed(folder: Path, url: str, workers: int, kills: int, stop: float, good: dict[str, bytes]) -> int:
    """Kill it at random moments, on the small disk, so often, then let it end; returns how often."""
    name, killed, ended = f"killed-{workers}", 0, 0
    nbytes, spread = _needed(folder, url, workers), ["--workers", str(workers)] if workers else []
    with _disk(folder, nbytes) as place:
        while killed < kills and time.monotonic() < stop:
            running = subprocess.Popen(
                _command(url, f"s3://{BUCKET}/{name}-{ended}", "--stream", *spread),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=_with(place),
            )
            try:
                _, said = running.communicate(timeout=random.uniform(1.0, 12.0))
                if running.returncode:
                    raise SystemExit(f"exit code {running.returncode}:\n{said.decode()}")
                compare(held(f"{name}-{ended}"), good)
                ended += 1
            except subprocess.TimeoutExpired:
                running.kill()
                running.communicate()
                killed += 1
        if "nvfp4_studio.json" not in held(f"{name}-{ended}"):
            _run(url, f"s3://{BUCKET}/{name}-{ended}", place, "--stream", *spread)
        compare(held(f"{name}-{ended}"), good)
    what = f"{workers} workers" if workers else "no workers"
    print(f"killed {killed} times with {what}, {ended + 1} exports ended, all equal, on a disk of {nbytes:,}")
    return killed


def compare(found: dict[str, bytes], good: dict[str, bytes]) -> None:
    """Exit with the names of files that differ."""
    differ = {name for name in found.keys() | good.keys() if found.get(name) != good.get(name)}
    if not differ <= OTHER or not found.keys() >= OTHER:
        raise SystemExit(f"these differ: {sorted(differ)}")


if __name__ == "__main__":
    sys.exit(main())
