"""Streams: a shard of the source and one of the export on this disk at a time, and the bytes of any other export."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio import core
from studio.core.exporting import streaming
from studio.core.stores.patience import Patience
from studio.core.stores.remote_folder import RemoteFolder
from studio.core.stores.store_path import StorePath
from studio.core.stores.urls import store_path
from tests.core.checkpoints import BF16, checkpoint, gaussian
from tests.core.conftest import Studio
from tests.core.stores import web as webs
from tests.core.stores.buckets import client, dropped, every, held, in_turn, proxying, put, status, unheard
from tests.core.stores.web import serving

pytest.importorskip("requests")
pytest.importorskip("s3fs")
from studio.core.stores.s3_target import S3Target

SHARD = 550_000
ROWS, COLUMNS = 256, 1024
NAMES = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
AT_ONCE = Patience(sleep=lambda _: None)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 MB in three files, among which the members of each fused group are spread."""
    names = [f"model.layers.{block}.{name}.weight" for name in NAMES for block in range(2)]
    tensors = {name: (gaussian(ROWS, COLUMNS, seed=i) * (1 + i)).astype(BF16) for i, name in enumerate(names)}
    config = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": COLUMNS}
    return checkpoint(tmp_path_factory.mktemp("source") / "model", tensors, config, shards=3)


@pytest.fixture(scope="module")
def good(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an export on this machine holds."""
    target = tmp_path_factory.mktemp("good") / "out"
    with core.open_model(source) as model:
        list(exporting(model, target))
    return {path.name: path.read_bytes() for path in target.iterdir()}


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(streaming, "scratch_place", lambda: tmp_path / "scratch")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def exporting(model: core.Model, target: Path, *, stream: bool = False) -> Iterator[core.Event]:
    plan = core.preset("linear").with_method("max")
    with core.start(core.Machine("cpu", threads=2), model) as started:
        choices = core.resolve(plan, model)
        job = core.prepare(model, plan, choices, core.LAYOUTS["mlx"], target, shard_nbytes=SHARD)
        assert len(job.shards) == 5
        if stream:
            yield core.stream(job)
        yield from core.export(started, job)


def in_bucket(name: str) -> StorePath:
    return StorePath(RemoteFolder(S3Target(f"s3://models/{name}"), AT_ONCE))


def occupied(model: core.Model, scratch: Path) -> int:
    """Bytes of disk that what was fetched and what is not yet put take now."""
    spool = model.path.folder._spool  # type: ignore[attr-defined]
    fetched = sum(os.fstat(segment.file.fileno()).st_blocks for segment in list(spool._segments.values()))
    return 512 * (fetched + sum(path.lstat().st_blocks for path in scratch.rglob("*") if path.is_file()))


def test_the_members_of_a_fused_group_lie_in_different_files(source: Path) -> None:
    with core.open_model(source) as model:
        files = {name: layer.stored.file.path.name for name, layer in model.by_name.items()}
    assert len({files[f"model.layers.0.{name}"] for name in NAMES[:3]}) > 1


@pytest.mark.usefixtures("bucket")
def test_little_disk_is_taken_and_each_byte_is_fetched_once(
    source: Path, good: dict[str, bytes], scratch: Path
) -> None:
    with serving(source.parent) as web, core.open_model(store_path(f"{web.url}/model", AT_ONCE)) as model:
        before, most, told = web.sent, 0, 0
        for event in exporting(model, in_bucket("out"), stream=True):
            told = event.nbytes if isinstance(event, core.Occupies) else told
            most = max(most, occupied(model, scratch))
        fetched = web.sent - before
    assert held("out") == good
    assert 0 < most <= told < 7 * SHARD
    weights = len(NAMES) * 2 * ROWS * COLUMNS * 2
    assert weights <= fetched < weights + 3 * (1 << 20) + 16 * (256 << 10)
    assert not any(scratch.iterdir())


def test_a_stream_into_a_folder_is_that_export(source: Path, good: dict[str, bytes], tmp_path: Path) -> None:
    with serving(source.parent) as web, core.open_model(store_path(f"{web.url}/model", AT_ONCE)) as model:
        list(exporting(model, tmp_path / "out", stream=True))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == good


@pytest.mark.proof
def test_the_command_line_streams_from_bucket_to_bucket(
    studio: Studio, bucket: str, source: Path, tmp_path: Path, scratch: Path
) -> None:
    put(source, "in/model")
    how = ("--shard-size", SHARD, "--stream")
    ran = studio("quantize", f"s3://{bucket}/in/model", f"s3://{bucket}/out", *how)
    assert ran.code == 0
    assert f"in {scratch} while it runs" in ran.err
    assert studio("quantize", source, tmp_path / "local", *how[:2]).code == 0
    there, here = held("out"), {path.name: path.read_bytes() for path in (tmp_path / "local").iterdir()}
    assert there.keys() == here.keys()
    differ = {name for name in here if here[name] != there[name]}
    assert differ <= {"README.md", "SHA256SUMS"}  # they have the name of the folder in them


@pytest.mark.proof
def test_workers_put_their_shards_themselves(studio: Studio, bucket: str, source: Path, scratch: Path) -> None:
    LocalCluster = pytest.importorskip("distributed").LocalCluster  # noqa: N806
    put(source, "in/model")
    how = ("--shard-size", SHARD, "--stream")
    assert studio("quantize", f"s3://{bucket}/in/model", f"s3://{bucket}/alone/out", *how).code == 0
    with LocalCluster(n_workers=2, processes=False, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        address = f"--cluster={cluster.scheduler_address}"
        ran = studio("quantize", f"s3://{bucket}/in/model", f"s3://{bucket}/spread/out", *how, address)
    assert ran.code == 0
    assert held("spread/out") == held("alone/out")
    assert not list(scratch.glob("nvfp4-studio-*"))


@pytest.mark.proof
def test_a_stream_that_is_stopped_goes_on(bucket: str, source: Path, good: dict[str, bytes]) -> None:
    put(source, "in/model")
    with core.open_model(f"s3://{bucket}/in/model") as model:
        events = exporting(model, in_bucket("out"), stream=True)
        next(event for event in events if isinstance(event, core.ShardWritten))
        next(event for event in events if isinstance(event, core.LayerDone))
        events.close()  # type: ignore[attr-defined]
        again = list(exporting(model, in_bucket("out"), stream=True))
    assert len([event for event in again if isinstance(event, core.Resumed)]) == 1
    assert held("out") == good


@pytest.mark.proof
def test_faults_on_both_sides_cost_time_only(
    endpoint: str, bucket: str, source: Path, good: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bucket
    with serving(source.parent) as web, proxying(endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        web.fault = webs.every(7, webs.cut)
        with core.open_model(store_path(f"{web.url}/model", AT_ONCE)) as model:
            proxy.fault = every(3, in_turn([dropped, status(429), unheard, status(500, "InternalError")]))
            list(exporting(model, in_bucket("out"), stream=True))
            proxy.fault = None
    assert held("out") == good


def test_a_source_that_changes_under_a_stream_is_noticed(bucket: str, source: Path) -> None:
    put(source, "in/model")
    with core.open_model(f"s3://{bucket}/in/model") as model:
        events = exporting(model, in_bucket("out"), stream=True)
        next(event for event in events if isinstance(event, core.ShardWritten))
        last = model.files[-1].path.name
        changed = bytearray((source / last).read_bytes())
        changed[-1] ^= 1
        client().put_object(Bucket=bucket, Key=f"in/model/{last}", Body=bytes(changed))
        with pytest.raises(core.CheckpointError, match="changed while it was in use"):
            list(events)
    assert "nvfp4_studio.json" not in held("out")


def test_a_disk_that_is_too_small_is_told_before_the_start(
    studio: Studio, bucket: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming.shutil, "disk_usage", lambda _: _Usage())
    for options in ((), ("--stream",)):
        ran = studio("quantize", source, f"s3://{bucket}/out", *options)
        assert ran.code == 4
        assert "not enough disk space for a shard at a time" in ran.err
        assert "--shard-size" in ran.err
    assert held("out") == {}


class _Usage:
    free = 1000


def test_there_is_nothing_to_stream_on_one_machine(studio: Studio, source: Path, tmp_path: Path) -> None:
    ran = studio("quantize", source, tmp_path / "out", "--stream")
    assert ran.code == 2
    assert "there is nothing to stream" in ran.err
    assert list(tmp_path.iterdir()) == []
