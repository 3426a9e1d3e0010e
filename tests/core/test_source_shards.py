"""The index decides which copy counts; one that does not fit its shards is refused with what to do."""

import json
from pathlib import Path

import numpy as np
import pytest

from studio.core import open_model
from studio.core.reading import read_elements
from tests.core.checkpoints import BF16, INDEX, checkpoint, gaussian, llama, shard_name, write_json, write_safetensors
from tests.core.conftest import Refused, Studio

FIRST, SECOND = shard_name(0, 2), shard_name(1, 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "model", shards=2)


def edit_index(folder: Path, **changes: str) -> Path:
    index = json.loads((folder / INDEX).read_text())
    write_json(folder / INDEX, {"weight_map": {**index["weight_map"], **changes}})
    return folder


def with_stale_copies(folder: Path, shard: str) -> dict[str, bytes]:
    """Puts wrong copies of three tensors of the other shard into `shard`; gives the right bytes."""
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    tensors = llama()
    mine = {name: array for name, array in tensors.items() if weight_map[name] == shard}
    others = [name for name in tensors if weight_map[name] != shard and tensors[name].ndim == 2][:3]
    write_safetensors(folder / shard, {**mine, **{name: (tensors[name] * 100).astype(BF16) for name in others}})
    return {name: tensors[name].tobytes() for name in others}


@pytest.mark.parametrize("shard", [FIRST, SECOND])
def test_the_index_decides_which_copy_of_a_tensor_counts_and_one_line_says_so(
    folder: Path, studio: Studio, tmp_path: Path, shard: str
) -> None:
    right = with_stale_copies(folder, shard)
    with open_model(folder) as model:
        assert len(model.layers) == len(llama())
        stored = {layer.tensor.name: layer.stored for layer in model.layers}
        for name, data in right.items():
            count = int(np.prod(stored[name].tensor.shape))
            assert read_elements(stored[name], 0, count).tobytes() == data
    ran = studio("quantize", folder, tmp_path / "out")
    assert ran.code == 0
    assert "3 tensors are stored more than once, the index says which copy counts" in ran.err
    assert studio("verify", tmp_path / "out", "--source", folder).code == 0


def test_a_moved_tensor_in_a_whole_set_may_be_opened_without_the_index(
    folder: Path, refused: Refused, studio: Studio
) -> None:
    name = "model.embed_tokens.weight"
    refused(edit_index(folder, **{name: SECOND}), name, f"the index says {SECOND}, but it is in {FIRST}", "delete it")
    (folder / INDEX).unlink()
    assert studio("inspect", folder).code == 0


def test_a_listed_tensor_that_is_nowhere_names_the_shard_to_download(folder: Path, refused: Refused) -> None:
    refused(edit_index(folder, ghost=SECOND, ghoul=SECOND), "ghost", "as are 1 more", f"download {SECOND}")


def test_a_listed_tensor_in_a_file_that_the_index_does_not_name_is_found_there(folder: Path, refused: Refused) -> None:
    write_safetensors(folder / "more.safetensors", {"ghost": gaussian(1, 16)})
    refused(edit_index(folder, ghost=SECOND), "ghost", "more.safetensors holds it")


def test_an_index_of_another_download_beside_a_single_file_may_be_deleted(
    tmp_path: Path, refused: Refused, studio: Studio
) -> None:
    folder = checkpoint(tmp_path / "model")
    write_json(folder / INDEX, {"weight_map": {"a": FIRST, "b": SECOND}})
    refused(folder, INDEX, "none of the 2 shards", "model.safetensors is a whole model", "delete the index")
    (folder / INDEX).unlink()
    assert studio("inspect", folder).code == 0


def test_missing_shards_are_counted_and_named(tmp_path: Path, refused: Refused) -> None:
    folder = checkpoint(tmp_path / "model", shards=4)
    for number in (1, 3):
        (folder / shard_name(number, 4)).unlink()
    refused(folder, "2 of 4 shards missing", shard_name(1, 4), shard_name(3, 4), "finish the download")


def test_many_tensors_beside_the_index_are_one_line(folder: Path, studio: Studio) -> None:
    write_json(folder / INDEX, {"weight_map": {"lm_head.weight": SECOND, "model.embed_tokens.weight": FIRST}})
    said = studio("inspect", folder).err
    assert said.count("not in the index") == 1
    assert " more: not in the index, left out" in said
