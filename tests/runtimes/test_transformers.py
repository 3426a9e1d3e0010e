"""transformers with compressed-tensors loads the exports, and the converter of that package reads ModelOpt exports."""

import json

import numpy as np
import pytest

from tests.runtimes.decoding import compressed_tensors_weights, modelopt_weights, read_arrays
from tests.runtimes.worker import RuntimeFailedError

TOKENS = [(137 * i + 11) % 4096 for i in range(24)]
TARGETS = ["re:.*(q|k|v|o|gate|up|down)_proj$"]
NVFP4 = ("nvfp4-2t", "nvfp4-3t")
BF16_NOISE = 0.05


def assert_agrees(answer, share=0.01):
    """Weights equal in the runtime's own order, code x (scale / divisor); a `share` of ours is one bf16 step away."""
    assert answer["differing"] == {}
    assert answer["steps"] <= 1
    assert answer["elsewhere"] <= share * answer["count"]
    assert answer["widened_difference"] < 0.01
    assert answer["difference"] < BF16_NOISE
    assert answer["argmax"] >= 0.85
    assert len(answer["generated"]) > 4
    assert answer["report"] == {}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("row", NVFP4)
@pytest.mark.parametrize("name", ["demo", "llama"])
def test_a_dense_model_loads_with_our_weights(name, row, export, transformers):
    answer = transformers.ask("compare", folder=export(name, "compressed-tensors", row), tokens=TOKENS)
    assert_agrees(answer)
    assert len(answer["modules"]) == len({name for name in answer["modules"] if name.endswith("_proj")})


@pytest.mark.parametrize("name", ["moe", "stacked"])
def test_experts_of_two_tiers_load_with_our_weights(name, export, transformers):
    folder = export(name, "compressed-tensors", "nvfp4-2t")
    assert_agrees(transformers.ask("compare", folder=folder, tokens=TOKENS))


@pytest.mark.parametrize("name", ["demo", "llama"])
def test_lifted_two_tiers_load_with_our_weights(name, export, transformers):
    folder = export(name, "compressed-tensors", "nvfp4-2t", lift=True)
    assert_agrees(transformers.ask("compare", folder=folder, tokens=TOKENS))


@pytest.mark.parametrize("name", ["moe", "stacked"])
def test_transformers_drops_the_tensor_scale_of_experts_and_the_export_warns_of_it(name, export, transformers):
    """A fault of transformers 5.23: experts come out too large by the stored divisor. When it is mended, this fails."""
    folder = export(name, "compressed-tensors", "nvfp4-3t", reader="vllm")
    answer = transformers.ask("compare", folder=folder, tokens=TOKENS)
    divisors = {module: read_arrays(folder)[f"{module}.weight_global_scale"][0] for module in answer["differing"]}
    assert divisors
    assert all(".experts." in module for module in divisors)
    assert {module: pytest.approx(float(d), rel=4e-3) for module, d in divisors.items()} == answer["differing"]
    card = (folder / "README.md").read_text()
    assert "load this export with vLLM" in card
    assert "does not run it, it drops the tensor scale of experts" in card


@pytest.mark.parametrize("name", ["moe", "stacked"])
def test_experts_come_in_the_two_tiers_that_transformers_reads_unless_it_is_for_vllm(name, export, transformers):
    folder = export(name, "compressed-tensors", "nvfp4-3t")
    assert_agrees(transformers.ask("compare", folder=folder, tokens=TOKENS))


@pytest.mark.parametrize("name", ["demo", "llama"])
def test_it_runs_without_being_dequantized_first(name, export, transformers):
    folder = export(name, "compressed-tensors", "nvfp4-3t")
    answer = transformers.ask("compare", folder=folder, tokens=TOKENS, dequantize=False)
    assert answer["difference"] < BF16_NOISE
    assert answer["quantized"]
    assert not any(name.endswith(("lm_head", "embed_tokens")) for name in answer["quantized"])


def test_a_head_of_its_own_runs_quantized(export, transformers):
    folder = export("llama", "compressed-tensors", "nvfp4-3t", rules=(("lm_head", "nvfp4-3t"),))
    answer = transformers.ask("compare", folder=folder, tokens=TOKENS)
    assert_agrees(answer)
    assert "lm_head" in answer["modules"]
    assert "lm_head" not in _section(folder)["ignore"]


@pytest.mark.parametrize(("name", "routers"), [("demo", 0), ("llama", 0), ("moe", 2), ("stacked", 2)])
def test_the_compressed_tensors_section_says_weights_only_and_names_every_kept_module(name, routers, export):
    section = _section(export(name, "compressed-tensors", "nvfp4-3t"))
    kept = section.pop("ignore")
    assert {"lm_head", "model.embed_tokens"} <= set(kept)
    plain = [name for name in kept if not name.startswith("re:")]
    assert len(plain) == 2 + routers
    assert len(kept) > len(plain)
    weights = {
        "num_bits": 4,
        "type": "float",
        "symmetric": True,
        "strategy": "tensor_group",
        "group_size": 16,
        "dynamic": False,
        "scale_dtype": "torch.float8_e4m3fn",
    }
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    assert section == {
        "config_groups": {"group_0": {"format": "nvfp4-pack-quantized", **group}},
        "format": "nvfp4-pack-quantized",
        "global_compression_ratio": None,
        "kv_cache_scheme": None,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "version": "0.20.0",
    }


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", ["demo", "moe"])
@pytest.mark.parametrize("row", NVFP4)
def test_the_converter_of_compressed_tensors_reads_the_modelopt_export(name, row, export, transformers, tmp_path):
    source, target = export(name, "modelopt", row), tmp_path / "converted"
    assert transformers.ask("convert", folder=source, target=target, targets=TARGETS)
    converted = compressed_tensors_weights(read_arrays(target))
    ours = modelopt_weights(read_arrays(source))
    assert converted.keys() == ours.keys()
    for key, weight in ours.items():
        np.testing.assert_array_max_ulp(converted[key], weight, 2 if row == "nvfp4-3t" else 0)
    codes = {key: array for key, array in read_arrays(source).items() if array.dtype == np.uint8}
    there = read_arrays(target)
    for key, array in codes.items():
        stored = there[key if key.endswith("_scale") else f"{key}_packed"]
        np.testing.assert_array_equal(stored, array)
    if name == "demo" or row == "nvfp4-2t":
        # the converter stores divisors without dimensions, and torch then divides block scales in bf16
        share = 0.2 if row == "nvfp4-3t" else 0
        assert_agrees(transformers.ask("compare", folder=target, tokens=TOKENS), share)


def test_the_unchanged_converter_asks_for_activation_scales(export, transformers, tmp_path):
    """Stated in the limits: compressed-tensors 0.20.0 converts W4A4 checkpoints only."""
    with pytest.raises(RuntimeFailedError, match="input_scale"):
        transformers.ask(
            "convert_as_it_is",
            folder=export("demo", "modelopt", "nvfp4-3t"),
            target=tmp_path / "converted",
            targets=TARGETS,
        )


@pytest.mark.parametrize("name", ["demo", "llama", "moe"])
def test_both_modelopt_files_say_the_same(name, export):
    folder = export(name, "modelopt", "nvfp4-3t")
    beside = json.loads((folder / "hf_quant_config.json").read_text())
    section = _section(folder)
    weights = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16}
    producer = {"name": "modelopt", "version": "0.47.0"}
    assert section == {
        "config_groups": {"group_0": {"weights": weights, "targets": ["Linear"]}},
        "ignore": section["ignore"],
        "quant_algo": "W4A16_NVFP4",
        "producer": producer,
        "quant_method": "modelopt",
    }
    quantization = {"quant_algo": "W4A16_NVFP4", "kv_cache_quant_algo": None, "group_size": 16}
    assert beside == {"producer": producer, "quantization": {**quantization, "exclude_modules": section["ignore"]}}
    assert "lm_head" in section["ignore"]
    assert ("model.layers.0.mlp.gate" in section["ignore"]) == (name == "moe")


@pytest.mark.parametrize("layout", ["modelopt", "compressed-tensors"])
def test_two_tiers_carry_a_tensor_scale_of_one(layout, export):
    arrays = read_arrays(export("demo", layout, "nvfp4-2t"))
    scales = [a for name, a in arrays.items() if name.endswith(("weight_scale_2", "weight_global_scale"))]
    assert scales
    assert all(float(scale.reshape(-1)[0]) == 1 for scale in scales)


def _section(folder):
    return json.loads((folder / "config.json").read_text())["quantization_config"]
