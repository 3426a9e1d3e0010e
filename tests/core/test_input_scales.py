"""Inputs in four bits: every layer in NVFP4 gets a scale, from the largest inputs that statistics saw."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from studio import core
from studio.core.errors import CheckpointError, PlanError
from studio.core.exporting.contents import MANIFEST, SUMS
from studio.core.exporting.input_scales import FEW_TOKENS
from studio.core.statistics.digest import model_digest
from studio.core.statistics.file import Shape, write_statistics
from studio.core.statistics.inputs import BLOCK, COLUMNS, PAIRS, ROWS, LayerInputs
from tests.core.checkpoints import CONFIG, checkpoint, gaussian, llama, tensors_of

PLAN = core.preset("linear").with_activations("fp4")
EXPERT = "model.layers.{block}.mlp.experts.{expert}.{kind}_proj"
MIXTURE = {**CONFIG, "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_experts": 3}
STORED = {"modelopt": ("input_scale", ()), "compressed-tensors": ("input_global_scale", (1,))}
Known = Mapping[str, tuple[int, float]]


def mixture():
    found = {name: array for name, array in llama().items() if ".mlp." not in name}
    for block in range(2):
        found[f"model.layers.{block}.mlp.gate.weight"] = gaussian(3, 64)
        for expert in range(3):
            for kind, shape in (("gate", (32, 64)), ("up", (32, 64)), ("down", (64, 32))):
                name = EXPERT.format(block=block, expert=expert, kind=kind)
                found[f"{name}.weight"] = gaussian(*shape, seed=expert)
    return found


def statistics(model: core.Model, path: Path, known: Known, usual: tuple[int, float] = (1000, 8.0)) -> Path:
    """Statistics of all matrices: tokens and the largest input of each, `usual` where it is not in `known`."""
    shapes = [
        Shape((matrix.name,), matrix.columns, known.get(matrix.name, usual)[0])
        for layer in model.layers
        for matrix in layer.matrices
    ]

    def inputs(shape: Shape) -> LayerInputs:
        tokens, peak = known.get(shape.names[0], usual)
        peaks = np.linspace(peak / 4, peak, shape.columns, dtype=np.float32)
        moments = np.zeros((shape.columns // BLOCK, PAIRS), np.float32)
        moments[:, ROWS == COLUMNS] = 1
        return LayerInputs(tokens, np.ones(shape.columns, np.float32), peaks, moments)

    about = {"model_digest": model_digest(model), "text_digest": "", "seed": "0", "runtime": "none"}
    write_statistics(path, shapes, inputs, np.zeros((1, 16), np.int32), about)
    return path


def chosen(model, path, known, layout="modelopt", usual=(1000, 8.0)):
    guided = core.with_statistics(model, core.open_statistics(statistics(model, path, known, usual), model))
    row, reader = core.layout_for(layout, "vllm")
    choices, _ = core.fitted(row, reader, guided, core.resolve(PLAN, guided))
    found, told = core.with_input_scales(choices, row, "fp4")
    return {c.layer.name: c.input_scales for c in found if c.recipe}, told


@pytest.fixture
def dense(tmp_path):
    with core.open_model(checkpoint(tmp_path / "model")) as model:
        yield model


@pytest.fixture
def experts(tmp_path):
    with core.open_model(checkpoint(tmp_path / "mixture", mixture(), MIXTURE)) as model:
        yield model


def exported(model: core.Model, folder: Path, layout: str, plan: core.Plan = PLAN) -> Path:
    path = statistics(model, folder / "statistics", {"model.layers.1.mlp.down_proj": (1000, 31.0)})
    guided = core.with_statistics(model, core.open_statistics(path, model))
    target = folder / layout
    with core.start(core.Machine(threads=2), guided) as engine:
        for _ in core.export(
            engine, core.prepare(guided, plan, core.resolve(plan, guided), core.LAYOUTS[layout], target)
        ):
            pass
    return target


def test_a_scale_is_the_largest_input_over_2688(tmp_path, dense):
    found, told = chosen(dense, tmp_path / "s", {"model.layers.0.self_attn.o_proj": (1000, 5.0)})
    assert found["model.layers.0.self_attn.o_proj"] == (float(np.float32(5) / np.float32(2688)),)
    assert found["model.layers.1.self_attn.o_proj"] == (float(np.float32(8) / np.float32(2688)),)
    assert told == []


def test_fused_layers_share_the_largest(tmp_path, dense):
    found, _ = chosen(dense, tmp_path / "s", {"model.layers.0.self_attn.k_proj": (1000, 21.0)})
    block = {found[f"model.layers.0.self_attn.{name}_proj"] for name in "qkv"}
    assert block == {(float(np.float32(21) / np.float32(2688)),)}


def test_experts_that_saw_little_take_the_peak_of_their_peers_and_are_named(tmp_path, experts):
    one, few, none = (EXPERT.format(block=0, expert=expert, kind="down") for expert in range(3))
    known = {one: (500, 6.0), few: (FEW_TOKENS - 1, 2.0), none: (0, 0.0)}
    found, told = chosen(experts, tmp_path / "s", known)
    assert found[one] == found[few] == found[none] == (float(np.float32(6) / np.float32(2688)),)
    assert len(told) == 1
    assert few in told[0]
    assert none in told[0]
    assert one not in told[0]


def test_an_expert_that_saw_little_but_much_of_it_keeps_its_own(tmp_path, experts):
    few = EXPERT.format(block=1, expert=2, kind="down")
    found, _ = chosen(experts, tmp_path / "s", {few: (3, 99.0)})
    assert found[few] == (float(np.float32(99) / np.float32(2688)),)


def test_gate_and_up_of_an_expert_without_tokens_stay_equal(tmp_path, experts):
    gate, up = (EXPERT.format(block=0, expert=1, kind=kind) for kind in ("gate", "up"))
    other = EXPERT.format(block=0, expert=2, kind="up")
    found, _ = chosen(experts, tmp_path / "s", {gate: (0, 0.0), up: (0, 0.0), other: (1000, 40.0)})
    assert found[gate] == found[up] == (float(np.float32(40) / np.float32(2688)),)


def test_a_layer_of_which_nothing_is_known_takes_the_peak_of_other_blocks(tmp_path, dense):
    found, told = chosen(dense, tmp_path / "s", {"model.layers.1.mlp.down_proj": (0, 0.0)})
    assert found["model.layers.1.mlp.down_proj"] == found["model.layers.0.mlp.down_proj"]
    assert "model.layers.1.mlp.down_proj" in told[0]


def test_a_layer_without_peers_is_refused_by_name(tmp_path, dense):
    names = [f"model.layers.{block}.mlp.down_proj" for block in range(2)]
    with pytest.raises(PlanError, match=r"nothing is known of its inputs") as caught:
        chosen(dense, tmp_path / "s", dict.fromkeys(names, (0, 0.0)))
    assert caught.value.tensor == names[0]


def test_without_statistics_the_command_that_makes_them_is_named(tmp_path, dense):
    with pytest.raises(PlanError) as caught:
        core.prepare(dense, PLAN, core.resolve(PLAN, dense), core.LAYOUTS["modelopt"], tmp_path / "out")
    assert "nvfp4-studio calibrate" in caught.value.hint


def test_a_layout_without_a_place_for_scales_is_refused(tmp_path, dense):
    with pytest.raises(PlanError, match="mlx has no place") as caught:
        core.prepare(dense, PLAN, core.resolve(PLAN, dense), core.LAYOUTS["mlx"], tmp_path / "out")
    assert "modelopt, compressed-tensors" in caught.value.hint


@pytest.mark.parametrize("layout", STORED)
def test_every_layer_in_nvfp4_is_stored_with_its_scale(tmp_path, dense, layout):
    name, shape = STORED[layout]
    folder = exported(dense, tmp_path, layout)
    found = tensors_of(folder / "model.safetensors")
    weights = [tensor for tensor in found if tensor.endswith(("weight_scale_2", "weight_global_scale"))]
    scales = [tensor for tensor in found if tensor.endswith(name)]
    assert len(scales) == len(weights) == 14
    assert all((found[tensor].dtype, found[tensor].shape) == ("F32", shape) for tensor in scales)
    stored = _number(folder, f"model.layers.1.mlp.down_proj.{name}")
    assert stored == pytest.approx(31 / 2688 if layout == "modelopt" else 2688 / 31, rel=1e-6)


def test_the_configs_say_that_inputs_are_quantized(tmp_path, dense):
    modelopt = exported(dense, tmp_path, "modelopt")
    section = json.loads((modelopt / "config.json").read_text())["quantization_config"]
    beside = json.loads((modelopt / "hf_quant_config.json").read_text())["quantization"]
    assert section["quant_algo"] == beside["quant_algo"] == "NVFP4"
    assert section["config_groups"]["group_0"]["input_activations"]["num_bits"] == 4
    tensors = exported(dense, tmp_path, "compressed-tensors")
    group = json.loads((tensors / "config.json").read_text())["quantization_config"]["config_groups"]["group_0"]
    assert group["input_activations"]["dynamic"] == "local"


@pytest.mark.parametrize("layout", STORED)
def test_an_export_is_read_back_with_its_scales(tmp_path, dense, layout):
    folder = exported(dense, tmp_path, layout)
    with core.start(core.Machine(threads=2), dense) as engine:
        list(core.verify(engine, folder, dense))
    with core.open_model(folder) as opened:
        known = core.exported(opened)
        assert known is not None
        assert all(len(choice.input_scales) == 1 for choice in known.choices if choice.recipe)


@pytest.mark.parametrize("layout", STORED)
def test_another_scale_in_the_file_is_found(tmp_path, dense, layout):
    folder = exported(dense, tmp_path, layout)
    path, tensor = folder / "model.safetensors", f"model.layers.1.mlp.down_proj.{STORED[layout][0]}"
    start = tensors_of(path)[tensor].start
    data = bytearray(path.read_bytes())
    data[start : start + 4] = struct.pack("<f", 0.5)
    path.write_bytes(data)
    signed(folder)
    with core.start(core.Machine(threads=2), dense) as engine, pytest.raises(CheckpointError, match="of its inputs"):
        list(core.verify(engine, folder))


def test_a_manifest_that_forgets_the_scales_is_malformed(tmp_path, dense):
    folder = exported(dense, tmp_path, "modelopt")
    manifest = folder / MANIFEST
    text = manifest.read_text()
    start = text.index(',"input_scales":[')
    manifest.write_text(text[:start] + text[text.index("]", start) + 1 :])
    signed(folder)
    with core.start(core.Machine(threads=2), dense) as engine, pytest.raises(CheckpointError, match="malformed"):
        list(core.verify(engine, folder))


def converted(folder: Path, layout: str, target: Path) -> tuple[Path, list[str]]:
    with core.open_model(folder) as model, core.start(core.Machine(threads=2), model) as engine:
        *_, ended = core.transcode(engine, model, core.TARGETS[layout])
        assert isinstance(ended, core.Transcoded)
        found = ended.transcoding
        for _ in core.export(engine, core.prepare_conversion(model, found, core.TARGETS[layout], target)):
            pass
    return target, found.sentences()


def test_a_conversion_carries_the_scales_over_and_back(tmp_path, dense):
    first = exported(dense, tmp_path, "modelopt")
    second, _ = converted(first, "compressed-tensors", tmp_path / "second")
    third, _ = converted(second, "modelopt", tmp_path / "third")
    name = "model.layers.1.mlp.down_proj"
    assert _number(second, f"{name}.input_global_scale") == pytest.approx(2688 / 31, rel=1e-6)
    assert _number(third, f"{name}.input_scale") == pytest.approx(_number(first, f"{name}.input_scale"), rel=2e-7)
    section = json.loads((third / "config.json").read_text())["quantization_config"]
    assert section["quant_algo"] == "NVFP4"


def test_a_conversion_says_where_the_scales_stay_behind(tmp_path, dense):
    first = exported(dense, tmp_path, "modelopt")
    target, told = converted(first, "mlx", tmp_path / "mlx")
    assert any("the layout mlx has no place for them" in sentence for sentence in told)
    assert not [name for name in tensors_of(target / "model.safetensors") if "input" in name.rpartition(".")[2]]


def foreign(folder: Path) -> Path:
    """A folder as others leave it."""
    for name in (MANIFEST, SUMS):
        (folder / name).unlink()
    return folder


def inputs_of(folder: Path, layout: str) -> dict[str, np.float32]:
    """Module -> the number that is stored for its inputs."""
    leaf, found = STORED[layout][0], tensors_of(folder / "model.safetensors")
    return {name.rpartition(".")[0]: np.float32(_number(folder, name)) for name in found if name.endswith(f".{leaf}")}


def redraw_inputs(folder: Path, layout: str) -> None:
    """Any numbers as scales of inputs, as other programs have them."""
    path = folder / "model.safetensors"
    raw, chance = bytearray(path.read_bytes()), np.random.default_rng(5)
    for name, tensor in tensors_of(path).items():
        if name.endswith(f".{STORED[layout][0]}"):
            raw[tensor.start : tensor.start + 4] = np.float32(2.0 ** chance.uniform(-12, 12)).tobytes()
    path.write_bytes(raw)


@pytest.mark.parametrize(("layout", "other"), [("modelopt", "compressed-tensors"), ("compressed-tensors", "modelopt")])
def test_scales_of_inputs_of_others_go_from_layout_to_layout_and_what_is_rounded_is_told(
    tmp_path, dense, layout, other
):
    first = foreign(exported(dense, tmp_path, layout))
    redraw_inputs(first, layout)
    before = inputs_of(first, layout)
    with core.open_model(first) as model:
        assert "14 layers have scales for their inputs: convert carries them over, weights alone are quantized" in (
            model.warnings
        )
    same, told = converted(first, layout, tmp_path / "same")
    assert inputs_of(same, layout) == before
    assert not any("scales of inputs" in sentence for sentence in told)
    there, told = converted(first, other, tmp_path / "there")
    after = inputs_of(there, other)
    one = np.float32(1)
    odd = [name for name, stored in before.items() if one / stored != after[name] or one / after[name] != stored]
    for name, stored in before.items():
        assert abs(float(after[name]) * float(stored) - 1) < 2e-7
    assert 0 < len(odd) < len(before) == 14
    assert f"{len(odd)} scales of inputs read up to one unit in the last place of float32 off" in told
    section = json.loads((there / "config.json").read_text())["quantization_config"]
    assert (section.get("quant_algo") == "NVFP4") == (other == "modelopt")


@pytest.mark.parametrize(
    ("number", "words"), [(0.0, "is not usable"), (np.nan, "is not usable"), (None, "not all layers")]
)
def test_scales_of_inputs_that_are_no_scales_are_left_out_with_the_reason(tmp_path, dense, number, words):
    first = foreign(exported(dense, tmp_path, "modelopt"))
    path, name = first / "model.safetensors", "model.layers.0.self_attn.o_proj.input_scale"
    raw = bytearray(path.read_bytes())
    if number is None:
        raw = raw.replace(name.encode(), name.replace("input_scale", "input_other").encode())
    else:
        start = tensors_of(path)[name].start
        raw[start : start + 4] = struct.pack("<f", number)
    path.write_bytes(raw)
    target, told = converted(first, "compressed-tensors", tmp_path / "out")
    assert any(words in one and one.startswith("scales of inputs are left out") for one in told), told
    assert not inputs_of(target, "compressed-tensors")


def test_lifting_and_scales_of_inputs_exclude_each_other(tmp_path, dense):
    path = statistics(dense, tmp_path / "s", {})
    guided = core.with_statistics(dense, core.open_statistics(path, dense))
    plan = PLAN.with_format("nvfp4-2t")
    choices = core.resolve(plan, guided)
    with pytest.raises(PlanError, match="lifting divides inputs"):
        core.prepare(guided, plan, choices, core.LAYOUTS["modelopt"], tmp_path / "out", lifting=core.Lifting())


def test_a_plan_says_what_becomes_of_inputs(tmp_path):
    core.save_plan(PLAN, tmp_path / "plan.json")
    assert core.load_plan(tmp_path / "plan.json") == PLAN
    assert "activations" not in core.preset("linear").to_json()
    with pytest.raises(PlanError, match="activations"):
        core.plan_from_json({**core.Plan(()).to_json(), "activations": "int3"})


def test_the_command_line_writes_them(tmp_path, studio):
    source = checkpoint(tmp_path / "model")
    with core.open_model(source) as model:
        path = statistics(model, tmp_path / "s", {"model.layers.0.mlp.down_proj": (0, 0.0)})
    options = ("--layout", "modelopt", "--activations", "fp4", "--statistics", path)
    planned = studio("plan", source, *options)
    assert planned.code == 0
    ran = studio("quantize", source, tmp_path / "out", *options)
    assert ran.code == 0
    assert "take the scale of their peers" in planned.err
    assert "model.layers.0.mlp.down_proj" in ran.err
    assert "quantized inputs" in ran.out
    refused = studio("quantize", source, tmp_path / "none", "--layout", "modelopt", "--activations", "fp4")
    assert refused.code == 2
    assert "nvfp4-studio calibrate" in refused.err
    assert studio("gguf", source, tmp_path / "m.gguf", "--activations", "fp4").code == 2


def _number(folder: Path, tensor: str) -> float:
    path = folder / "model.safetensors"
    start = tensors_of(path)[tensor].start
    return float(struct.unpack("<f", path.read_bytes()[start : start + 4])[0])


def signed(folder: Path) -> None:
    """Digests of what lies in the folder now."""
    from studio.core.containers.files import SourceFile
    from studio.core.exporting.contents import sums
    from studio.core.exporting.readback import sha256

    digests = {}
    for path in sorted(folder.iterdir()):
        if path.name != SUMS:
            with SourceFile(path) as file:
                digests[path.name] = sha256(file)
    (folder / SUMS).write_bytes(sums(digests))
