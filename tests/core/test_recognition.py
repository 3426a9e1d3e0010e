"""Tensors decide what a checkpoint is: what can not be read for certain is refused by name, leftovers are not."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from studio import core
from tests.core.checkpoints import BF16, CONFIG, E8M0, FP8, checkpoint, gaussian, header_of, llama, write_raw
from tests.core.conftest import Refused, Studio

Array = NDArray[Any]
LAYER = "model.layers.0.mlp.up_proj"
EXPERTS = "model.layers.0.mlp.experts"
WEIGHT = gaussian(64, 96, sigma=60, dtype=FP8)


def ones(*shape: int, dtype: Any = np.float32) -> Array:
    return np.ones(shape, dtype)


def fp8(scale: Array | None, suffix: str = "weight_scale", weight: Array = WEIGHT) -> dict[str, Array]:
    """A llama with one FP8 weight."""
    found = {**llama(1), f"{LAYER}.weight": weight}
    return found if scale is None else {**found, f"{LAYER}.{suffix}": scale}


def quantization(**section: Any) -> dict[str, Any]:
    return {**CONFIG, "quantization_config": section}


SILENT = "the config names none"
UNREAD = [
    (fp8(ones(3, 5)), None, ["[64, 96]", "[3, 5]", SILENT]),
    (fp8(ones(96)), None, ["[96]", SILENT]),
    (fp8(ones(1, 96)), None, ["[1, 96]", SILENT]),
    (fp8(ones(1, 3)), {"weight_block_size": [64, 64]}, ["[1, 3]", "blocks of 64 x 64"]),
    (fp8(ones(64, 1)), {"weight_block_size": [32, 32]}, ["[64, 1]", "blocks of 32 x 32"]),
    (fp8(ones()), {"weight_block_size": [32, 32]}, ["[]", "blocks of 32 x 32"]),
    (fp8(ones(2, 3)), {"weight_block_size": None}, ["[2, 3]", "one scale for all or a scale per row"]),
    (fp8(ones(2, 3)), {"weight_block_size": "??"}, ["[2, 3]", "one scale for all"]),
    (fp8(ones(1)), {"config_groups": {"g": {"weights": {"num_bits": 8, "strategy": "channel"}}}}, ["scale per row"]),
    (fp8(ones(2, 3)), {"quant_method": "fbgemm_fp8"}, ["[2, 3]", "a scale per row"]),
    (fp8(ones(2, 3, dtype=np.uint8)), None, ["U8", "exponents or numbers"]),
    (fp8(ones(dtype=np.float64)), None, ["scales of F64"]),
    (fp8(ones(2, 3, dtype=FP8)), None, [LAYER]),
    (fp8(ones(), "weight_amax"), None, ["beside weight_amax"]),
    (fp8(ones(), "scale_weight"), None, ["beside scale_weight"]),
    ({**fp8(ones()), f"{LAYER}.weight_zero_point": ones()}, None, ["weight_zero_point"]),
    ({**fp8(ones()), f"{LAYER}.weight_scale_inv": ones()}, None, ["weight_scale_inv and weight_scale"]),
    (fp8(ones(2, 3), weight=gaussian(4, 8, 16, sigma=60, dtype=FP8)), None, ["[4, 8, 16]", "[2, 3]"]),
    (fp8(ones(1), weight=gaussian(1, (1 << 20) + 32, dtype=FP8)), None, ["rows of more than 1,048,576"]),
    (fp8(None, weight=gaussian(1, (1 << 20) + 32, dtype=FP8)), None, ["rows of more than 1,048,576"]),
    ({**llama(1), f"{LAYER}.weight_scale": ones()}, None, ["BF16 beside", "weights or codes"]),
    ({**llama(1), f"{LAYER}.weight_scale_inv": ones(1, 1)}, None, ["BF16 beside", "weights or codes"]),
]


@pytest.mark.parametrize(("tensors", "section", "words"), UNREAD)
def test_scales_that_are_not_understood_are_refused_with_tensor_and_reason(
    refused: Refused, tmp_path: Path, tensors: dict[str, Array], section: Any, words: list[str]
) -> None:
    config = quantization(**section) if section else CONFIG
    refused(checkpoint(tmp_path / "m", tensors, config), "already quantized", LAYER, *words)


OTHERS = {
    "another weight has one": {
        "model.layers.0.mlp.down_proj.weight": WEIGHT,
        "model.layers.0.mlp.down_proj.scale": ones(),
    },
    "one belongs to nothing": {"model.lost.weight_scale": ones()},
    "exponents": {"model.lost.exponents": ones(4, dtype=np.uint8).view(E8M0)},
    "activations": {f"{LAYER}.input_scale": ones()},
    "caches": {"model.layers.0.self_attn.k_scale": ones()},
}


@pytest.mark.parametrize("others", OTHERS.values(), ids=OTHERS)
def test_fp8_without_a_scale_is_refused_where_anything_has_one(
    refused: Refused, tmp_path: Path, others: dict[str, Array]
) -> None:
    refused(checkpoint(tmp_path / "m", {**fp8(None), **others}), "already quantized")


@pytest.mark.parametrize("section", [{"quant_method": "fp8"}, {"quant_method": "fp8", "weight_block_size": [32, 32]}])
def test_fp8_without_the_scales_that_the_config_speaks_of_is_refused(
    refused: Refused, tmp_path: Path, section: dict[str, Any]
) -> None:
    source = checkpoint(tmp_path / "m", fp8(None), quantization(**section))
    refused(source, LAYER, "without the scales", "quantization_config")


PACKED = {
    "E5M2": (
        {"a.weight": gaussian(8, 32, dtype=ml_dtypes.float8_e5m2), "a.weight_scale": ones()},
        "a.weight is F8_E5M2",
    ),
    "E5M2 without scales": ({"a.weight": gaussian(8, 32, dtype=ml_dtypes.float8_e5m2)}, "a.weight is F8_E5M2"),
    "gpt-oss": (
        {
            f"{EXPERTS}.down_proj_blocks": ones(2, 64, 1, 8, dtype=np.uint8),
            f"{EXPERTS}.down_proj_scales": ones(2, 64, 1, dtype=np.uint8),
        },
        "down_proj_blocks: gpt-oss: blocks [2, 64, 1, 8] with U8 [2, 64, 1]",
    ),
    "int8": ({"a.weight": ones(8, 32, dtype=np.int8), "a.weight_scale": ones(8, 1)}, "a.weight is I8"),
    "int8 as wide as FP4": (
        {"a.weight": ones(8, 32, dtype=np.int8), "a.weight_scale": ones(8, 2, dtype=BF16)},
        "a.weight is I8",
    ),
    "int8 by row with exponents": (
        {"a.weight": ones(8, 32, dtype=np.int8), "a.weight_scale": ones(8, 1, dtype=np.uint8)},
        "a.weight is I8",
    ),
    "int8 of bitsandbytes": ({"a.weight": ones(8, 32, dtype=np.int8), "a.SCB": ones(9)}, "LLM.int8"),
    "int8 stack": (
        {f"{EXPERTS}.down_proj": ones(2, 8, 32, dtype=np.int8), f"{EXPERTS}.down_proj_scale": ones(2, 8, 1)},
        "down_proj is I8",
    ),
    "packed U8": ({"a.weight": ones(8, 16, dtype=np.uint8), "a.weight_scale": ones(8, 3, dtype=np.uint8)}, "is U8"),
    "packed I32": ({"a.weight": ones(8, 4, dtype=np.int32), "a.weight_scale": ones(1, 4, dtype=BF16)}, "is I32"),
    "integers without scales": ({"a.weight": ones(8, 16, dtype=np.int8)}, "a.weight is I8"),
    "lost exponents": ({"a.exponents": ones(8, dtype=np.uint8).view(E8M0)}, "a.exponents is F8_E8M0"),
    "torchao": ({"a._weight_qdata": WEIGHT, "a._weight_scale": ones(63, 1)}, "torchao"),
    "quanto": ({"a.weight._data": WEIGHT, "a.weight._scale": ones(64, 3)}, "quanto"),
    "quanto of four bits": (
        {
            "a.weight._data._data": ones(64, 32, dtype=np.uint8),
            "a.weight._scale": ones(64, 1),
            "a.weight._shift": ones(64, 1),
        },
        "quanto",
    ),
    "FP8 under a name of its own": ({"a.weight:_data": WEIGHT, "a.weight:_scale": ones(64, 1)}, "a.weight:_data"),
    "HQQ": ({"a.W_q": ones(8, 8, dtype=np.uint8), "a.scale": ones(8), "a.zero": ones(8)}, "HQQ"),
    "EXL3": ({"a.trellis": ones(2, 2, 8, dtype=np.int16), "a.suh": ones(8, dtype=np.float16)}, "EXL3"),
    "AQLM": ({"a.codes": ones(8, 8, 1, dtype=np.int8), "a.codebooks": ones(1, 256, 1, 8, dtype=BF16)}, "AQLM"),
    "GPTQ": ({"a.qweight": ones(8, 8, dtype=np.int32), "a.scales": ones(1, 8, dtype=np.float16)}, "GPTQ or AWQ"),
    "NVFP4 of ModelOpt": (
        {
            "a.weight": ones(8, 16, dtype=np.uint8),
            "a.weight_scale": ones(8, 3, dtype=FP8),
            "a.weight_scale_2": ones(),
        },
        "a.weight: ModelOpt NVFP4: codes of U8 [8, 16] with scales of F8_E4M3 [8, 3]: no format of blocks",
    ),
    "MLX without a config": ({"a.weight": ones(8, 8, dtype=np.uint32), "a.scales": ones(8, 2, dtype=BF16)}, "MLX"),
}


@pytest.mark.parametrize(("tensors", "words"), PACKED.values(), ids=PACKED)
def test_codes_that_are_not_read_are_refused_by_their_tensors_alone(
    refused: Refused, tmp_path: Path, tensors: dict[str, Array], words: str
) -> None:
    refused(checkpoint(tmp_path / "m", {**llama(1), **tensors}), "already quantized", words)


def test_floats_that_are_named_like_codes_are_plain_weights(tmp_path: Path) -> None:
    """The norms of queries and keys of PLaMo 2 are called as the codes of EXL2 are."""
    names = ("model.layers.0.mixer.q_weight", "a.trellis")
    with core.open_model(checkpoint(tmp_path / "m", {**llama(1), **{name: ones(4, 32) for name in names}})) as model:
        assert model.quantized_by == ""


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F6_E3M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"])
def test_dtypes_that_only_codes_have_are_refused(refused: Refused, tmp_path: Path, dtype: str) -> None:
    bits = {"F4": 4, "F6": 6, "F8": 8}[dtype[:2]]
    tensors = {f"{LAYER}.weight": gaussian(16, 32)}
    start = 16 * 32 * 2
    header = header_of(tensors)
    header["x.weight"] = {"dtype": dtype, "shape": [4, 32], "data_offsets": [start, start + 16 * bits]}
    source = checkpoint(tmp_path / "m")
    write_raw(source / "model.safetensors", header, tensors[f"{LAYER}.weight"].tobytes() + bytes(16 * bits))
    refused(source, "already quantized", f"x.weight is {dtype}")


def test_matrices_of_integers_and_a_section_together_are_no_leftover(refused: Refused, tmp_path: Path) -> None:
    tensors = {**llama(1), "a.unheard_of": ones(8, 16, dtype=np.int32)}
    source = checkpoint(tmp_path / "m", tensors, quantization(quant_method="tomorrow"))
    refused(source, "already quantized", "tomorrow: a.unheard_of is I32")


def test_a_method_of_the_config_is_named_where_tensors_confirm_it(refused: Refused, tmp_path: Path) -> None:
    tensors = {"a.weight": ones(8, 32, dtype=np.int8), "a.weight_scale": ones(8, 1)}
    config = quantization(quant_method="compressed-tensors", format="marlin-24")
    refused(checkpoint(tmp_path / "m", tensors, config), "compressed-tensors (marlin-24): a.weight is I8")


SECTIONS: list[dict[str, Any]] = [
    {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
    {"quantization_config": {"quant_method": "mxfp4"}},
    {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    {"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized"}},
    {"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8"}},
    {"quantization_config": {"quant_method": "awq"}},
    {"quantization": {"group_size": 64, "bits": 4}, "quantization_config": {"group_size": 64, "bits": 4}},
    {"text_config": {**CONFIG, "quantization_config": {"quant_method": "gptq"}}},
    {"llm_config": {**CONFIG, "quantization_config": {"quant_method": "fp8"}}},
]


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("layout", list(core.LAYOUTS))
def test_a_section_left_over_beside_plain_tensors_is_named_and_left_out(
    studio: Studio, tmp_path: Path, section: dict[str, Any], layout: str
) -> None:
    source = checkpoint(tmp_path / "m", llama(1), {**CONFIG, **section})
    ran = studio("quantize", source, tmp_path / "out", "--layout", layout)
    assert ran.code == 0
    (line,) = [line for line in ran.err.splitlines() if "left over" in line]
    key = next(iter(section))
    assert (key if key.startswith("quantization") else f"{key}.quantization_config") in line
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in {**written.get("text_config", {}), **written.get("llm_config", {})}
    assert written["quantization_config"].get("quant_method") not in ("fp8", "mxfp4", "bitsandbytes", "awq", "gptq")


BESIDE = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}


def test_the_file_of_modelopt_may_be_left_over_too(studio: Studio, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "m", {**llama(1), "model.layers.0.self_attn.k_scale": ones()})
    (source / "hf_quant_config.json").write_text(json.dumps(BESIDE))
    ran = studio("quantize", source, tmp_path / "out", "--layout", "mlx")
    assert ran.code == 0
    assert "left out: hf_quant_config.json (modelopt (FP8))" in ran.err
    assert "1 scale of activations or caches is left out" in ran.err
    assert not (tmp_path / "out" / "hf_quant_config.json").exists()


def test_a_broken_file_of_modelopt_is_left_out_with_a_warning(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "m")
    (source / "hf_quant_config.json").write_text("{")
    with core.open_model(source) as model:
        (warning,) = model.warnings
    assert warning.startswith("hf_quant_config.json: not valid JSON")


@pytest.mark.parametrize("inside", [True, False])
def test_fp8_of_modelopt_is_read_wherever_it_is_declared(tmp_path: Path, inside: bool) -> None:
    config = quantization(quant_method="modelopt", quant_algo="FP8") if inside else CONFIG
    source = checkpoint(tmp_path / "m", {f"{LAYER}.weight": WEIGHT, f"{LAYER}.weight_scale": ones()}, config)
    if not inside:
        (source / "hf_quant_config.json").write_text(json.dumps(BESIDE))
    with core.open_model(source) as model:
        assert not model.quantized_by
        assert not model.warnings


def test_mistrals_own_form_needs_no_config(tmp_path: Path) -> None:
    tensors = {
        "layers.0.attention.wq.weight": WEIGHT,
        "layers.0.attention.wq.qscale_weight": ones(),
        "layers.0.attention.wq.qscale_act": ones(),
        "layers.0.attention.kv_fake_quantizer.qscale_act": ones(1),
    }
    with core.open_model(checkpoint(tmp_path / "m", tensors, {})) as model:
        assert [layer.source.meaning for layer in model.layers] == ["FP8 (E4M3), F32 scales of 64 x 96"]


def test_many_stacks_in_one_module_are_told_apart_in_time(studio: Studio, tmp_path: Path) -> None:
    tensors: dict[str, Array] = {}
    for number in range(4000):
        tensors |= {f"w{number}": ones(1, 2, 2, dtype=FP8), f"w{number}_scale": ones(1)}
    ran = studio("inspect", checkpoint(tmp_path / "m", tensors))
    assert "already quantized" not in ran.out
    assert ran.seconds < 10


def test_tables_of_integers_stay_what_they_are(studio: Studio, tmp_path: Path) -> None:
    tables = {
        "model.tid2eid": np.arange(64, dtype=np.int64).reshape(8, 8),
        "model.table": np.arange(64, dtype=np.int32).reshape(8, 8),
        "model.attn.bias": ones(1, 1, 4, 4, dtype=np.uint8),
        "model.position_ids": np.arange(8, dtype=np.int64).reshape(1, 8),
        "model.steps.weight": np.arange(8, dtype=np.int32),
    }
    source = checkpoint(tmp_path / "m", {**llama(1), **tables})
    assert studio("quantize", source, tmp_path / "out", "--layout", "modelopt").code == 0
    assert studio("verify", tmp_path / "out", "--source", source).code == 0


@pytest.mark.sampled(3)
@pytest.mark.parametrize("value", [None, True, 0, -1, 0.5, "x", [], [[]], {}, {"a": {}}, [0, 128], [1 << 70, 1]])
@pytest.mark.parametrize("key", ["weight_block_size", "config_groups", "quant_algo", "quant_method", "scale_fmt"])
def test_any_value_in_a_section_is_survived(studio: Studio, tmp_path: Path, key: str, value: Any) -> None:
    groups = {"g": {"weights": {"num_bits": 8, "strategy": value, "block_structure": value, "group_size": value}}}
    for section in ({key: value}, {"config_groups": groups}, {"config_groups": {"g": value}}):
        config = {**quantization(**section), "quantization": value, "text_config": {"quantization_config": section}}
        source = checkpoint(tmp_path / "m", fp8(ones(2, 3)), config)
        assert studio("plan", source).code in (0, 2)


def test_inspecting_says_why_codes_are_not_read(studio: Studio, tmp_path: Path) -> None:
    ran = studio("inspect", checkpoint(tmp_path / "m", fp8(ones(3, 5))))
    assert ran.code == 0
    assert "already quantized" in ran.out
    assert "[3, 5]" in ran.out


def test_an_empty_weight_with_a_scale_is_no_obstacle(studio: Studio, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "m", fp8(ones(), weight=np.ones((0, 32), FP8)))
    assert studio("quantize", source, tmp_path / "out").code == 0
    assert studio("verify", tmp_path / "out", "--source", source).code == 0
