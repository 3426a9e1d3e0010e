"""Stock mlx-lm loads and generates from the mlx exports, and computes what the decoded weights say."""

import json

import pytest

from studio import core
from tests.runtimes.worker import RuntimeFailedError

TOKENS = [(137 * i + 11) % 4096 for i in range(24)]
TIGHT = 1e-5
BF16_NOISE = 0.2
"""Activations in bf16 change the logits of such small models by this much; the tight bound is taken in float32."""

TWO_TIERS_AND_OTHERS = ("nvfp4-2t", "mxfp4", "mxfp8", "int4-g32", "int4-g64", "int8-g64", "int8-g128")
CHECKPOINTS = ("demo", "llama", "moe", "stacked")
LARGEST_ERROR = {
    "nvfp4-2t": 0.11,
    "nvfp4-3t": 0.11,
    "mxfp4": 0.14,
    "mxfp8": 0.04,
    "int4-g32": 0.1,
    "int4-g64": 0.11,
    "int8-g64": 0.01,
    "int8-g128": 0.01,
}
MIX = (
    ("*layers.0.mlp.down_proj", "mxfp8"),
    ("*layers.1.mlp.*", "int8-g64"),
    ("*.o_proj", "keep"),
    ("*layers.2.mlp.gate_proj", "nvfp4-3t"),
    ("*layers.2.mlp.up_proj", "nvfp4-3t"),
)
MOE_MIX = (
    ("*layers.0.mlp.experts*", "mxfp8"),
    ("*layers.1.mlp.experts*", "int8-g64"),
    ("*layers.1.self_attn.v_proj", "keep"),
)


def formats_of(row, rules=()):
    return [*[[pattern.replace(".experts", ".switch_mlp"), name] for pattern, name in rules], ["*", row]]


def assert_agrees(answer):
    assert answer["difference"] < TIGHT
    assert answer["as_stored_difference"] < BF16_NOISE
    assert answer["argmax"] >= 0.8
    assert answer["text"]


@pytest.mark.sampled(10)
@pytest.mark.parametrize("row", TWO_TIERS_AND_OTHERS)
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_logits_are_those_of_the_decoded_weights(name, row, export, mlx_lm):
    # blocks of 128 do not fit the experts, which are kept; mlx multiplies dense experts on a CPU in float32 only
    dense_experts = row == "int8-g128" and name in ("moe", "stacked")
    folder = export(name, "mlx", row)
    answer = mlx_lm.ask("compare", folder=folder, formats=formats_of(row), tokens=TOKENS, as_stored=not dense_experts)
    assert_agrees(answer)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_lifted_two_tiers_run_as_their_decoded_weights(name, export, mlx_lm):
    folder = export(name, "mlx", "nvfp4-2t", lift=True)
    answer = mlx_lm.ask("compare", folder=folder, formats=formats_of("nvfp4-2t"), tokens=TOKENS)
    assert_agrees(answer)
    assert sum(layer.lift != 0 for layer in core.exported_results(folder)) > 10


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_three_tiers_run_through_the_model_file(name, export, mlx_lm):
    folder = export(name, "mlx", "nvfp4-3t")
    answer = mlx_lm.ask("compare", folder=folder, formats=formats_of("nvfp4-3t"), tokens=TOKENS, trust=True)
    assert_agrees(answer)


@pytest.mark.parametrize("name", ["demo", "moe"])
def test_three_tiers_are_refused_by_mlx_lm_without_trust_remote_code(name, export, mlx_lm):
    with pytest.raises(RuntimeFailedError, match="trust_remote_code"):
        mlx_lm.ask("load", folder=export(name, "mlx", "nvfp4-3t"))


@pytest.mark.sampled(5)
@pytest.mark.parametrize(
    ("row", "rounded"), [("nvfp4-2t", True), ("nvfp4-3t", True), ("mxfp8", True), ("int8-g64", False)]
)
@pytest.mark.parametrize("name", ["demo", "llama", "moe"])
def test_the_whole_model_runs_quantized_embedding_and_head_included(name, row, rounded, export, mlx_lm):
    answer = mlx_lm.ask(
        "compare",
        folder=export(name, "mlx", row, "all"),
        formats=formats_of(row),
        tokens=TOKENS,
        trust=row == "nvfp4-3t",
        rounded_embedding=rounded,
    )
    assert_agrees(answer)


def test_layers_of_one_model_run_in_different_formats(export, mlx_lm):
    folder = export("demo", "mlx", "nvfp4-2t", rules=MIX)
    answer = mlx_lm.ask("compare", folder=folder, formats=formats_of("nvfp4-2t", MIX), tokens=TOKENS, trust=True)
    assert_agrees(answer)
    layers = answer["layers"]
    assert _kind(layers["model.layers.0.mlp.down_proj"]) == ("QuantizedLinear", "mxfp8", 8, 32)
    assert _kind(layers["model.layers.1.mlp.up_proj"]) == ("QuantizedLinear", "affine", 8, 64)
    assert _kind(layers["model.layers.0.mlp.up_proj"]) == ("QuantizedLinear", "nvfp4", 4, 16)
    assert layers["model.layers.0.self_attn.o_proj"]["class"] == "Linear"
    assert layers["model.embed_tokens"]["class"] == "Embedding"


def test_a_mix_without_three_tiers_needs_no_trust(export, mlx_lm):
    rules = MIX[:3]
    folder = export("demo", "mlx", "nvfp4-2t", rules=rules)
    assert_agrees(mlx_lm.ask("compare", folder=folder, formats=formats_of("nvfp4-2t", rules), tokens=TOKENS))


@pytest.mark.parametrize("name", ["moe", "stacked"])
@pytest.mark.parametrize("row", ["nvfp4-2t", "nvfp4-3t"])
def test_experts_run_in_another_format_than_attention(name, row, export, mlx_lm):
    folder = export(name, "mlx", row, rules=MOE_MIX)
    answer = mlx_lm.ask(
        "compare", folder=folder, formats=formats_of(row, MOE_MIX), tokens=TOKENS, trust=row == "nvfp4-3t"
    )
    assert_agrees(answer)
    experts = [answer["layers"][f"model.layers.{block}.mlp.switch_mlp.up_proj"] for block in (0, 1)]
    assert [_kind(layer) for layer in experts] == [
        ("QuantizedSwitchLinear", "mxfp8", 8, 32),
        ("QuantizedSwitchLinear", "affine", 8, 64),
    ]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["moe", "stacked"])
@pytest.mark.parametrize("kept", ["*experts*", "*experts*down_proj", "*experts*gate*"])
def test_kept_experts_run_beside_quantized_layers(name, kept, export, mlx_lm):
    folder = export(name, "mlx", "nvfp4-2t", rules=((kept, "keep"),))
    # mlx multiplies dense experts on a CPU in float32 only
    answer = mlx_lm.ask("compare", folder=folder, formats=formats_of("nvfp4-2t"), tokens=TOKENS, as_stored=False)
    assert_agrees(answer)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("row", LARGEST_ERROR)
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_decoded_weight_is_near_the_source_weight_that_mlx_lm_expects_there(
    name, row, export, checkpoints, mlx_lm
):
    source = checkpoints["moe" if name == "stacked" else name]
    found = mlx_lm.ask("errors", folder=export(name, "mlx", row), formats=formats_of(row), source=source)
    assert 0 < max(found.values()) < LARGEST_ERROR[row]
    assert {path for path, error in found.items() if error == 0} >= {"model.embed_tokens.weight", "model.norm.weight"}


@pytest.mark.parametrize(("name", "expected"), [("demo", 10000.0), ("llama", 20000.0), ("moe", 50000.0)])
def test_mlx_lm_finds_the_rotary_base_and_the_number_of_experts(name, expected, export, mlx_lm):
    folder = export(name, "mlx", "nvfp4-2t")
    found = mlx_lm.ask("compare", folder=folder, formats=formats_of("nvfp4-2t"), tokens=TOKENS)["arguments"]
    assert found == {"rope_theta": expected, "num_experts": 4 if name == "moe" else None}


def test_both_quantization_sections_are_equal(export):
    config = json.loads((export("demo", "mlx", "nvfp4-2t", rules=MIX[:3]) / "config.json").read_text())
    assert config["quantization"] == config["quantization_config"]
    assert {key: config["quantization"][key] for key in ("group_size", "bits", "mode")} == {
        "group_size": 16,
        "bits": 4,
        "mode": "nvfp4",
    }


def _kind(layer):
    return layer["class"], layer["mode"], layer["bits"], layer["group_size"]
