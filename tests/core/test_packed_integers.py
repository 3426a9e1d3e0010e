"""Symmetric integers for servers: packed as compressed-tensors packs them, with the shape beside them."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from kernels import FORMATS, recipe, reference
from studio import core
from studio.core.errors import CheckpointError, PlanError
from studio.core.exporting.contents import MANIFEST, SUMS
from tests.core.checkpoints import CONFIG, checkpoint, llama, tensors_of
from tests.core.test_input_scales import signed

NAMES = [name for name, row in FORMATS.items() if row.symmetric]
DOWN = "model.layers.1.mlp.down_proj"


@pytest.fixture
def dense(tmp_path):
    config = {**CONFIG, "hidden_size": 128, "intermediate_size": 256}
    with core.open_model(checkpoint(tmp_path / "model", llama(2, 128, 256), config)) as model:
        yield model


def exported(model: core.Model, target: Path, row: str) -> Path:
    plan = core.preset("linear").with_format(row)
    layout = core.LAYOUTS["compressed-tensors"]
    with core.start(core.Machine(threads=2), model) as engine:
        list(core.export(engine, core.prepare(model, plan, core.resolve(plan, model), layout, target)))
        list(core.verify(engine, target, model))
    return target


@pytest.mark.parametrize("name", NAMES)
def test_zero_is_the_code_in_the_middle_and_the_largest_weight_half_a_step_beyond(name: str) -> None:
    row = FORMATS[name]
    weight = np.random.default_rng(3).standard_normal((4, 256)).astype(np.float32)
    weight[0, :3] = 0
    found = reference.encode(weight, recipe(name))
    assert found.biases is not None
    middle = 2 ** (row.bits - 1)
    np.testing.assert_array_equal(found.biases, -middle * found.scales)
    peaks = np.abs(weight).reshape(4, -1, row.block).max(axis=-1)
    np.testing.assert_allclose(found.scales, peaks / (middle - 0.5), rtol=1e-6)
    assert (reference.decode(found)[0, :3] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_sizes_leave_biases_out(name: str) -> None:
    row = FORMATS[name]
    assert row.nbytes((4, 256)) == 4 * 256 * row.bits // 8 + 2 * 4 * 256 // row.block


def test_the_largest_number_of_a_dtype_stays_finite() -> None:
    weight = np.full((1, 32), 65504, np.float16)
    found = reference.encode(weight, recipe("int4-sym-g32"))
    assert np.isfinite(reference.decode(found)).all()


@pytest.mark.parametrize("name", NAMES)
def test_parts_are_those_of_the_package_and_are_read_by_its_convention(tmp_path, dense, name):
    folder, row = exported(dense, tmp_path / "out", name), FORMATS[name]
    found = tensors_of(folder / "model.safetensors")
    shapes = {
        leaf: (found[f"{DOWN}.{leaf}"].dtype, found[f"{DOWN}.{leaf}"].shape)
        for leaf in ("weight_packed", "weight_scale", "weight_shape")
    }
    assert shapes == {
        "weight_packed": ("I32", (128, 256 * row.bits // 32)),
        "weight_scale": ("BF16", (128, 256 // row.block)),
        "weight_shape": ("I64", (2,)),
    }
    section = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert section["format"] == "pack-quantized"
    foreign = tmp_path / "foreign"
    shutil.copytree(folder, foreign)
    for one in (MANIFEST, SUMS):
        (foreign / one).unlink()
    with core.open_model(folder) as own, core.open_model(foreign) as other:
        for layer in own.layers:
            theirs = other.by_name[layer.name]
            rows = layer.whole.rows
            np.testing.assert_array_equal(
                layer.source.rows(layer.whole, 0, rows).astype(np.float32),
                theirs.source.rows(theirs.whole, 0, rows).astype(np.float32),
            )


def test_another_shape_is_found(tmp_path, dense):
    folder = exported(dense, tmp_path / "out", "int4-sym-g32")
    path = folder / "model.safetensors"
    start = tensors_of(path)[f"{DOWN}.weight_shape"].start
    data = bytearray(path.read_bytes())
    data[start : start + 8] = struct.pack("<q", 64)
    path.write_bytes(data)
    signed(folder)
    with core.start(core.Machine(threads=2), dense) as engine, pytest.raises(CheckpointError, match="the matrix has"):
        list(core.verify(engine, folder))


def test_other_layouts_refuse_them(tmp_path, dense):
    plan = core.preset("linear").with_format("int4-sym-g32")
    for layout in ("mlx", "modelopt"):
        with pytest.raises(PlanError, match=f"layout {layout} can not store int4-sym-g32"):
            core.prepare(dense, plan, core.resolve(plan, dense), core.LAYOUTS[layout], tmp_path / "none")
