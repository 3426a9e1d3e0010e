"""Several schemes in one config of compressed-tensors: every module is in one group, under the names of any runtime."""

import json
import re
from pathlib import Path

import pytest

from studio import core
from studio.core.errors import PlanError
from tests.core.checkpoints import checkpoint, llama, tensors_of
from tests.core.test_input_scales import MIXTURE, mixture

MIX = (("*down_proj", "mxfp8"), ("model.layers.1.self_attn.o_proj", "mxfp4"))
PREFIXES = ("", "language_model.", "model.language_model.")


def prepared(model: core.Model, target: Path, row: str, rules=(), reader: str = "") -> core.Export:
    plan = core.preset("linear").with_format(row)
    plan = plan.preceded_by([core.Rule(names=(name,), format=form) for name, form in rules])
    return core.prepare(
        model, plan, core.resolve(plan, model), core.LAYOUTS["compressed-tensors"], target, reader=reader
    )


def section(job: core.Export):
    return json.loads(job.documents["config.json"])["quantization_config"]


def matching(found, name: str) -> list[str]:
    """The formats of the groups that a name belongs to."""
    return [
        group["format"]
        for group in found["config_groups"].values()
        if any(re.match(target.removeprefix("re:"), name) for target in group["targets"])
    ]


@pytest.fixture
def dense(tmp_path):
    with core.open_model(checkpoint(tmp_path / "model", llama())) as model:
        yield model


@pytest.fixture
def experts(tmp_path):
    with core.open_model(checkpoint(tmp_path / "mixture", mixture(), MIXTURE)) as model:
        yield model


def test_each_module_belongs_to_one_group_whatever_its_prefix(tmp_path, dense):
    job = prepared(dense, tmp_path / "out", "nvfp4-3t", MIX)
    found = section(job)
    assert found["format"] == "mixed-precision"
    names = {
        "nvfp4-3t": "nvfp4-pack-quantized",
        "mxfp8": "mxfp8-quantized",
        "mxfp4": "mxfp4-pack-quantized",
    }
    for choice in job.choices:
        for prefix in PREFIXES:
            wanted = [names[choice.format]] if choice.recipe else []
            assert matching(found, prefix + choice.layer.name) == wanted


def test_one_scheme_alone_is_for_all_linear_layers(tmp_path, dense):
    found = section(prepared(dense, tmp_path / "out", "nvfp4-3t", (("*o_proj", "nvfp4-2t"),)))
    assert found["format"] == "nvfp4-pack-quantized"
    assert [group["targets"] for group in found["config_groups"].values()] == [["Linear"]]


def test_experts_of_other_blocks_are_told_apart_by_their_numbers(tmp_path, experts):
    rules = (("model.layers.1.mlp.experts.*", "mxfp4"),)
    found = section(prepared(experts, tmp_path / "out", "nvfp4-3t", rules, reader="vllm"))
    targets = [target for group in found["config_groups"].values() for target in group["targets"]]
    assert len(targets) < 12  # a kind is one expression for each group, not one for every expert
    assert matching(found, "model.layers.0.mlp.experts.2.up_proj") == ["nvfp4-pack-quantized"]
    assert matching(found, "model.layers.1.mlp.experts.2.up_proj") == ["mxfp4-pack-quantized"]
    assert matching(found, "model.layers.11.mlp.experts.2.up_proj") == []


@pytest.mark.parametrize("row", ["mxfp4", "mxfp8"])
def test_exponents_are_stored_as_the_package_names_them(tmp_path, dense, row):
    job = prepared(dense, tmp_path / "out", row)
    with core.start(core.Machine(threads=2), dense) as engine:
        list(core.export(engine, job))
        list(core.verify(engine, tmp_path / "out", dense))
    found = tensors_of(tmp_path / "out" / "model.safetensors")
    codes = {"mxfp4": ("weight_packed", "U8", (64, 64)), "mxfp8": ("weight", "F8_E4M3", (64, 128))}[row]
    down = "model.layers.0.mlp.down_proj"
    assert (found[f"{down}.{codes[0]}"].dtype, found[f"{down}.{codes[0]}"].shape) == codes[1:]
    assert (found[f"{down}.weight_scale"].dtype, found[f"{down}.weight_scale"].shape) == ("U8", (64, 4))
    with core.open_model(tmp_path / "out") as opened:
        assert {layer.source.format.name for layer in opened.layers if layer.source.format} == {row}


def test_mx_codes_are_handed_on_as_they_are(tmp_path, dense):
    """An export for MLX and back: the codes of every layer are the ones that it had."""
    with core.start(core.Machine(threads=2), dense) as engine:
        list(core.export(engine, prepared(dense, tmp_path / "first", "mxfp8")))
    for layout, before, after in (("mlx", "first", "second"), ("compressed-tensors", "second", "third")):
        with core.open_model(tmp_path / before) as model, core.start(core.Machine(threads=2), model) as engine:
            *_, ended = core.transcode(engine, model, core.LAYOUTS[layout])
            assert ended.transcoding.losses == ()
            target = tmp_path / after
            list(core.export(engine, core.prepare_conversion(model, ended.transcoding, core.LAYOUTS[layout], target)))
    first, third = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "third"))
    assert first == third


def test_transformers_gets_no_experts_that_it_can_not_read(tmp_path, experts):
    job = prepared(experts, tmp_path / "out", "mxfp8", reader="transformers")
    assert {choice.format for choice in job.choices if choice.layer.role == "expert"} == {core.KEEP}
    assert {choice.format for choice in job.choices if choice.layer.role == "linear"} == {"mxfp8"}
    with pytest.raises(PlanError, match="all experts by one scheme"):
        prepared(
            experts, tmp_path / "out", "mxfp4", (("*experts*up_proj", "nvfp4-2t"), ("*experts*gate_proj", "nvfp4-2t"))
        )


def test_llama_cpp_gets_nvfp4_alone(tmp_path, dense):
    job = prepared(dense, tmp_path / "out", "nvfp4-3t", (("*o_proj", "mxfp4"),), reader="llama.cpp")
    assert {choice.format for choice in job.choices if choice.layer.name.endswith("o_proj")} == {core.KEEP}
    claims = [str(claim) for claim in prepared(dense, tmp_path / "out", "mxfp4").claims]
    assert any("its converter does not read mxfp4" in text for text in claims)
    assert any("mlx-vlm" in text and "does not read mxfp4 of compressed-tensors" in text for text in claims)
    claims = [str(claim) for claim in prepared(dense, tmp_path / "out", "fp8-tensor").claims]
    assert any("mlx-vlm" in text and "nothing in fp8-tensor was run there" in text for text in claims)


def test_what_rounds_inputs_is_said_of_transformers_too(tmp_path, dense):
    told = {}
    for reader in ("transformers", "vllm"):
        job = prepared(dense, tmp_path / "out", "fp8-channel", reader=reader)
        told[reader] = next(str(claim) for claim in job.claims if claim.runtime.startswith("transformers"))
    assert all("runs" in text for text in told.values())
    assert "inputs quantized as it runs" in told["vllm"]
    assert "inputs" not in told["transformers"]


def test_transformers_does_not_find_plain_experts_beside_packed_layers(tmp_path, experts):
    told = {}
    for name in ("nvfp4-2t", "int4-sym-g32", "fp8-channel"):
        for kept in ("*experts*", "*layers.0*experts*", "*o_proj"):
            claims = prepared(experts, tmp_path / "out", name, ((kept, core.KEEP),), reader="vllm").claims
            told[name, kept] = next(str(claim) for claim in claims if claim.runtime.startswith("transformers"))
    for (name, kept), text in told.items():
        fails = "experts" in kept and name != "fp8-channel"
        assert ("finds no plain experts like" in text) is fails, (name, kept, text)
        assert (f"beside layers in {name}" in text) is fails, (name, kept, text)
    with pytest.raises(core.PlanError, match=r"no plain experts like .* quantize those, too, or --for vllm"):
        prepared(experts, tmp_path / "out", "nvfp4-2t", (("*layers.0*experts*", core.KEEP),))
    claims = prepared(experts, tmp_path / "out", "mxfp8", reader="vllm").claims
    assert any("it does not read experts in mxfp8; --for transformers" in str(claim) for claim in claims)


def test_vllm_runs_fp8_with_quantized_inputs_only(tmp_path, dense):
    found = {}
    for reader in ("vllm", "transformers"):
        job = prepared(dense, tmp_path / "out", "fp8-channel", reader=reader)
        found[reader] = next(str(claim) for claim in job.claims if claim.runtime.startswith("vLLM"))
    assert "runs (llama, loss within 0.01" in found["vllm"]
    assert found["transformers"].endswith("FP8 ran there with quantized inputs only; --for vllm asks for them")
