"""FP8 in the layouts of servers: stored as their makers store it, read back to the bit, refused where no reader is."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from studio import core
from studio.core.errors import CheckpointError, PlanError
from studio.core.exporting.contents import MANIFEST, SUMS
from tests.core.checkpoints import CONFIG, checkpoint, llama, tensors_of
from tests.core.test_input_scales import MIXTURE, mixture, signed, statistics

HIDDEN, INNER = 224, 352
TILED = 256, 384
FORMATS = ("fp8-tensor", "fp8-channel", "fp8-block")
DOWN = "model.layers.1.mlp.down_proj"
SHAPES = {
    ("modelopt", "fp8-tensor"): (),
    ("modelopt", "fp8-channel"): (HIDDEN,),
    ("modelopt", "fp8-block"): (2, 1, 3, 1),  # whole tiles, as vLLM asks for
    ("compressed-tensors", "fp8-tensor"): (1,),
    ("compressed-tensors", "fp8-channel"): (HIDDEN, 1),
    ("compressed-tensors", "fp8-block"): (2, 3),
}
"""Of the scales of a down projection, ragged tiles at both of its edges."""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    config = {**CONFIG, "hidden_size": HIDDEN, "intermediate_size": INNER}
    return checkpoint(tmp_path_factory.mktemp("fp8") / "model", llama(2, HIDDEN, INNER), config)


@pytest.fixture
def dense(source):
    with core.open_model(source) as model:
        yield model


@pytest.fixture
def tiled(tmp_path):
    config = {**CONFIG, "hidden_size": TILED[0], "intermediate_size": TILED[1]}
    with core.open_model(checkpoint(tmp_path / "tiled", llama(2, *TILED), config)) as model:
        yield model


@pytest.fixture
def experts(tmp_path):
    with core.open_model(checkpoint(tmp_path / "mixture", mixture(), MIXTURE)) as model:
        yield model


def prepared(model: core.Model, folder: Path, layout: str, row: str, rules=(), known=True, reader=""):
    plan = core.preset("linear").with_format(row)
    plan = plan.preceded_by([core.Rule(names=(name,), format=form) for name, form in rules])
    if known:
        path = statistics(model, folder / "statistics", {DOWN: (1000, 31.0)})
        model = core.with_statistics(model, core.open_statistics(path, model))
    choices = core.resolve(plan, model)
    return core.prepare(model, plan, choices, core.LAYOUTS[layout], folder / "out", reader=reader)


def exported(model: core.Model, folder: Path, layout: str, row: str, rules=()) -> Path:
    with core.start(core.Machine(threads=2), model) as engine:
        list(core.export(engine, prepared(model, folder, layout, row, rules)))
        list(core.verify(engine, folder / "out", model))
    return folder / "out"


@pytest.mark.parametrize(("layout", "row"), SHAPES)
def test_parts_are_those_of_the_maker_and_are_read_by_its_convention(tmp_path, dense, tiled, layout, row):
    """Without the manifest the folder is one of many makers, and its tensors and config tell all."""
    whole = (layout, row) == ("modelopt", "fp8-block")
    folder = exported(tiled if whole else dense, tmp_path, layout, row)
    found = tensors_of(folder / "model.safetensors")
    assert (found[f"{DOWN}.weight"].dtype, found[f"{DOWN}.weight"].shape) == (
        "F8_E4M3",
        TILED if whole else (HIDDEN, INNER),
    )
    assert (found[f"{DOWN}.weight_scale"].dtype, found[f"{DOWN}.weight_scale"].shape) == ("F32", SHAPES[layout, row])
    foreign = tmp_path / "foreign"
    shutil.copytree(folder, foreign)
    for name in (MANIFEST, SUMS):
        (foreign / name).unlink()
    with core.open_model(folder) as own, core.open_model(foreign) as other:
        assert other.quantized_by == ""
        for layer in own.layers:
            theirs = other.by_name[layer.name]
            rows = layer.whole.rows
            np.testing.assert_array_equal(
                layer.source.rows(layer.whole, 0, rows).astype(np.float32),
                theirs.source.rows(theirs.whole, 0, rows).astype(np.float32),
            )


@pytest.mark.parametrize("row", FORMATS)
def test_any_rows_decode_as_they_do_among_the_others(tmp_path, dense, row):
    folder = exported(dense, tmp_path, "compressed-tensors", row)
    with core.open_model(folder) as model:
        layer = model.by_name[DOWN]
        whole = layer.source.rows(layer.matrices[0], 0, HIDDEN)
        for start, stop in ((0, 1), (100, 140), (127, 129), (128, HIDDEN), (200, 224)):
            np.testing.assert_array_equal(layer.source.rows(layer.matrices[0], start, stop), whole[start:stop])


@pytest.mark.parametrize("row", FORMATS)
def test_small_slabs_give_the_same_bytes(tmp_path, dense, row):
    (tmp_path / "whole").mkdir()
    (tmp_path / "small").mkdir()
    whole = exported(dense, tmp_path / "whole", "compressed-tensors", row)
    with core.start(core.Machine(threads=2), dense) as started:
        engine = core.Engine(started.backend, started.pool, 4096)
        list(core.export(engine, prepared(dense, tmp_path / "small", "compressed-tensors", row)))
    small = tmp_path / "small" / "out"
    assert (whole / "model.safetensors").read_bytes() == (small / "model.safetensors").read_bytes()


@pytest.mark.parametrize("row", FORMATS)
@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), -1.0])
def test_a_scale_that_is_no_positive_number_is_found(tmp_path, dense, row, value):
    folder = exported(dense, tmp_path, "compressed-tensors", row)
    path = folder / "model.safetensors"
    start = tensors_of(path)[f"{DOWN}.weight_scale"].start
    data = bytearray(path.read_bytes())
    data[start : start + 4] = struct.pack("<f", value)
    path.write_bytes(data)
    signed(folder)
    with core.start(core.Machine(threads=2), dense) as engine, pytest.raises(CheckpointError, match=r"scale"):
        list(core.verify(engine, folder))


def test_another_scale_costs_another_error_than_the_report_says(tmp_path, dense):
    folder = exported(dense, tmp_path, "compressed-tensors", "fp8-block")
    path = folder / "model.safetensors"
    start = tensors_of(path)[f"{DOWN}.weight_scale"].start + 4 * 4
    data = bytearray(path.read_bytes())
    data[start : start + 4] = struct.pack("<f", struct.unpack("<f", data[start : start + 4])[0] * 1.001)
    path.write_bytes(data)
    signed(folder)
    with core.start(core.Machine(threads=2), dense) as engine, pytest.raises(CheckpointError, match="squared error"):
        list(core.verify(engine, folder, dense))


def test_conversions_move_the_codes_between_the_layouts(tmp_path, tiled):
    first = exported(tiled, tmp_path, "compressed-tensors", "fp8-block")
    for before, layout, after in ((first, "modelopt", "second"), (tmp_path / "second", "compressed-tensors", "third")):
        with core.open_model(before) as model, core.start(core.Machine(threads=2), model) as engine:
            *_, ended = core.transcode(engine, model, core.LAYOUTS[layout])
            assert ended.transcoding.losses == ()
            job = core.prepare_conversion(model, ended.transcoding, core.LAYOUTS[layout], tmp_path / after)
            list(core.export(engine, job))
    assert (first / "model.safetensors").read_bytes() == (tmp_path / "third" / "model.safetensors").read_bytes()


def test_fused_layers_share_the_scale_of_a_tensor(tmp_path, dense):
    folder = exported(dense, tmp_path, "compressed-tensors", "fp8-tensor")
    data, found = (folder / "model.safetensors").read_bytes(), tensors_of(folder / "model.safetensors")
    starts = [found[f"model.layers.0.self_attn.{name}_proj.weight_scale"].start for name in "qkv"]
    assert len({data[start : start + 4] for start in starts}) == 1


def test_modelopt_stores_scales_of_inputs_or_refuses(tmp_path, dense):
    folder = exported(dense, tmp_path, "modelopt", "fp8-tensor")
    found = tensors_of(folder / "model.safetensors")
    assert sum(name.endswith("input_scale") for name in found) == 14
    start = found[f"{DOWN}.input_scale"].start
    data = (folder / "model.safetensors").read_bytes()
    assert struct.unpack("<f", data[start : start + 4])[0] == pytest.approx(31 / 448)
    with pytest.raises(PlanError, match="fp8-tensor of NVIDIA ModelOpt needs the largest inputs") as caught:
        prepared(dense, tmp_path / "none", "modelopt", "fp8-tensor", known=False)
    assert "nvfp4-studio calibrate" in caught.value.hint


def test_a_mix_of_modelopt_names_the_algorithm_of_every_module(tmp_path, dense):
    rules = (("*down_proj", "fp8-tensor"), ("*o_proj", "mxfp8"))
    job = prepared(dense, tmp_path, "modelopt", "nvfp4-3t", rules)
    for name, inner in (("config.json", "quantization_config"), ("hf_quant_config.json", "quantization")):
        section = json.loads(job.documents[name])[inner]
        assert section["quant_algo"] == "MIXED_PRECISION"
        layers = section["quantized_layers"]
        assert layers[DOWN] == {"quant_algo": "FP8"}
        assert layers["model.layers.0.self_attn.o_proj"] == {"quant_algo": "MXFP8", "group_size": 32}
        assert layers["model.layers.0.self_attn.q_proj"] == {"quant_algo": "W4A16_NVFP4", "group_size": 16}
        assert len(layers) == 14


@pytest.mark.parametrize(
    ("row", "algorithm"),
    [("fp8-tensor", "FP8"), ("fp8-channel", "FP8_PER_CHANNEL_PER_TOKEN"), ("fp8-block", "FP8_PB_WO")],
)
def test_one_algorithm_of_modelopt_is_that_of_all(tmp_path, tiled, row, algorithm):
    job = prepared(tiled, tmp_path, "modelopt", row)
    assert json.loads(job.documents["config.json"])["quantization_config"]["quant_algo"] == algorithm


def test_what_vllm_does_not_mix_is_refused(tmp_path, dense, tiled, experts):
    with pytest.raises(PlanError, match="takes fp8-block of NVIDIA ModelOpt for all layers or none"):
        prepared(tiled, tmp_path, "modelopt", "nvfp4-3t", (("*down_proj", "fp8-block"),))
    job = prepared(experts, tmp_path, "modelopt", "fp8-channel")
    assert {choice.format for choice in job.choices if choice.layer.role == "expert"} == {core.KEEP}
    with pytest.raises(PlanError, match="layout mlx can not store fp8-channel"):
        prepared(dense, tmp_path, "mlx", "fp8-channel")


def test_vllm_gets_whole_tiles_and_is_told_to_round_inputs(tmp_path, dense, tiled):
    for row, strategy in (("fp8-tensor", "tensor"), ("fp8-channel", "token"), ("fp8-block", "group")):
        for reader, told in (("vllm", strategy), ("transformers", None)):
            job = prepared(tiled, tmp_path, "compressed-tensors", row, reader=reader)
            section = json.loads(job.documents["config.json"])["quantization_config"]
            inputs = section["config_groups"]["group_0"]["input_activations"]
            assert (inputs and (inputs["strategy"], inputs["dynamic"])) == (told and (told, True))
    for layout in ("compressed-tensors", "modelopt"):
        with pytest.raises(PlanError, match="14 x vLLM runs fp8-block in whole tiles only"):
            prepared(dense, tmp_path, layout, "fp8-block", reader="vllm")


def test_rows_of_tiles_may_be_cut_where_nothing_is_joined(tmp_path):
    config = {**CONFIG, "hidden_size": 224, "intermediate_size": 384}
    with core.open_model(checkpoint(tmp_path / "m", llama(1, 224, 384), config)) as model:
        job = prepared(model, tmp_path, "compressed-tensors", "fp8-block", known=False, reader="vllm")
    assert {c.layer.name for c in job.choices if c.recipe} == {"model.layers.0.mlp.down_proj"}


def test_transformers_gets_experts_under_a_scale_per_row(tmp_path, experts):
    for row, kept in (("fp8-channel", "fp8-channel"), ("fp8-block", core.KEEP)):
        job = prepared(experts, tmp_path, "compressed-tensors", row, reader="transformers")
        assert {choice.format for choice in job.choices if choice.layer.role == "expert"} == {kept}


def test_looks_and_measurements_know_them(dense):
    layer = dense.by_name[DOWN]
    with core.start(core.Machine(threads=2), dense) as engine:
        for row in FORMATS:
            choice = core.choose_format(layer, row)
            detail = core.inspect_layer(engine, choice, core.choose_format(layer, "nvfp4-3t"))
            assert detail.a is not None
            measured = next(
                event.result for event in core.measure(engine, dense, [choice]) if isinstance(event, core.LayerDone)
            )
            assert detail.a.rel_err == pytest.approx(measured.rel_err, rel=1e-6)
            block = core.inspect_block(engine, choice, 0, 150, 20)
            with_others = core.inspect_block(engine, choice, 0, 200, 20)
            assert (block.scale == with_others.scale) == (row != "fp8-channel")
