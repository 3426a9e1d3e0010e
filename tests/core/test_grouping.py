"""Stacks of experts are cut into matrices; roles follow names."""

from pathlib import Path

import numpy as np
import pytest

from studio import core
from studio.core.running.reading import read_slab, slabs
from tests.core.checkpoints import CONFIG, checkpoint, gaussian, llama

UP = "model.layers.0.mlp.up_proj"


def read(model: core.Model, name: str, nbytes: int = 4096) -> np.ndarray:
    layer = model.by_name[name]
    return np.concatenate([read_slab(slab) for m in layer.matrices for slab in slabs(layer, m, nbytes)])


@pytest.mark.parametrize(
    ("projection", "shape", "parts"),
    [
        ("gate_up_proj", (3, 64, 32), ("gate_proj", "up_proj")),
        ("down_proj", (3, 32, 64), ("down_proj",)),
    ],
)
def test_a_stack_of_experts_is_cut_into_matrices(
    tmp_path: Path, projection: str, shape: tuple[int, ...], parts: tuple[str, ...]
) -> None:
    name = f"model.layers.0.mlp.experts.{projection}"
    weight = gaussian(*shape)
    folder = checkpoint(tmp_path / "moe", {name: weight}, {**CONFIG, "hidden_size": 32})
    with core.open_model(folder) as model:
        layer = model.by_name[name]
        assert layer.role == "expert"
        wanted = [f"model.layers.0.mlp.experts.{e}.{part}" for e in range(3) for part in parts]
        assert [matrix.name for matrix in layer.matrices] == wanted
        np.testing.assert_array_equal(read(model, name), weight.reshape(-1, shape[-1]))


def test_experts_stored_input_first_have_outputs_as_rows(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.experts.gate_up_proj"
    folder = checkpoint(tmp_path / "moe", {name: gaussian(3, 32, 64)}, {**CONFIG, "hidden_size": 32})
    with core.open_model(folder) as model:
        assert not model.by_name[name].obstacle
        steps = {(m.rows, m.columns, m.row_step, m.column_step) for m in model.by_name[name].matrices}
        assert steps == {(32, 32, 1, 64)}


def test_a_layer_takes_role_block_and_group_from_its_name(tmp_path: Path) -> None:
    config = {**CONFIG, "num_hidden_layers": 1}
    with core.open_model(checkpoint(tmp_path / "llama", llama(2), config)) as model:
        layer = model.by_name[UP]
        assert (layer.role, layer.block) == ("linear", 0)
        assert layer.group == model.by_name["model.layers.0.mlp.gate_proj"].group != ""
        assert model.by_name["model.layers.0.mlp.down_proj"].group == ""
        assert {layer.role for layer in model.layers if layer.block == 1} == {"draft"}
