"""Exports into a bucket: the bytes of a folder, there from the manifest on; one writer, and what the network does."""

import json
import os
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from studio import core
from studio.core.errors import ExportError
from studio.core.exporting import lease, stored_folder, stored_target
from studio.core.exporting.contents import JOURNAL, LOCK, MANIFEST
from studio.core.stores import s3, target_folder
from studio.core.stores.patience import Patience
from studio.core.stores.remote_folder import RemoteFolder
from studio.core.stores.store_path import StorePath
from studio.core.stores.urls import target_path
from tests.core.checkpoints import CONFIG, checkpoint, llama
from tests.core.conftest import Studio
from tests.core.stores.buckets import (
    Handler,
    Proxy,
    client,
    cut,
    dropped,
    every,
    held,
    in_turn,
    put,
    status,
    unheard,
)

pytest.importorskip("s3fs")
from studio.core.stores.s3_target import S3Target

SMALL = ("--shard-size", "40K")
DEEP = {**CONFIG, "num_hidden_layers": 4}
PAUSES: list[float] = []


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("source") / "model", llama(4), DEEP, shards=3)


@pytest.fixture(scope="module")
def good(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an export on this machine holds."""
    target = tmp_path_factory.mktemp("good") / "out"
    list(exporting(source, target))
    return {path.name: path.read_bytes() for path in target.iterdir()}


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which shards lie until they are put."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(stored_folder.tempfile, "tempdir", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def there(url: str) -> StorePath:
    """A target for which a pause takes no time."""
    store = _store(url, os.environ["AWS_ENDPOINT_URL"], s3.TIMEOUTS["read_timeout"])
    return StorePath(RemoteFolder(store, Patience(sleep=PAUSES.append)))


@cache
def _store(url: str, *_: object) -> S3Target:
    return S3Target(url)


def exporting(source: Path, target: Path, *, restart: bool = False, preset: str = "linear") -> Iterator[core.Event]:
    """The events of an export in small shards."""
    plan = core.preset(preset)
    with core.open_model(source) as model, core.start(core.Machine("cpu", threads=1), model) as started:
        choices, layout = core.resolve(plan, model), core.LAYOUTS["mlx"]
        job = core.prepare(model, plan, choices, layout, target, shard_nbytes=40_000, restart=restart)
        assert len(job.shards) >= 3
        yield from core.export(started, job)


def stopped(source: Path, target: Path, shards: int = 1) -> None:
    """An export that was stopped after some shards."""
    events = exporting(source, target)
    for _ in range(shards):
        next(event for event in events if isinstance(event, core.ShardWritten))
    events.close()  # type: ignore[attr-defined]


def test_an_export_into_a_bucket_is_that_into_a_folder(
    studio: Studio, bucket: str, source: Path, good: dict[str, bytes], scratch: Path
) -> None:
    ran = studio("quantize", source, f"s3://{bucket}/a/out", *SMALL, "--json")
    assert ran.code == 0
    assert held("a/out") == good
    assert "hunter2" not in ran.out + ran.err
    assert not any(scratch.iterdir())
    verified = studio("verify", f"s3://{bucket}/a/out", "--source", source)
    assert verified.code == 0
    assert "its errors are the ones it states" in verified.out
    assert studio("inspect", f"s3://{bucket}/a/out").code == 0


@pytest.mark.proof
def test_a_conversion_into_a_bucket_is_that_into_a_folder(
    studio: Studio, bucket: str, source: Path, tmp_path: Path
) -> None:
    assert studio("quantize", source, f"s3://{bucket}/a/out").code == 0
    for target in (f"s3://{bucket}/b/out", tmp_path / "out"):
        assert studio("convert", f"s3://{bucket}/a/out", target, "--layout", "modelopt").code == 0
    assert held("b/out") == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}


@pytest.mark.proof
def test_a_flipped_bit_in_a_bucket_is_found(studio: Studio, bucket: str, source: Path) -> None:
    assert studio("quantize", source, f"s3://{bucket}/a/out").code == 0
    data = bytearray(held("a/out")["model.safetensors"])
    data[-5] ^= 1
    client().put_object(Bucket=bucket, Key="a/out/model.safetensors", Body=bytes(data))
    ran = studio("verify", f"s3://{bucket}/a/out")
    assert ran.code == 2
    assert "s3://models/a/out/model.safetensors: damaged" in ran.err


def test_before_its_manifest_there_is_no_export(studio: Studio, bucket: str, source: Path) -> None:
    url = f"s3://{bucket}/a/out"
    stopped(source, there(url))
    for command in ("inspect", "verify", "plan"):
        ran = studio(command, url)
        assert ran.code == 2
        assert f"error: {url}: unfinished export" in ran.err


def test_what_is_there_is_not_put_again(proxy: Proxy, source: Path, good: dict[str, bytes]) -> None:
    stopped(source, there("s3://models/a/out"), shards=2)
    proxy.requests.clear()
    events = list(exporting(source, there("s3://models/a/out")))
    assert len([event for event in events if isinstance(event, core.Resumed)]) == 2
    assert proxy.puts(".safetensors") == len([name for name in good if name.endswith(".safetensors")]) - 2
    assert held("a/out") == good


def test_a_shard_that_was_replaced_is_written_again(bucket: str, source: Path, good: dict[str, bytes]) -> None:
    stopped(source, there(f"s3://{bucket}/a/out"))
    shard = min(name for name in held("a/out") if name.endswith(".safetensors"))
    client().put_object(Bucket=bucket, Key=f"a/out/{shard}", Body=good[shard])
    events = list(exporting(source, there(f"s3://{bucket}/a/out")))
    assert not any(isinstance(event, core.Resumed) for event in events)
    assert held("a/out") == good


def test_a_shard_that_is_replaced_meanwhile_is_noticed(bucket: str, source: Path) -> None:
    events = exporting(source, there(f"s3://{bucket}/a/out"))
    first = next(event for event in events if isinstance(event, core.ShardWritten))
    client().put_object(Bucket=bucket, Key=f"a/out/{first.shard}", Body=b"other")
    with pytest.raises(ExportError, match="was replaced while the export ran"):
        list(events)
    assert MANIFEST not in held("a/out")


@pytest.mark.proof
def test_another_plan_wants_what_was_stopped_discarded(bucket: str, source: Path) -> None:
    target = there(f"s3://{bucket}/a/out")
    stopped(source, target)
    with pytest.raises(ExportError, match="holds a stopped export with another plan") as caught:
        list(exporting(source, target, preset="mlp"))
    assert "--restart" in caught.value.hint
    list(exporting(source, target, preset="mlp", restart=True))
    assert MANIFEST in held("a/out")
    assert JOURNAL not in held("a/out")


def test_a_refused_source_leaves_nothing(bucket: str, tmp_path: Path) -> None:
    import numpy as np

    tensors = dict(llama(4))
    tensors["model.layers.0.mlp.up_proj.weight"] = np.full_like(tensors["model.layers.0.mlp.up_proj.weight"], np.nan)
    bad = checkpoint(tmp_path / "model", tensors, DEEP)
    with pytest.raises(core.CheckpointError, match="NaN"):
        list(exporting(bad, there(f"s3://{bucket}/a/out")))
    assert held("a/out") == {}


def test_a_second_writer_is_refused(studio: Studio, bucket: str, source: Path, good: dict[str, bytes]) -> None:
    events = exporting(source, there(f"s3://{bucket}/a/out"))
    next(event for event in events if isinstance(event, core.ShardWritten))
    ran = studio("quantize", source, f"s3://{bucket}/a/out", *SMALL)
    assert ran.code == 4
    assert "another export to this target is running on" in ran.err
    list(events)
    assert held("a/out") == good


def told_elsewhere(**what: object) -> bytes:
    return json.dumps({"writer": "0" * 32, "host": "far\x1baway", "mark": "", **what}).encode()


def test_a_writer_elsewhere_that_renews_is_respected(
    bucket: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_LOOK", 0.0)
    client().put_object(Bucket=bucket, Key=f"a/out/{LOCK}", Body=told_elsewhere())
    events = exporting(source, there(f"s3://{bucket}/a/out"))
    warned = next(event for event in events if isinstance(event, core.Warned))
    assert "looks for up to 60 s whether another export goes on" in warned.message
    real, beats = lease.Lease._is_silent, iter(range(1 << 30))

    def renewed(self: lease.Lease, first: Any) -> bool:
        client().put_object(Bucket=bucket, Key=f"a/out/{LOCK}", Body=told_elsewhere(renewed=next(beats)))
        return real(self, first)

    monkeypatch.setattr(lease.Lease, "_is_silent", renewed)
    with pytest.raises(ExportError, match=r"is running on far\\x1baway"):
        list(events)
    assert list(held("a/out")) == [LOCK]


def test_a_writer_elsewhere_that_is_silent_is_followed(
    bucket: str, source: Path, good: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LASTS", 0.0)
    client().put_object(Bucket=bucket, Key=f"a/out/{LOCK}", Body=told_elsewhere())
    list(exporting(source, there(f"s3://{bucket}/a/out")))
    assert held("a/out") == good


def test_a_writer_that_was_taken_for_gone_publishes_nothing(bucket: str, source: Path) -> None:
    events = exporting(source, there(f"s3://{bucket}/a/out"))
    next(event for event in events if isinstance(event, core.ShardWritten))
    client().put_object(Bucket=bucket, Key=f"a/out/{LOCK}", Body=told_elsewhere())
    with pytest.raises(ExportError, match="another export to this target has begun"):
        list(events)
    assert MANIFEST not in held("a/out")
    assert held("a/out")[LOCK] == told_elsewhere()


def test_a_manifest_of_another_writer_is_not_replaced(
    bucket: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = target_folder.TargetFolder.upload

    def upload(self: target_folder.TargetFolder, name: str, path: Path, *, new: bool = False) -> None:
        if name == MANIFEST:
            client().put_object(Bucket=bucket, Key=f"a/out/{MANIFEST}", Body=b"{}")
        real(self, name, path, new=new)

    monkeypatch.setattr(target_folder.TargetFolder, "upload", upload)
    with pytest.raises(ExportError, match="something appeared there"):
        list(exporting(source, there(f"s3://{bucket}/a/out")))
    assert held("a/out")[MANIFEST] == b"{}"


def test_a_store_that_keeps_no_conditions_is_told(
    bucket: str, source: Path, good: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = S3Target.put

    def put(self: S3Target, name: str, data: bytes, digest: str, **_: object) -> str:
        return real(self, name, data, digest)

    monkeypatch.setattr(S3Target, "put", put)
    events = list(exporting(source, there(f"s3://{bucket}/a/out")))
    said = [event.message for event in events if isinstance(event, core.Warned)]
    assert any("does not keep two writers apart" in message for message in said)
    assert held("a/out") == good


@pytest.mark.proof
def test_what_the_target_can_not_be_is_refused(studio: Studio, bucket: str, source: Path) -> None:
    put(source, "in/model")
    client().put_object(Bucket=bucket, Key=f"a/out/{MANIFEST}", Body=b"{}")
    client().put_object(Bucket=bucket, Key="full/notes.txt", Body=b"mine")
    for target, words, options in [
        (f"s3://{bucket}/a/out", "holds an export already", ()),
        (f"s3://{bucket}/b/out", "nothing is overwritten on a store", ("--overwrite",)),
        (f"s3://{bucket}/full", "was not made by this program: it holds notes.txt", ()),
        (f"s3://{bucket}/a/model.safetensors", "is the name of a file", ()),
        ("https://host/folder", "nothing is written at https://", ()),
        ("s3://nowhere-at-all/out", "no such bucket", ()),
    ]:
        ran = studio("quantize", source, target, *options)
        assert ran.code == 4, ran.err
        assert words in ran.err
    ran = studio("quantize", f"s3://{bucket}/in/model", f"s3://{bucket}/in/model/inside")
    assert ran.code == 4
    assert "the same folder as the source, inside it" in ran.err
    assert set(held("full")) == {"notes.txt"}


def test_what_is_not_of_a_stopped_export_is_left_alone(bucket: str, source: Path) -> None:
    stopped(source, there(f"s3://{bucket}/a/out"))
    client().put_object(Bucket=bucket, Key="a/out/notes.txt", Body=b"mine")
    for restart in (False, True):
        with pytest.raises(ExportError, match=r"not part of the stopped export there: notes\.txt"):
            list(exporting(source, there(f"s3://{bucket}/a/out"), restart=restart))
    assert held("a/out")["notes.txt"] == b"mine"


def test_an_export_is_whole_although_what_the_run_needed_stays(
    studio: Studio, bucket: str, source: Path, good: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(self: target_folder.TargetFolder, name: str) -> None:
        raise ExportError("can not be written: HTTP 503", file=self.shown(name))

    with monkeypatch.context() as patched:
        patched.setattr(target_folder.TargetFolder, "remove", away)
        list(exporting(source, there(f"s3://{bucket}/a/out")))
    assert held("a/out").keys() > good.keys() | {JOURNAL, LOCK}
    ran = studio("verify", f"s3://{bucket}/a/out")
    assert ran.code == 0
    assert f"{LOCK}: not part of the export" in ran.err
    client().put_object(Bucket=bucket, Key="a/out/more.safetensors", Body=b"")
    ran = studio("verify", f"s3://{bucket}/a/out")
    assert ran.code == 2
    assert "more.safetensors: is not listed in SHA256SUMS, but would be loaded" in ran.err


def test_an_export_below_is_left_alone(bucket: str, source: Path) -> None:
    stopped(source, there(f"s3://{bucket}/a"))
    stopped(source, there(f"s3://{bucket}/a/below"))
    going_on = client().create_multipart_upload(Bucket=bucket, Key="a/below/model.safetensors")["UploadId"]
    before = held("a/below")
    with pytest.raises(ExportError, match="not part of the stopped export there: below/"):
        list(exporting(source, there(f"s3://{bucket}/a"), restart=True))
    assert held("a/below") == before
    uploads = client().list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [upload["UploadId"] for upload in uploads] == [going_on]


def test_names_in_an_export_below_are_told_apart() -> None:
    names = {"journal.json", "model.safetensors", "sub/tokenizer.json", "b/nvfp4_studio.json", "b/c/x.json"}
    assert stored_folder.outside_of_others(names) == {"journal.json", "model.safetensors", "sub/tokenizer.json"}


FAULTS = [dropped, unheard, cut, status(429), status(500, "InternalError"), status(503), status(400, "RequestTimeout")]


@pytest.mark.proof
def test_faults_of_the_network_cost_time_only(proxy: Proxy, source: Path, good: dict[str, bytes]) -> None:
    PAUSES.clear()
    proxy.fault = every(4, in_turn(FAULTS))
    list(exporting(source, there("s3://models/a/out")))
    proxy.fault = None
    assert len(PAUSES) > 5
    assert held("a/out") == good


@pytest.mark.proof
def test_an_answer_that_does_not_come_is_asked_for_again(
    proxy: Proxy, source: Path, good: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(s3.TIMEOUTS, "read_timeout", 3)
    turns, over = iter([True]), threading.Event()

    def late(handler: Handler, _body: bytes) -> bool:
        if handler.command != "PUT" or not next(turns, False):
            return False
        over.wait(60)
        handler.drop()
        return True

    PAUSES.clear()
    proxy.fault = late
    list(exporting(source, there("s3://models/a/out")))
    over.set()
    assert PAUSES
    assert held("a/out") == good


def shortened(handler: Handler, body: bytes) -> bool:
    """A shard reaches the store without its end, and the store does not mind."""
    if handler.command != "PUT" or not handler.path.partition("?")[0].endswith(".safetensors"):
        return False
    del handler.headers["Content-MD5"]
    handler.answer(*handler.forward(body[:-9]))
    return True


@pytest.mark.proof
def test_a_shard_that_lost_its_end_on_the_way_is_removed_and_told(
    proxy: Proxy, source: Path, good: dict[str, bytes]
) -> None:
    proxy.fault = shortened
    with pytest.raises(ExportError, match="what came back is not what was put"):
        list(exporting(source, there("s3://models/a/out")))
    proxy.fault = None
    assert not any(name.endswith(".safetensors") for name in held("a/out"))
    list(exporting(source, there("s3://models/a/out")))
    assert held("a/out") == good


@pytest.mark.proof
def test_a_store_that_stays_away_is_told_and_the_same_command_goes_on(
    proxy: Proxy, source: Path, good: dict[str, bytes]
) -> None:
    events = exporting(source, there("s3://models/a/out"))
    next(event for event in events if isinstance(event, core.ShardWritten))
    proxy.fault = status(503)
    with pytest.raises(ExportError, match=r"can not be written: HTTP 503; tried 7 times") as caught:
        list(events)
    assert "finished shards are kept" in caught.value.hint
    proxy.fault = None
    client().delete_object(Bucket="models", Key=f"a/out/{LOCK}")  # it could not say that it ended
    again = list(exporting(source, there("s3://models/a/out")))
    assert any(isinstance(event, core.Resumed) for event in again)
    assert held("a/out") == good


def test_a_store_that_refuses_is_told(proxy: Proxy, studio: Studio, source: Path) -> None:
    proxy.fault = lambda handler, body: handler.command == "PUT" and status(403, "AccessDenied")(handler, body)
    ran = studio("quantize", source, "s3://models/a/out")
    assert ran.code == 4
    assert "the store refuses to take it (HTTP 403)" in ran.err


def parts(tmp_path: Path) -> tuple[target_folder.TargetFolder, Path]:
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * (9 << 12))
    return target_folder.TargetFolder(S3Target("s3://models/a"), Patience(sleep=PAUSES.append)), path


def test_what_is_left_to_say_is_said_after_a_stop(bucket: str) -> None:
    target = target_path(f"s3://{bucket}/a")
    assert isinstance(target, StorePath)
    folder = stored_target.target_folder(target)
    assert folder.at_last() is folder
    core.abandon(target)
    with pytest.raises(ExportError, match="it was closed"):
        folder.remove(LOCK)
    folder.at_last().put("last", b"word")
    assert held("a") == {"last": b"word"}


def test_a_large_file_goes_in_parts_and_appears_whole(bucket: str, tmp_path: Path) -> None:
    folder, path = parts(tmp_path)
    folder.upload("large", path)
    assert client().head_object(Bucket=bucket, Key="a/large")["ETag"].endswith('-2"')
    assert held("a") == {"large": path.read_bytes()}
    assert not client().list_multipart_uploads(Bucket=bucket).get("Uploads")


def test_parts_are_put_again(proxy: Proxy, tmp_path: Path) -> None:
    folder, path = parts(tmp_path)
    proxy.fault = every(2, in_turn([unheard, dropped, status(500, "InternalError"), cut]))
    folder.upload("large", path)
    proxy.fault = None
    assert held("a") == {"large": path.read_bytes()}


def test_an_upload_that_fails_leaves_no_parts(proxy: Proxy, bucket: str, tmp_path: Path) -> None:
    folder, path = parts(tmp_path)
    proxy.fault = lambda handler, body: "partNumber=2" in handler.path and status(403, "AccessDenied")(handler, body)
    with pytest.raises(ExportError, match="HTTP 403"):
        folder.upload("large", path)
    assert not client().list_multipart_uploads(Bucket=bucket).get("Uploads")
    assert held("a") == {}


def test_a_writer_that_was_killed_is_known_at_once(bucket: str, source: Path, scratch: Path) -> None:
    left = scratch / "nvfp4-studio-out-left"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    mark = json.dumps([left.name, left.stat().st_dev, left.stat().st_ino])
    client().put_object(Bucket=bucket, Key=f"a/out/{LOCK}", Body=told_elsewhere(mark=mark))
    client().create_multipart_upload(Bucket=bucket, Key="a/out/model.safetensors")
    list(exporting(source, there(f"s3://{bucket}/a/out")))
    assert not client().list_multipart_uploads(Bucket=bucket).get("Uploads")
    assert MANIFEST in held("a/out")
    assert not any(scratch.iterdir())
