"""The Hugging Face cache in every form in which people give it, and links that lead anywhere else."""

import os
from pathlib import Path

import pytest

from studio.core import CheckpointError, open_model
from studio.core.containers.links import leads_out
from tests.core.checkpoints import checkpoint, llama, write_safetensors
from tests.core.conftest import Refused, Studio

REVISION = "0123456789abcdef" * 2 + "01234567"


def cache(hub: Path, inside: str = "", revision: str = REVISION, main: str | None = REVISION) -> Path:
    """A repository in a cache; gives its root."""
    root = hub / "models--some-org--tiny"
    place = root / "snapshots" / revision / inside
    place.mkdir(parents=True)
    (root / "blobs").mkdir(exist_ok=True)
    for number, path in enumerate(sorted(checkpoint(hub / "plain", shards=2).iterdir())):
        blob = root / "blobs" / f"{number:040x}"
        path.rename(blob)
        (place / path.name).symlink_to(os.path.relpath(blob, place))
    (hub / "plain").rmdir()
    if main is not None:
        (root / "refs").mkdir(exist_ok=True)
        (root / "refs" / "main").write_text(main + "\n")
    return root


def links_to(snapshot: Path, folder: Path) -> Path:
    """A folder of links to the files of a snapshot, as `download --local-dir` made them."""
    folder.mkdir()
    for path in snapshot.iterdir():
        (folder / path.name).symlink_to(path.resolve())
    return folder


FORMS = {
    "the repository": lambda root, _: root,
    "a snapshot": lambda root, _: root / "snapshots" / REVISION,
    "a link to the repository": lambda root, other: link(other / "repo", root),
    "a link to a snapshot": lambda root, other: link(other / "snap", root / "snapshots" / REVISION),
    "a linked cache": lambda root, other: link(other / "cache", root.parent) / root.name,
}


def link(path: Path, target: Path) -> Path:
    path.symlink_to(target)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_cache_is_opened_under_the_name_of_its_repository(
    tmp_path: Path, studio: Studio, form: str
) -> None:
    (tmp_path / "other").mkdir()
    place = FORMS[form](cache(tmp_path / "hub"), tmp_path / "other")
    with open_model(place) as model:
        assert model.name == "tiny"
        assert model.config["model_type"] == "llama"
        assert len(model.layers) == len(llama())
        assert model.side_names == ("tokenizer.json",)
    out = tmp_path / "out"
    assert studio("quantize", place, out).code == 0
    assert "# tiny, quantized" in (out / "README.md").read_text()
    assert not any(path.is_symlink() for path in out.iterdir())


def test_a_folder_of_links_to_the_blobs_is_opened_under_its_own_name(tmp_path: Path, studio: Studio) -> None:
    farm = links_to(cache(tmp_path / "hub") / "snapshots" / REVISION, tmp_path / "farm")
    with open_model(farm) as model:
        assert model.name == "farm"
    assert studio("quantize", farm, tmp_path / "out").code == 0
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_a_folder_inside_a_snapshot_is_opened(tmp_path: Path, refused: Refused) -> None:
    root = cache(tmp_path / "hub", inside="language_model")
    with open_model(root / "snapshots" / REVISION / "language_model") as model:
        assert model.name == "tiny"
    refused(root, "folders that do", "language_model")


def test_a_blob_is_opened_as_the_file_that_links_to_it(tmp_path: Path, refused: Refused) -> None:
    root = tmp_path / "models--tiny"
    snapshot = checkpoint(root / "snapshots" / REVISION)
    (root / "blobs").mkdir()
    (snapshot / "model.safetensors").rename(root / "blobs" / ("0" * 64))
    (snapshot / "model.safetensors").symlink_to("../../blobs/" + "0" * 64)
    (snapshot / "config.json").rename(root / "blobs" / ("1" * 40))
    (snapshot / "config.json").symlink_to("../../blobs/" + "1" * 40)
    with open_model(root / "blobs" / ("0" * 64)) as model:
        assert (model.name, model.config["model_type"]) == ("tiny", "llama")
    refused(root / "blobs" / ("1" * 40), "neither a folder nor a .safetensors or GGUF file")


def test_a_blob_without_a_link_is_opened_alone(tmp_path: Path) -> None:
    blob = tmp_path / "models--a--b" / "blobs" / ("0" * 64)
    write_safetensors(blob, llama(1))
    with open_model(blob) as model:
        assert model.name == "b"
        assert model.config == {}


def test_the_snapshot_in_use_is_the_one_of_refs_main(tmp_path: Path) -> None:
    root = cache(tmp_path / "hub")
    (root / "snapshots" / ("f" * 40)).mkdir()
    with open_model(root) as model:
        assert model.path == root / "snapshots" / REVISION


@pytest.mark.parametrize("main", [None, "0" * 40, "../../..", ""])
def test_the_only_snapshot_is_taken_where_refs_main_names_none(tmp_path: Path, main: str | None) -> None:
    root = cache(tmp_path / "hub", main=main)
    with open_model(root) as model:
        assert model.path == root / "snapshots" / REVISION


def test_several_snapshots_of_which_none_is_in_use_are_listed(tmp_path: Path, refused: Refused) -> None:
    root = cache(tmp_path / "hub", main=None)
    (root / "snapshots" / ("f" * 40)).mkdir()
    refused(root, "2 snapshots", REVISION, "f" * 40)


def test_a_cache_itself_lists_its_repositories(tmp_path: Path, refused: Refused) -> None:
    refused(cache(tmp_path / "hub").parent, "models--some-org--tiny")


@pytest.mark.parametrize(
    "elsewhere", ["blobs/x", "models--a--b/other/x", "models--a--b/blobs/deeper/x", "datasets--a--b/blobs/x"]
)
def test_what_only_looks_like_a_cache_is_none(tmp_path: Path, elsewhere: str) -> None:
    folder = checkpoint(tmp_path / "model")
    target = tmp_path / elsewhere
    target.parent.mkdir(parents=True)
    (folder / "model.safetensors").rename(target)
    (folder / "model.safetensors").symlink_to(target)
    with pytest.raises(CheckpointError, match="leads out of the folder"):
        open_model(folder)


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_a_blob_that_is_no_regular_file_is_refused(tmp_path: Path, refused: Refused, kind: str) -> None:
    folder = checkpoint(tmp_path / "model")
    blob = tmp_path / "models--a--b" / "blobs" / "x"
    blob.parent.mkdir(parents=True)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(blob)
    blob.mkdir() if kind == "folder" else os.mkfifo(blob)
    refused(folder, "model.safetensors", "not a regular file")


def test_an_export_in_a_cache_is_verified_as_one(studio: Studio, tmp_path: Path) -> None:
    source, place = checkpoint(tmp_path / "model", llama(1)), tmp_path / "hub" / "models--me--mine"
    assert studio("quantize", source, tmp_path / "out", "--layout", "modelopt").code == 0
    (place / "snapshots").mkdir(parents=True)
    (tmp_path / "out").rename(place / "snapshots" / REVISION)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(REVISION)
    ran = studio("verify", place, "--source", source)
    assert ran.code == 0, ran.err
    assert "is whole: 12 layers decode and its errors are the ones it states" in ran.out
    assert studio("compare", source, place).code == 0


def test_what_is_inside_is_inside_and_the_folder_above_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a").touch()
    (folder / "b").symlink_to(tmp_path)
    assert leads_out(folder / "a", folder) is None
    assert [leads_out(folder / name, folder) for name in ("..", "b")] == [tmp_path.resolve()] * 2
