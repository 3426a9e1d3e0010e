"""Checkpoints in a bucket, on moto's server: an S3-compatible one, run in this process."""

import threading
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from studio import core
from studio.core.stores import pace, s3
from studio.core.stores.patience import Patience
from studio.core.stores.store import TryAgainError
from studio.core.stores.urls import store_path
from tests.core.checkpoints import BF16, checkpoint, gaussian, llama, snapshot, write_safetensors
from tests.core.conftest import Studio
from tests.core.stores.buckets import Fault, Handler, Proxy, client, put, status

pytest.importorskip("s3fs")


def test_an_export_from_a_bucket_is_that_from_the_folder(studio: Studio, bucket: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model", llama(3), shards=3)
    put(folder, "a/model")
    ran = studio("quantize", f"s3://{bucket}/a/model", tmp_path / "out", "--json")
    assert ran.code == 0
    assert studio("quantize", folder, tmp_path / "local").code == 0
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "local")
    assert "hunter2" not in ran.out + ran.err
    for command in ("inspect", "plan", "measure"):
        assert studio(command, f"s3://{bucket}/a/model").code == 0


def test_a_file_that_changed_in_the_bucket_is_noticed(bucket: str, tmp_path: Path) -> None:
    large = write_safetensors(tmp_path / "model.safetensors", {"a.weight": gaussian(1024, 1024)})
    put(tmp_path, "b")
    with core.open_model(f"s3://{bucket}/b") as model:
        assert model.files[0].read(1 << 20, 64) == large.read_bytes()[1 << 20 :][:64]
        client().put_object(Bucket=bucket, Key="b/model.safetensors", Body=large.read_bytes()[:-2] + b"\0\0")
        with pytest.raises(core.CheckpointError, match="changed while it was in use"):
            model.files[0].read(1536 << 10, 64)
        with pytest.raises(core.CheckpointError, match="changed while it was in use"):
            model.check_unchanged()


def test_one_file_in_a_bucket_is_a_checkpoint(bucket: str, tmp_path: Path) -> None:
    put(checkpoint(tmp_path / "model", {"a.weight": gaussian(16, 16, dtype=BF16)}), "c")
    with core.open_model(f"s3://{bucket}/c/model.safetensors") as model:
        assert [layer.name for layer in model.layers] == ["a"]


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize("url", ["s3://nowhere-at-all/model", "s3://models/nothing"])
def test_what_is_not_there_is_told(url: str) -> None:
    with pytest.raises(core.CheckpointError, match="there is no such"):
        core.open_model(url)


def test_a_store_without_credentials_is_told(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(core.CheckpointError, match="no credentials") as caught:
        core.open_model(f"s3://{bucket}/model")
    assert "aws configure" in caught.value.hint


def listing(inner: str) -> Fault:
    """This in place of the list of files."""

    def fault(handler: Handler, _body: bytes) -> bool:
        if "list-type" not in handler.path:
            return False
        text = f"<?xml version='1.0'?><ListBucketResult>{inner}</ListBucketResult>"
        handler.answer(200, [("Content-Type", "application/xml")], text.encode())
        return True

    return fault


def told(method: str, name: str, value: str = "") -> Fault:
    """Answers to such requests for files with another header, left out for ""."""
    numbers = count()

    def fault(handler: Handler, body: bytes) -> bool:
        if handler.command != method or "list-type" in handler.path:
            return False
        code, headers, data = handler.forward(body)
        kept = [(key, text) for key, text in headers if key.lower() != name.lower()]
        more = [(name, value.format(next(numbers)))] if value else []
        handler.answer(code, kept + more, data)
        return True

    return fault


ENTRY = "<Contents><Key>c/config.json</Key>{}</Contents>"
ODD: dict[str, tuple[Fault, str]] = {
    "a list without end": (
        listing("<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"),
        "no end of its listing in 5 pages",
    ),
    "a list that does not go on": (listing("<IsTruncated>true</IsTruncated>"), "does not tell its NextContinuation"),
    "a list without sizes": (listing(ENTRY.format("")), "does not tell its Size"),
    "a size that is none": (listing(ENTRY.format("<Size>zz</Size><ETag>x</ETag>")), "answers what means nothing"),
    "no range": (told("GET", "Content-Range"), "does not send the range of bytes"),
    "a range without size": (told("GET", "Content-Range", "bytes 0-5/*"), "does not send the range of bytes"),
    "a tag that changes": (told("GET", "ETag", '"{}"'), "changed while it was in use"),
    "no tag": (told("HEAD", "ETag"), "does not tell its ETag"),
    "a HEAD that is refused": (
        lambda handler, body: handler.command == "HEAD" and status(403, "AccessDenied")(handler, body),
        r"refuses to give it \(HTTP 403\)",
    ),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("fault", "words"), ODD.values(), ids=ODD)
def test_odd_answers_of_a_store_are_refused_at_once(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, words: str
) -> None:
    monkeypatch.setattr(s3, "MOST_PAGES", 5)
    put(checkpoint(tmp_path / "model", llama(1)), "c")
    proxy.fault, pauses = fault, list[float]()
    with pytest.raises(core.CheckpointError, match=words):
        _read(Patience(sleep=pauses.append))
    assert not pauses


def _read(patience: Patience) -> None:
    with core.open_model(store_path("s3://models/c", patience)) as model:
        model.files[0].read(0, 64)
        model.check_unchanged()


def test_a_request_in_flight_is_broken_off(proxy: Proxy) -> None:
    asked, ended = threading.Event(), threading.Event()

    def silent(handler: Handler, _body: bytes) -> bool:
        asked.set()
        ended.wait(20)  # far less than the time for an answer
        handler.drop()
        return True

    proxy.fault = silent
    path = store_path("s3://models/c")
    thread = threading.Thread(target=pytest.raises, args=(TryAgainError, path.folder.store.listed))
    try:
        thread.start()
        asked.wait(20)
        core.abandon(path)
        thread.join(15)
        assert not thread.is_alive()
    finally:
        ended.set()
    with pytest.raises(TryAgainError, match="broken off"):
        path.folder.store.find("config.json")


@pytest.mark.parametrize(
    ("limits", "words"),
    [({"SLOW_AFTER": 0.0, "SLOWEST": 1 << 50}, "less than 1,125"), ({"HEAD": 0.0}, "no answer in time")],
)
def test_a_trickle_is_broken_off(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, float], words: str
) -> None:
    put(checkpoint(tmp_path / "model", llama(1)), "c")
    for name, value in limits.items():
        monkeypatch.setattr(pace, name, value)
    path = store_path(f"s3://{bucket}/c", Patience(sleep=list[float]().append))
    with closing(path.folder), pytest.raises(core.CheckpointError, match=f"{words}.*; tried 7 times"):
        (path / "config.json").read_bytes()
