"""Statistics files give back what was written, and say what is wrong with what they are not."""

import json
import struct

import numpy as np
import pytest

from studio import core
from studio.core.containers.files import SourceFile
from studio.core.containers.safetensors import read_header
from studio.core.errors import CheckpointError, ExportError, PlanError
from studio.core.statistics.digest import model_digest
from studio.core.statistics.file import Shape, write_statistics
from studio.core.statistics.inputs import COLUMNS, PAIRS, ROWS, LayerInputs
from tests.core.checkpoints import checkpoint, gaussian, llama, write_safetensors

Q, K, V, OUT = (f"model.layers.0.self_attn.{name}_proj" for name in "qkvo")
DOWN = "model.layers.0.mlp.down_proj"
TOKENS = np.arange(12, dtype=np.int32).reshape(3, 4)


def inputs(columns, tokens=12, seed=0):
    rows = np.random.default_rng(seed).standard_normal((tokens, columns)).astype(np.float32)
    blocks = rows.reshape(tokens, -1, 16)
    moments = np.einsum("tbi,tbj->bij", blocks, blocks)[:, ROWS, COLUMNS] / tokens
    return LayerInputs(tokens, np.square(rows).mean(0), np.abs(rows).max(0), moments.astype(np.float32))


def written(path, model, **about):
    known = {(Q, K, V): inputs(64), (DOWN,): inputs(128, seed=1), (OUT,): LayerInputs(0, np.zeros(64, np.float32))}
    shapes = [Shape(names, len(found.mean_square), found.tokens) for names, found in known.items()]
    usual = {"model_digest": model_digest(model), "text_digest": "0", "seed": "0", "runtime": "none"}
    write_statistics(path, shapes, lambda shape: known[shape.names], TOKENS, {**usual, **about})
    return known


@pytest.fixture
def model(tmp_path):
    with core.open_model(checkpoint(tmp_path / "model")) as opened:
        yield opened


def matrix_of(model, name):
    layer = model.by_name[name]
    return layer, layer.matrices[0]


def assert_equal(found, wanted):
    assert found.tokens == wanted.tokens
    for name in ("peak", "mean_square", "moments"):
        assert np.array_equal(getattr(found, name), getattr(wanted, name))


def test_what_was_written_is_read_back_by_every_name_that_shares_it(tmp_path, model):
    known = written(tmp_path / "s", model)
    file = core.open_statistics(tmp_path / "s", model)
    for names, wanted in known.items():
        for name in names:
            if wanted.tokens:
                assert_equal(file.of(*matrix_of(model, name)), wanted)
    assert file.kind == "statistics"
    assert file.about["runtime"] == "none"
    assert np.array_equal(file.token_ids, TOKENS)
    assert file.of(*matrix_of(model, "model.layers.1.mlp.up_proj")) is None
    nothing = file.of(*matrix_of(model, OUT))
    assert (nothing.tokens, nothing.mean_square.sum(), nothing.moments) == (0, 0, None)


def test_inputs_that_are_shared_are_stored_once_in_a_file_that_others_read(tmp_path, model):
    written(tmp_path / "s", model)
    with SourceFile(tmp_path / "s") as file:
        header = read_header(file)
    assert set(header.tensors) == {
        "token_ids",
        f"{OUT}.tokens",
        *(f"{name}.{part}" for name in (Q, DOWN) for part in ("tokens", "peak", "mean_square", "moments")),
    }
    assert header.tensors[f"{Q}.moments"].shape == (4, PAIRS)
    from safetensors.numpy import load_file

    assert load_file(tmp_path / "s")[f"{DOWN}.tokens"] == 12


def test_what_is_not_in_it_is_told(tmp_path, model):
    written(tmp_path / "s", model)
    layers, idle = core.unseen(core.open_statistics(tmp_path / "s", model), model)
    assert [matrix.name for matrix in idle] == [OUT]
    assert {layer.name for layer in layers} == {
        layer.name for layer in model.layers if layer.role == "linear" and layer.name not in (Q, K, V, OUT, DOWN)
    }


def test_the_same_statistics_make_the_same_bytes(tmp_path, model):
    for name in ("a", "b"):
        written(tmp_path / name, model)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "model"]


def test_statistics_of_another_model_are_refused(tmp_path, model):
    written(tmp_path / "s", model)
    changed = {**llama(), Q + ".weight": gaussian(64, 64, seed=77)}
    with core.open_model(checkpoint(tmp_path / "other", changed)) as other, pytest.raises(PlanError, match="another"):
        core.open_statistics(tmp_path / "s", other)


def test_every_flipped_byte_of_the_data_is_seen(tmp_path, model):
    written(tmp_path / "s", model)
    raw = bytearray((tmp_path / "s").read_bytes())
    start = 8 + struct.unpack("<Q", raw[:8])[0]
    for place in range(start, len(raw), 997):
        raw[place] ^= 4
        (tmp_path / "s").write_bytes(raw)
        with pytest.raises(CheckpointError, match="damaged"):
            core.open_statistics(tmp_path / "s", model)
        raw[place] ^= 4


def test_a_truncated_file_is_refused(tmp_path, model):
    written(tmp_path / "s", model)
    raw = (tmp_path / "s").read_bytes()
    for length in (0, 5, 100, len(raw) // 2, len(raw) - 1):
        (tmp_path / "s").write_bytes(raw[:length])
        with pytest.raises(CheckpointError):
            core.open_statistics(tmp_path / "s", model)


def test_another_safetensors_file_and_a_newer_one_are_refused(tmp_path, model):
    write_safetensors(tmp_path / "weights", {"a": gaussian(2, 16)})
    with pytest.raises(CheckpointError, match="not of statistics"):
        core.open_statistics(tmp_path / "weights", model)
    written(tmp_path / "s", model, version="2")
    with pytest.raises(CheckpointError, match="version '2'") as caught:
        core.open_statistics(tmp_path / "s", model)
    assert "newer" in caught.value.hint


def rewritten(path, model, change):
    """A file of one input, valid but for what `change` does to its arrays."""
    found = inputs(64)
    change(found)
    about = {"model_digest": model_digest(model)}
    write_statistics(path, [Shape((Q,), 64, found.tokens)], lambda _: found, TOKENS, about)
    return core.open_statistics(path, model)


@pytest.mark.parametrize("part", ["mean_square", "peak", "moments"])
def test_numbers_that_no_statistics_can_have_are_refused(tmp_path, model, part):
    def spoil(found):
        getattr(found, part).flat[5] = np.nan

    with pytest.raises(CheckpointError, match="numbers that no statistics"):
        rewritten(tmp_path / "s", model, spoil).of(*matrix_of(model, Q))


def test_statistics_of_other_widths_are_refused_by_the_name_of_the_tensor(tmp_path, model):
    file = rewritten(tmp_path / "s", model, lambda _: None)
    layer, matrix = matrix_of(model, Q)
    from dataclasses import replace

    with pytest.raises(CheckpointError, match=r"q_proj\.mean_square.*not F32 \[128\]"):
        file.of(layer, replace(matrix, columns=128))


@pytest.mark.parametrize("shared", ["[]", "{", '{"a": "b"}', '{"a": [1]}', json.dumps({"nowhere": [K]})])
def test_a_malformed_list_of_names_is_refused(tmp_path, model, shared):
    written(tmp_path / "s", model)
    raw = (tmp_path / "s").read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    header["__metadata__"]["shared"] = shared
    text = json.dumps(header).encode()
    (tmp_path / "s").write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    with pytest.raises(CheckpointError, match=r"shared|share them"):
        core.open_statistics(tmp_path / "s", model)


def test_a_file_that_can_not_be_written_leaves_what_was_there(tmp_path, model):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ExportError):
        written(tmp_path / "folder", model)
    assert (tmp_path / "folder").is_dir()
