"""Checkpoints in a bucket, on moto's server: an S3-compatible one, run in this process."""

from pathlib import Path

import pytest

from studio import core
from tests.core.checkpoints import BF16, checkpoint, gaussian, llama, snapshot, write_safetensors
from tests.core.conftest import Studio
from tests.core.stores.buckets import client, put

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
