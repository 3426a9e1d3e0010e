"""FP8 sources are widened with their scales; stacks of experts are cut into matrices."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from studio import core
from studio.core.reading import read_slab, slabs
from tests.core.checkpoints import CONFIG, FP8, checkpoint, gaussian, llama

UP = "model.layers.0.mlp.up_proj"


def read(model: core.Model, name: str, nbytes: int = 4096) -> np.ndarray:
    layer = model.by_name[name]
    return np.concatenate([read_slab(slab) for m in layer.matrices for slab in slabs(layer, m, nbytes)])


@pytest.mark.parametrize(
    ("suffix", "shape", "block"),
    [
        ("weight_scale_inv", (2, 3), (128, 128)),
        ("weight_scale", (), (200, 300)),
        ("weight_scale", (1,), (200, 300)),
        ("weight_scale", (200, 1), (1, 300)),
        ("weight_scale", (200,), (1, 300)),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_fp8_is_widened_by_the_scale_of_its_block(
    tmp_path: Path, suffix: str, shape: tuple[int, ...], block: tuple[int, int], dtype: type
) -> None:
    codes = gaussian(200, 300, sigma=50, dtype=FP8)
    scale = np.abs(gaussian(*shape, seed=1, sigma=0.01, dtype=dtype)).reshape(shape)
    folder = checkpoint(tmp_path / "fp8", {f"{UP}.weight": codes, f"{UP}.{suffix}": scale})
    grid = scale.astype(np.float32).reshape(-(-200 // block[0]), -(-300 // block[1]))
    wanted = codes.astype(np.float32) * np.kron(grid, np.ones(block, np.float32))[:200, :300]
    with core.open_model(folder) as model:
        assert [layer.name for layer in model.layers] == [UP]
        assert model.by_name[UP].scale_block == block
        np.testing.assert_array_equal(read(model, UP), wanted.astype(ml_dtypes.bfloat16))


def test_a_kept_fp8_layer_is_written_as_bf16_and_a_quantized_one_loses_its_old_scales(tmp_path: Path) -> None:
    tensors = {
        **llama(1),
        f"{UP}.weight": gaussian(128, 64, sigma=50, dtype=FP8),
        f"{UP}.weight_scale_inv": np.full((1, 1), 0.0004, np.float32),
        "model.layers.0.mlp.down_proj.weight": gaussian(64, 128, sigma=50, dtype=FP8),
        "model.layers.0.mlp.down_proj.weight_scale_inv": np.full((1, 1), 0.0004, np.float32),
    }
    config = {**CONFIG, "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    folder = checkpoint(tmp_path / "fp8", tensors, config)
    plan = core.preset("linear").preceded_by([core.Rule(names=("*down_proj",), format=core.KEEP)])
    with core.open_model(folder) as model, core.start(core.Machine(threads=1), model) as engine:
        job = core.prepare(model, plan, core.resolve(plan, model), core.LAYOUTS["modelopt"], tmp_path / "out")
        list(core.export(engine, job))
        names = job.shards[0].tensors
        assert names["model.layers.0.mlp.down_proj.weight"].dtype == "BF16"
        assert f"{UP}.weight_scale_inv" not in names
        assert names[f"{UP}.weight_scale"].dtype == "F8_E4M3"
        list(core.verify(engine, tmp_path / "out", model))


def test_fp8_without_scales_is_copied_as_it_is(tmp_path: Path) -> None:
    with core.open_model(checkpoint(tmp_path / "fp8", {f"{UP}.weight": gaussian(32, 64, dtype=FP8)})) as model:
        assert "without scales" in model.by_name[UP].obstacle


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
