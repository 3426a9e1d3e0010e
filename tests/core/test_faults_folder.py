"""A folder that is no whole, plain checkpoint is refused, or what is odd about it is said."""

import json
import os
import socket
import stat
from pathlib import Path

import numpy as np
import pytest

from studio.core import open_model
from tests.core.checkpoints import INDEX, QUERY, checkpoint, gaussian, shard_name, write_json, write_safetensors
from tests.core.conftest import Refused, Studio

FIRST, SECOND = shard_name(0, 2), shard_name(1, 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "model", shards=2)


def edit_index(folder: Path, **changes: str | None) -> Path:
    """The folder with tensors of its index sent elsewhere, or taken out."""
    index = json.loads((folder / INDEX).read_text())
    weight_map = {**index["weight_map"], **changes}
    weight_map = {name: shard for name, shard in weight_map.items() if shard is not None}
    write_json(folder / INDEX, {**index, "weight_map": weight_map})
    return folder


def test_a_missing_shard_is_refused(folder: Path, refused: Refused) -> None:
    (folder / SECOND).unlink()
    refused(folder, SECOND, "missing", "incomplete download")


def test_an_unfinished_download_is_refused(folder: Path, refused: Refused) -> None:
    (folder / SECOND).rename(folder / f"{SECOND}.incomplete")
    refused(folder, SECOND, "missing", "incomplete download")


def test_a_folder_with_nothing_but_an_unfinished_download_is_refused(tmp_path: Path, refused: Refused) -> None:
    folder = checkpoint(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "model.safetensors.incomplete")
    refused(folder, "missing", "incomplete download")


def test_numbered_shards_without_index_must_all_be_there(folder: Path, refused: Refused) -> None:
    (folder / INDEX).unlink()
    assert len(open_model(folder).files) == 2
    (folder / FIRST).unlink()
    refused(folder, SECOND, "missing", "1 of 2", "incomplete download")


def test_an_empty_folder_is_refused(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "model").mkdir()
    refused(tmp_path / "model", "missing", ".safetensors")


def test_a_source_that_is_not_there_is_refused(tmp_path: Path, studio: Studio) -> None:
    for name in ("nothing", "x" * 300, "a/b/c"):
        ran = studio("inspect", tmp_path / name)
        assert ran.code == 2
        assert ran.err.startswith("error: ")


def test_a_pickle_is_never_read(tmp_path: Path, refused: Refused) -> None:
    folder = checkpoint(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    trap = tmp_path / "model" / "sprung"
    pickle = b"cos\nsystem\n(S'touch " + str(trap).encode() + b"'\ntR."
    (folder / "pytorch_model.bin").write_bytes(pickle)
    refused(folder, "pytorch_model.bin", "could run code")
    refused(folder / "pytorch_model.bin", "neither a folder nor a .safetensors or GGUF file")
    assert not trap.exists()


def test_a_pickle_beside_the_weights_is_left_alone(tmp_path: Path, studio: Studio) -> None:
    folder = checkpoint(tmp_path / "model")
    (folder / "pytorch_model.bin").write_bytes(b"cos\nabort\n(tR.")
    (folder / "modeling_evil.py").write_text("raise SystemExit('run')")
    assert studio("quantize", folder, tmp_path / "out").code == 0
    assert not (tmp_path / "out" / "pytorch_model.bin").exists()
    assert not (tmp_path / "out" / "modeling_evil.py").exists()


def test_an_index_that_lists_what_no_shard_has_is_refused(folder: Path, refused: Refused) -> None:
    refused(edit_index(folder, **{"model.ghost.weight": FIRST}), "model.ghost.weight", INDEX)


def test_an_index_that_names_the_wrong_shard_is_refused(folder: Path, refused: Refused) -> None:
    refused(edit_index(folder, **{QUERY: SECOND}), QUERY, INDEX, FIRST, SECOND)


def test_an_index_that_lists_a_tensor_twice_is_refused(folder: Path, refused: Refused) -> None:
    for other in (FIRST, SECOND):
        text = f'{{"weight_map": {{"{QUERY}": "{FIRST}", "{QUERY}": "{other}"}}}}'
        write_json(folder / INDEX, text)
        refused(folder, QUERY, INDEX, "duplicate")


def test_an_index_with_two_weight_maps_is_refused(folder: Path, refused: Refused) -> None:
    write_json(folder / INDEX, '{"weight_map": {}, "weight_map": {}}')
    refused(folder, INDEX, "duplicate", "weight_map")


@pytest.mark.parametrize("index", ['{"metadata": {}}', '{"weight_map": []}', '{"weight_map": {"a": 3}}', "[]", "{", ""])
def test_a_malformed_index_is_refused(folder: Path, refused: Refused, index: str) -> None:
    write_json(folder / INDEX, index)
    refused(folder, INDEX)


def test_an_index_of_nothing_is_refused(folder: Path, refused: Refused) -> None:
    write_json(folder / INDEX, '{"weight_map": {}}')
    refused(folder, "nothing to quantize", "holds no tensors")


def test_two_indexes_of_unknown_relation_are_refused(folder: Path, refused: Refused) -> None:
    for name in ("a", "b"):
        (folder / f"{name}.safetensors.index.json").write_text("{}")
    (folder / INDEX).unlink()
    refused(folder, "more than one index")


def test_the_usual_index_goes_before_another(folder: Path, studio: Studio) -> None:
    (folder / "consolidated.safetensors.index.json").write_text("{}")
    ran = studio("inspect", folder)
    assert ran.code == 0
    assert "consolidated.safetensors.index.json" in ran.err


def test_a_tensor_that_the_index_does_not_list_is_left_out_and_named(
    folder: Path, studio: Studio, tmp_path: Path
) -> None:
    ran = studio("quantize", edit_index(folder, **{QUERY: None}), tmp_path / "out")
    assert ran.code == 0
    assert QUERY in ran.err
    assert QUERY.removesuffix(".weight") not in {layer.name for layer in open_model(folder).layers}


@pytest.mark.parametrize("shards", [1, 2])
def test_a_stray_shard_is_left_out_and_named(tmp_path: Path, studio: Studio, shards: int) -> None:
    folder = checkpoint(tmp_path / "model", shards=shards)
    before = len(open_model(folder).layers)
    write_safetensors(folder / "stray.safetensors", {"stray.weight": gaussian(16, 16)})
    ran = studio("inspect", folder)
    assert ran.code == 0
    assert "stray.safetensors" in ran.err
    assert len(open_model(folder).layers) == before


def test_files_of_unknown_relation_are_never_merged(tmp_path: Path, refused: Refused) -> None:
    folder = tmp_path / "model"
    for name in ("one", "two"):
        write_safetensors(folder / f"{name}.safetensors", {f"{name}.weight": gaussian(16, 16)})
    refused(folder, "no index", "one.safetensors", "two.safetensors")


UNSAFE = [
    "../outside.safetensors",
    "sub/../../outside.safetensors",
    "/outside.safetensors",
    "..\\outside.safetensors",
    "C:outside.safetensors",
    "model\0.safetensors",
    "",
    ".",
    "..",
    "a" * 5000,
    "sub/model.safetensors",
]


@pytest.mark.parametrize("name", UNSAFE, ids=lambda name: ascii(name[:30]))
def test_an_unsafe_path_in_the_index_is_refused_and_never_opened(folder: Path, refused: Refused, name: str) -> None:
    outside = write_safetensors(folder.parent / "outside.safetensors", {QUERY: gaussian(64, 64)})
    os.utime(outside, ns=(1, 1))
    shown = name.replace("\0", "\\x00")[:100]
    said = refused(edit_index(folder, **{QUERY: name}), "unsafe path", shown)
    assert len(said) < 600
    assert outside.stat().st_atime_ns == 1


def put(kind: str, path: Path) -> None:
    """Something that is no regular file in place of one."""
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "socket":
        bound = socket.socket(socket.AF_UNIX)
        here = Path.cwd()
        os.chdir(path.parent)
        bound.bind(path.name)
        os.chdir(here)
        bound.close()
    else:
        try:
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
        except PermissionError:
            pytest.skip("only root can make a device")


@pytest.mark.parametrize("kind", ["fifo", "folder", "loop", "socket", "device"])
@pytest.mark.parametrize("name", [SECOND, INDEX, "config.json", "tokenizer.json"])
def test_what_is_not_a_regular_file_is_refused_at_once(folder: Path, refused: Refused, name: str, kind: str) -> None:
    put(kind, folder / name)
    refused(folder, name, "not a regular file")


@pytest.mark.parametrize("kind", ["fifo", "loop", "socket", "device"])
def test_a_source_that_is_not_a_regular_file_is_refused_at_once(tmp_path: Path, refused: Refused, kind: str) -> None:
    path = tmp_path / "single" / "model.safetensors"
    path.parent.mkdir()
    put(kind, path)
    refused(path, "model.safetensors")


@pytest.mark.parametrize("name", [SECOND, INDEX, "config.json"])
@pytest.mark.parametrize("relative", [True, False])
def test_a_link_out_of_the_folder_is_refused(folder: Path, refused: Refused, name: str, relative: bool) -> None:
    (folder.parent / "elsewhere").mkdir()
    (folder / name).rename(folder.parent / "elsewhere" / name)
    (folder / name).symlink_to(f"../elsewhere/{name}" if relative else folder.parent / "elsewhere" / name)
    refused(folder, name, "link")


def test_a_tokenizer_that_links_out_of_the_folder_is_left_out_and_named(
    folder: Path, studio: Studio, tmp_path: Path
) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to("/etc/passwd")
    ran = studio("quantize", folder, tmp_path / "out")
    assert ran.code == 0
    assert "tokenizer.json" in ran.err
    assert "link" in ran.err
    assert not os.path.lexists(tmp_path / "out" / "tokenizer.json")


def test_a_broken_link_is_refused(folder: Path, refused: Refused) -> None:
    (folder / SECOND).unlink()
    (folder / SECOND).symlink_to("nowhere")
    refused(folder, SECOND, "link")


def test_links_inside_the_folder_work(folder: Path, studio: Studio, tmp_path: Path) -> None:
    (folder / SECOND).rename(folder / "blob")
    (folder / SECOND).symlink_to("blob")
    assert studio("quantize", folder, tmp_path / "out").code == 0


def test_the_cache_of_hugging_face_works(tmp_path: Path, studio: Studio) -> None:
    plain = checkpoint(tmp_path / "plain", shards=2)
    home = tmp_path / "models--org--name"
    snapshot = home / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (home / "blobs").mkdir()
    for number, path in enumerate(sorted(plain.iterdir())):
        path.rename(home / "blobs" / f"{number:064x}")
        (snapshot / path.name).symlink_to(f"../../blobs/{number:064x}")
    assert studio("quantize", snapshot, tmp_path / "out").code == 0
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    assert not (tmp_path / "out" / "tokenizer.json").is_symlink()


def test_names_that_differ_only_by_case_are_two_tensors_and_two_shards(tmp_path: Path, studio: Studio) -> None:
    folder = tmp_path / "model"
    tensors = {"a.proj.weight": gaussian(16, 32), "A.PROJ.weight": gaussian(16, 32, seed=1)}
    for shard, name in (("one.safetensors", "a.proj.weight"), ("ONE.safetensors", "A.PROJ.weight")):
        write_safetensors(folder / shard, {name: tensors[name]})
    weight_map = {"a.proj.weight": "one.safetensors", "A.PROJ.weight": "ONE.safetensors"}
    write_json(folder / INDEX, {"weight_map": weight_map})
    if len(list(folder.iterdir())) < 3:
        pytest.skip("this file system does not tell case apart")
    assert studio("quantize", folder, tmp_path / "out", "--shard-size", "100").code == 0
    written = [path.name.casefold() for path in (tmp_path / "out").iterdir()]
    assert len(set(written)) == len(written)
    names = {layer.name for layer in open_model(folder).layers}
    assert names == {"a.proj", "A.PROJ"}
    assert np.array_equal(tensors["a.proj.weight"], gaussian(16, 32))
