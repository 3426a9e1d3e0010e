"""A scheduler, two workers and a store, each a host of its own behind a long, slow cable: `make hosts`, as root.

The same bytes come out as on one machine; also when the cable of a worker is pulled, after which the other does it all.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.core.stores.buckets import BUCKET, client, held, put
from tests.core.stores.web import serving
from tests.faults.streams import compare, make_source
from tests.faults.wire import Network, missing, network

HOSTS = ("store", "scheduler", "one", "two")
S3_PORT, WEB_PORT, DASK_PORT = 5000, 8000, 8786


def main() -> int:
    """Run it; the exit code is 1 when an export differs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=100.0, help="Mbit/s of each cable")
    parser.add_argument("--delay", type=float, default=20.0, help="ms one way")
    parser.add_argument("--blocks", type=int, default=4, help="of the model, 16 MB each")
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.store:
        return _store(options.store)
    if why := missing():
        print(f"SKIPPED: {why}")
        return 0
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        source = make_source(folder, options.blocks)
        good = folder / "good"
        subprocess.run(_quantize(source, good), check=True, capture_output=True)
        here = {path.name: path.read_bytes() for path in good.iterdir()}
        there = stack.enter_context(network(HOSTS, options.rate * 1e6, options.delay / 1e3))
        stack.enter_context(_running(there, "store", "-m", "tests.faults.hosts", "--store", folder))
        _wait(lambda: (folder / "ready").exists())
        _dask(stack, there)
        for name, url, pulled in [
            ("s3", f"s3://{BUCKET}/in/model", ""),
            ("web", f"http://{there.address('store')}:{WEB_PORT}/model", ""),
            ("pulled", f"s3://{BUCKET}/in/model", "two"),
        ]:
            _spread(there, name, url, pulled)
            compare(_fetched(folder, name), here)
            print(f"{name}: equal bytes")
    return 0


def _store(folder: Path) -> int:
    """Run on the host of the store: a bucket and a web server with the source; what is asked for is written to disk."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="0.0.0.0", port=S3_PORT, verbose=False)  # noqa: S104
    server.start()
    os.environ.update(AWS_ENDPOINT_URL=f"http://127.0.0.1:{S3_PORT}", ENDPOINT_OF_TESTS=f"http://127.0.0.1:{S3_PORT}")
    client().create_bucket(Bucket=BUCKET)
    put(folder / "model", "in/model")
    with serving(folder, at=("0.0.0.0", WEB_PORT)):  # noqa: S104
        (folder / "ready").touch()
        while True:
            for asked in folder.glob("*.asked"):
                for name, data in held(asked.stem).items():
                    (folder / asked.stem).mkdir(exist_ok=True)
                    (folder / asked.stem / name).write_bytes(data)
                asked.unlink()
            time.sleep(0.1)


def _fetched(folder: Path, name: str) -> dict[str, bytes]:
    """What the bucket holds at the end."""
    (folder / f"{name}.asked").touch()
    _wait(lambda: not (folder / f"{name}.asked").exists())
    return {path.name: path.read_bytes() for path in (folder / name).iterdir()}


def _dask(stack: ExitStack, there: Network) -> None:
    address = there.address("scheduler")
    scheduler = ("-m", "distributed.cli.dask_scheduler", "--host", address, "--port", DASK_PORT, "--no-dashboard")
    stack.enter_context(_running(there, "scheduler", *scheduler))
    for host in ("one", "two"):
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        worker = ("-m", "distributed.cli.dask_worker", f"tcp://{address}:{DASK_PORT}", "--nthreads", 1)
        more = ("--no-dashboard", "--local-directory", place, "--host", there.address(host))
        stack.enter_context(_running(there, host, *worker, *more))


def _spread(there: Network, name: str, url: str, pulled: str) -> None:
    """Quantize a URL into the bucket by the workers; the cable of `pulled` is out from its first shard on."""
    workers = f"tcp://{there.address('scheduler')}:{DASK_PORT}"
    before, begun = {host: cable.carried for host, cable in there.cables.items()}, time.monotonic()
    command = _quantize(url, f"s3://{BUCKET}/{name}", "--stream", "--cluster", workers, "--json")
    running = subprocess.Popen(
        there.command("scheduler", *command),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=_env(there),
    )
    assert running.stdout is not None
    said = []
    for line in running.stdout:
        said.append(line)
        if pulled and '"event": "shard"' in line:
            there.cables[pulled].plugged, pulled = False, ""
    if running.wait():
        raise SystemExit("".join(line[:300] for line in said[-20:]))
    for cable in there.cables.values():
        cable.plugged = True
    lost = sum("begins again" in line for line in said)
    seconds = time.monotonic() - begun
    sent = {host: f"{(cable.carried - before[host]) / 1e6:.1f}" for host, cable in there.cables.items()}
    print(f"{name}: {seconds:.0f} s, {lost} shards begun again, MB sent by each host {json.dumps(sent)}")


def _quantize(source: object, target: object, *more: str) -> list[str]:
    how = ("--shard-size", "3M", "--method", "max")
    return [sys.executable, "-m", "studio", "quantize", str(source), str(target), *how, *more]


def _env(there: Network) -> dict[str, str]:
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    keys["DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL"] = "15s"
    return {**os.environ, **keys, "AWS_ENDPOINT_URL": f"http://{there.address('store')}:{S3_PORT}"}


@contextmanager
def _running(there: Network, host: str, *arguments: object) -> Iterator[None]:
    """A Python process on a host, ended afterwards."""
    command = there.command(host, sys.executable, *arguments)
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_env(there))
    try:
        yield
    finally:
        running.terminate()
        try:
            running.wait(10)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def _wait(there: Callable[[], bool], seconds: float = 120.0) -> None:
    stop = time.monotonic() + seconds
    while not there():
        if time.monotonic() > stop:
            raise SystemExit("the store does not start")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
