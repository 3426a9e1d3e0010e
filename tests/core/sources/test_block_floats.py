"""NVFP4 and the MX formats in every shape that makers store them in: read as the definition says, or not at all."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kernels import reference
from studio import core
from studio.core.model import Layer, Matrix
from tests.core.checkpoints import BF16, CONFIG, E8M0, FP8, checkpoint, gaussian, llama
from tests.core.conftest import Studio

Array = NDArray[Any]
LAYER = "model.layers.0.mlp.up_proj"
EXPERTS = "model.layers.0.mlp.experts"
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
GPT_OSS = {**CONFIG, "model_type": "gpt_oss", "hidden_size": 64}
LLAMA_4 = {**CONFIG, "model_type": "llama4_text", "num_local_experts": 3, "hidden_size": 64}


def random_bytes(*shape: int, seed: int = 0, low: int = 0, high: int = 256) -> NDArray[np.uint8]:
    return np.random.default_rng([seed, *shape]).integers(low, high, shape, np.uint8)


def scales(*shape: int, seed: int = 1) -> NDArray[np.uint8]:
    """Bytes of E4M3 that are numbers, some of them subnormal, some negative."""
    return random_bytes(*shape, seed=seed, low=0, high=0x7F) | random_bytes(*shape, seed=seed + 1, high=2) << 7


def exponents(*shape: int, seed: int = 1) -> NDArray[np.uint8]:
    return random_bytes(*shape, seed=seed, low=110, high=140)


def fp4(codes: Array) -> NDArray[np.float32]:
    """Two values for every byte along the last axis, that of the low nibble first."""
    raw = codes.view(np.uint8)
    return np.stack([E2M1[raw & 15], E2M1[raw >> 4]], -1).reshape(*raw.shape[:-1], -1)


def nvfp4(codes: Array, blocks: Array, g: Any = 1.0) -> NDArray[np.float32]:
    factors = reference.e4m3_decode(blocks.view(np.uint8)) * np.asarray(g, np.float32)
    return fp4(codes) * factors.repeat(16, -1)


def mxfp4(codes: Array, blocks: Array) -> NDArray[np.float32]:
    return fp4(codes) * reference.e8m0_decode(blocks.view(np.uint8)).repeat(32, -1)


def quantization(**section: Any) -> dict[str, Any]:
    return {**CONFIG, "quantization_config": section}


def all_rows(layer: Layer, matrix: Matrix) -> Array:
    return layer.source.rows(matrix, 0, matrix.rows)


def check(folder: Path, tensors: dict[str, Array], name: str, wanted: Array, meaning: str, config: Any = None) -> None:
    """The only weight of a checkpoint is what it should be: whole, and by matrix what its matrices say."""
    with core.open_model(checkpoint(folder, tensors, config or CONFIG)) as model:
        assert not model.quantized_by
        layer = model.by_name[name]
        assert layer.source.meaning == meaning
        assert layer.shape == wanted.shape
        np.testing.assert_array_equal(all_rows(layer, layer.whole).reshape(layer.shape), wanted)
        assert layer.matrices
        for matrix in layer.matrices:
            flat = wanted.reshape(-1)[matrix.first :]
            steps = 4 * (matrix.row_step or matrix.columns), 4 * matrix.column_step
            truth = np.lib.stride_tricks.as_strided(flat, (matrix.rows, matrix.columns), steps)
            np.testing.assert_array_equal(all_rows(layer, matrix), truth)
            if layer.source.format is not None:
                quantized = layer.source.packed(matrix, 0, matrix.rows)
                np.testing.assert_array_equal(reference.decode(quantized), truth)


ONE_NUMBER = [(), (1,), (1, 1)]


@pytest.mark.parametrize("shape", ONE_NUMBER)
@pytest.mark.parametrize(("method", "maker"), [("modelopt", "ModelOpt"), ("quark", "Quark")])
def test_nvfp4_of_modelopt_and_quark_is_multiplied_with_its_tensor_scale(
    tmp_path: Path, shape: tuple[int, ...], method: str, maker: str
) -> None:
    codes, blocks, g = random_bytes(24, 32), scales(24, 4), np.full(shape, 0.0003, np.float32)
    tensors = {
        f"{LAYER}.weight": codes,
        f"{LAYER}.weight_scale": blocks.view(FP8),
        f"{LAYER}.weight_scale_2": g,
        f"{LAYER}.input_scale": np.float32(0.1).reshape(()),
    }
    wanted = nvfp4(codes, blocks, g.reshape(()))
    check(tmp_path / "m", tensors, LAYER, wanted, f"NVFP4, three tiers, {maker}", quantization(quant_method=method))


@pytest.mark.parametrize("shape", ONE_NUMBER)
@pytest.mark.parametrize("method", ["compressed-tensors", "auto-round"])
def test_nvfp4_of_compressed_tensors_is_divided_by_its_tensor_scale(
    tmp_path: Path, shape: tuple[int, ...], method: str
) -> None:
    codes, blocks, divisor = random_bytes(24, 32), scales(24, 4), np.full(shape, 4096.0, np.float32)
    tensors = {
        f"{LAYER}.weight_packed": codes,
        f"{LAYER}.weight_scale": blocks.view(FP8),
        f"{LAYER}.weight_global_scale": divisor,
        f"{LAYER}.input_global_scale": np.ones(1, np.float32),
    }
    wanted = nvfp4(codes, blocks, 1 / 4096)
    check(tmp_path / "m", tensors, LAYER, wanted, f"NVFP4, three tiers, {method}", quantization(quant_method=method))


def test_experts_of_kimi_k3_are_mxfp4_one_by_one(tmp_path: Path) -> None:
    name = "model.layers.1.block_sparse_moe.experts.7.w1"
    codes, blocks = random_bytes(24, 32), exponents(24, 2)
    config = {**quantization(quant_method="compressed-tensors", format="mxfp4-pack-quantized"), "model_type": "kimi_k3"}
    tensors = {f"{name}.weight_packed": codes, f"{name}.weight_scale": blocks}
    check(tmp_path / "m", tensors, name, mxfp4(codes, blocks), "MXFP4, compressed-tensors", config)


def modelopt_stack(name: str, codes: Array, blocks: Array, g: Array) -> dict[str, Array]:
    return {name: codes, f"{name}_weight_scale": blocks.view(FP8), f"{name}_weight_scale_2": g}


@pytest.mark.parametrize("shape", [(), (1,), (3,), (3, 1), (3, 1, 1)])
@pytest.mark.parametrize("config", [LLAMA_4, GPT_OSS], ids=["llama 4", "gpt-oss"])
def test_a_stack_of_modelopt_that_is_stored_by_inputs_is_read_by_outputs(
    tmp_path: Path, shape: tuple[int, ...], config: dict[str, Any]
) -> None:
    name = f"{EXPERTS}.gate_up_proj"
    codes, blocks = random_bytes(3, 48, 32), scales(3, 48, 4)
    g = np.geomspace(1e-4, 1e-3, int(np.prod(shape))).astype(np.float32).reshape(shape)
    stored = modelopt_stack(name, codes.transpose(0, 2, 1).copy(), blocks.transpose(0, 2, 1).copy(), g)
    wanted = nvfp4(codes, blocks, g.reshape(-1, 1, 1)).transpose(0, 2, 1).copy()
    check(tmp_path / "m", stored, name, wanted, "NVFP4, three tiers, ModelOpt", config)


def test_a_stack_may_have_a_tensor_scale_for_the_gate_and_one_for_what_it_gates(tmp_path: Path) -> None:
    name = f"{EXPERTS}.gate_up_proj"
    codes, blocks = random_bytes(3, 48, 32), scales(3, 48, 4)
    g = np.geomspace(1e-4, 1e-3, 6).astype(np.float32).reshape(3, 2)
    wanted = nvfp4(codes, blocks, g.repeat(24, 1)[..., None])
    config = {**CONFIG, "model_type": "muse_spark", "hidden_size": 64}
    check(tmp_path / "m", modelopt_stack(name, codes, blocks, g), name, wanted, "NVFP4, three tiers, ModelOpt", config)


def test_a_stack_of_mxfp4_may_be_stored_by_inputs_too(tmp_path: Path) -> None:
    name = f"{EXPERTS}.down_proj"
    codes, blocks = random_bytes(3, 64, 48), exponents(3, 64, 3)
    stored = {
        name: codes.transpose(0, 2, 1).copy(),
        f"{name}_weight_scale": blocks.transpose(0, 2, 1).copy(),
    }
    wanted = mxfp4(codes, blocks).transpose(0, 2, 1).copy()
    check(tmp_path / "m", stored, name, wanted, "MXFP4, ModelOpt", LLAMA_4)


@pytest.mark.parametrize("dtype", [np.uint8, E8M0])
def test_gpt_oss_has_gate_and_up_in_turns_and_biases_beside_them(tmp_path: Path, dtype: Any) -> None:
    name = f"{EXPERTS}.gate_up_proj"
    codes, blocks = random_bytes(3, 48, 2, 16), exponents(3, 48, 2)
    tensors = {
        f"{name}_blocks": codes,
        f"{name}_scales": blocks.view(dtype),
        f"{name}_bias": gaussian(3, 48),
    }
    wanted = mxfp4(codes.reshape(3, 48, 32), blocks)
    check(tmp_path / "m", tensors, name, wanted.transpose(0, 2, 1).copy(), "MXFP4, gpt-oss", GPT_OSS)
    with core.open_model(tmp_path / "m") as model:
        layer = model.by_name[name]
        up = next(matrix for matrix in layer.matrices if matrix.name == f"{EXPERTS}.1.up_proj")
        np.testing.assert_array_equal(all_rows(layer, up), wanted[1, 1::2])
        assert layer.role == "expert"


@pytest.mark.parametrize("shape", [(), (1,), (3,)])
def test_stacks_of_mlx_have_the_largest_weight_of_every_expert(tmp_path: Path, shape: tuple[int, ...]) -> None:
    name = "model.layers.0.mlp.switch_mlp.down_proj"
    codes, blocks = random_bytes(3, 64, 32), scales(3, 64, 4)
    amax = np.geomspace(0.1, 1, int(np.prod(shape))).astype(np.float32).reshape(shape)
    tensors = {
        f"{name}.weight": codes.view(np.uint32),
        f"{name}.scales": blocks,
        f"{name}.global_scale": amax,
    }
    g = (amax.astype(np.float64) / 2688).astype(np.float32).reshape(-1, 1, 1)
    config = {**CONFIG, "quantization": {"group_size": 16, "bits": 4, "mode": "nvfp4"}}
    check(tmp_path / "m", tensors, name, nvfp4(codes, blocks, g), "NVFP4, three tiers, MLX", config)


@pytest.mark.parametrize("suffix", ["weight_scale", "weight_scale_inv", "scale"])
@pytest.mark.parametrize("dtype", [np.uint8, E8M0])
def test_fp8_with_an_exponent_for_every_32_weights_is_mxfp8(tmp_path: Path, suffix: str, dtype: Any) -> None:
    codes, blocks = random_bytes(24, 64, high=0x7F), exponents(24, 2)
    tensors = {f"{LAYER}.weight": codes.view(FP8), f"{LAYER}.{suffix}": blocks.view(dtype)}
    wanted = reference.e4m3_decode(codes) * reference.e8m0_decode(blocks).repeat(32, -1)
    check(tmp_path / "m", tensors, LAYER, wanted, "MXFP8 (E4M3)")


@pytest.mark.parametrize("input_first", [False, True])
def test_fp8_experts_of_modelopt_may_have_a_scale_for_every_output(tmp_path: Path, *, input_first: bool) -> None:
    name, config = f"{EXPERTS}.down_proj", LLAMA_4 if input_first else {**CONFIG, "hidden_size": 64}
    codes, scale = random_bytes(3, 64, 48, high=0x7F), np.geomspace(1e-3, 1e-2, 192).astype(np.float32).reshape(3, 64)
    wanted = reference.e4m3_decode(codes) * scale[..., None]
    turn: Callable[[Array], Array] = lambda array: array.transpose(0, 2, 1).copy() if input_first else array  # noqa: E731
    tensors = {name: turn(codes).view(FP8), f"{name}_weight_scale": scale}
    meaning = "FP8 (E4M3), F32 scales of " + ("48 x 1" if input_first else "1 x 48")
    check(tmp_path / "m", tensors, name, turn(wanted), meaning, config)


def test_layers_of_one_checkpoint_may_follow_different_conventions(studio: Studio, tmp_path: Path) -> None:
    attention = "model.layers.0.self_attn"
    stored = dict(llama(1))
    for name in ("mlp.up_proj", "self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj"):
        del stored[f"model.layers.0.{name}.weight"]
    stored |= {
        f"{LAYER}.weight": random_bytes(128, 32),
        f"{LAYER}.weight_scale": random_bytes(128, 4, low=0x20, high=0x40).view(FP8),
        f"{LAYER}.weight_scale_2": np.float32(0.001).reshape(()),
        f"{attention}.q_proj.weight": gaussian(64, 64, sigma=60, dtype=FP8),
        f"{attention}.q_proj.weight_scale": np.float32(0.001).reshape(()),
        f"{attention}.k_proj.weight_packed": random_bytes(32, 32),
        f"{attention}.k_proj.weight_scale": exponents(32, 2),
        f"{attention}.o_proj.weight": random_bytes(64, 32).view(np.uint32),
        f"{attention}.o_proj.scales": exponents(64, 2),
    }
    layers = {LAYER: {"quant_algo": "NVFP4"}, f"{attention}.q_proj": {"quant_algo": "FP8"}}
    config = quantization(quant_method="modelopt", quant_algo="MIXED_PRECISION", quantized_layers=layers)
    source = checkpoint(tmp_path / "m", stored, config)
    with core.open_model(source) as model:
        assert not model.quantized_by
        meanings = {layer.source.meaning for layer in model.layers if layer.source.dtype == "F32"}
    assert meanings == {
        "NVFP4, three tiers, ModelOpt",
        "FP8 (E4M3), F32 scales of 64 x 64",
        "MXFP4, compressed-tensors",
        "MXFP4, MLX",
    }
    assert studio("quantize", source, tmp_path / "out", "--layout", "modelopt").code == 0
    assert studio("verify", tmp_path / "out", "--source", source).code == 0


def test_blocks_that_modelopt_names_by_layer_are_told(tmp_path: Path) -> None:
    layers = {LAYER: {"quant_algo": "FP8_PB_WO"}}
    config = quantization(quant_method="modelopt", quant_algo="MIXED_PRECISION", quantized_layers=layers)
    codes, scale = gaussian(64, 64, sigma=60, dtype=FP8), np.full((2, 1, 2, 1), 0.01, np.float32)
    tensors = {f"{LAYER}.weight": codes, f"{LAYER}.weight_scale": scale}
    wanted = codes.astype(np.float32) * np.float32(0.01)
    check(tmp_path / "m", tensors, LAYER, wanted, "FP8 (E4M3), F32 scales of 32 x 32", config)


def pair(codes: Array, scale: Array, third: Array | None = None, **others: Array) -> dict[str, Array]:
    """Parts in the names of ModelOpt."""
    found = {"weight": codes, "weight_scale": scale, **others}
    if third is not None:
        found["weight_scale_2"] = third
    return {f"{LAYER}.{leaf}": array for leaf, array in found.items()}


def packed(codes: Array, scale: Array, third: Array | None = None, **others: Array) -> dict[str, Array]:
    """Parts in the names of compressed-tensors."""
    found = {"weight_packed": codes, "weight_scale": scale, **others}
    if third is not None:
        found["weight_global_scale"] = third
    return {f"{LAYER}.{leaf}": array for leaf, array in found.items()}


ONE = np.ones((), np.float32)
CODES, BLOCKS = random_bytes(8, 32), scales(8, 4).view(FP8)
LONG = (1 << 20) + 32
UNREAD: list[tuple[dict[str, Array], dict[str, Any], str]] = [
    (pair(CODES, BLOCKS, np.ones(8, np.float32)), {}, "[8] tensor scales of [8] rows"),
    (pair(CODES, BLOCKS, np.ones(2, np.float32)), {}, "[2] tensor scales of [8] rows"),
    (pair(CODES, BLOCKS, np.ones((0,), np.float32)), {}, "[0] tensor scales"),
    (pair(CODES, BLOCKS, np.ones((), np.int32)), {}, "tensor scale of I32"),
    (pair(CODES, BLOCKS, np.ones((), np.float64)), {}, "tensor scale of F64"),
    (pair(CODES, exponents(8, 2), ONE), {}, "U8 [8, 2] and a tensor scale"),
    (pair(CODES, BLOCKS[:4], ONE), {}, "F8_E4M3 [4, 4]"),
    (pair(CODES[0], BLOCKS[0], ONE), {}, "U8 [32]"),
    (pair(CODES, np.ones((8, 4), BF16), ONE), {}, "scales of BF16"),
    (pair(CODES, BLOCKS, ONE, pre_quant_scale=np.ones(32, BF16)), {}, "pre_quant_scale of BF16 [32]"),
    (pair(CODES, BLOCKS, ONE, svdquant_lora_a=np.ones((4, 64), BF16)), {}, "beside svdquant_lora_a"),
    (pair(CODES, exponents(8, 2), weight_zero_point=exponents(8, 2)), {}, "beside weight_zero_point"),
    (packed(CODES, BLOCKS), {}, "without its weight_global_scale"),
    (packed(CODES, scales(8, 4)), {}, "U8 [8, 4]"),
    (packed(CODES, scales(8, 4), ONE), {"format": "nvfp4-e5m3-pack-quantized"}, "scales of E5M3"),
    (packed(CODES, scales(8, 4)), {"packing_format": "auto_round:llm_compressor_nvfp4_e5m3"}, "scales of E5M3"),
    (packed(CODES, scales(8, 4), ONE), {"config_groups": {"g": {"format": "nvfp4-e5m3-pack-quantized"}}}, "E5M3"),
    (packed(CODES, exponents(8, 3)), {}, "U8 [8, 3]"),
    (packed(np.zeros((0, 32), np.uint8), np.zeros((0, 2), np.uint8)), {}, "U8 [0, 32]"),
    (packed(np.zeros((1, LONG // 2), np.uint8), np.zeros((1, LONG // 32), np.uint8)), {}, "rows of more than"),
    ({f"{LAYER}._weight_qdata": CODES}, {}, "torchao: codes without scales"),
    ({f"{LAYER}._weight_qdata": CODES, f"{LAYER}._weight_scale": np.ones((32, 15), FP8)}, {}, "neither in rows nor"),
    ({f"{LAYER}._weight_qdata": CODES, f"{LAYER}._weight_scale": exponents(32, 16)}, {}, "scales of U8"),
]


@pytest.mark.parametrize(("tensors", "section", "words"), UNREAD)
def test_parts_that_fit_no_format_are_unread_with_the_reason(
    tmp_path: Path, tensors: dict[str, Array], section: dict[str, Any], words: str
) -> None:
    config = quantization(**section) if section else CONFIG
    with core.open_model(checkpoint(tmp_path / "m", {**llama(1), **_named_alone(tensors)}, config)) as model:
        assert words in model.quantized_by
        (layer,) = [layer for layer in model.layers if words in layer.obstacle]
        assert layer.name == "a"
        assert not layer.matrices


def _named_alone(tensors: dict[str, Array]) -> dict[str, Array]:
    return {name.replace(LAYER, "a"): array for name, array in tensors.items()}


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("names", [pair, packed], ids=["multiplier", "divisor"])
def test_a_tensor_scale_that_is_no_positive_number_is_refused_by_name(
    studio: Studio, tmp_path: Path, value: float, names: Callable[..., dict[str, Array]]
) -> None:
    parts = names(random_bytes(128, 32), scales(128, 4).view(FP8), np.full(1, value, np.float32))
    plain = {name: array for name, array in llama(1).items() if not name.startswith(LAYER)}
    ran = studio("quantize", checkpoint(tmp_path / "m", {**plain, **parts}), tmp_path / "out")
    assert ran.code == 2
    assert list(parts)[-1] in ran.err
    assert "not usable" in ran.err


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), 0.0])
def test_a_scale_of_fp8_that_is_no_positive_number_is_refused_by_name(
    studio: Studio, tmp_path: Path, value: float
) -> None:
    scale = np.full((128, 1), 0.01, np.float32)
    scale[3] = value
    stored = {**llama(1), f"{LAYER}.weight": gaussian(128, 64, sigma=60, dtype=FP8), f"{LAYER}.weight_scale": scale}
    ran = studio("quantize", checkpoint(tmp_path / "m", stored), tmp_path / "out")
    assert ran.code == 2
    assert f"{LAYER}.weight_scale are" in ran.err


def test_a_scale_of_zero_over_nothing_but_zeros_is_harmless(tmp_path: Path) -> None:
    scale, codes = np.full((24, 1), 0.01, np.float32), gaussian(24, 64, sigma=60, dtype=FP8)
    scale[3], codes[3] = 0, 0
    tensors = {f"{LAYER}.weight": codes, f"{LAYER}.weight_scale": scale}
    wanted = codes.astype(np.float32) * scale
    check(tmp_path / "m", tensors, LAYER, wanted, "FP8 (E4M3), F32 scales of 1 x 64")


BAD_BYTES = [
    (pair(CODES, np.full((8, 4), 0x7F, np.uint8).view(FP8), ONE), "32 of its scales", "E4M3 127"),
    (pair(CODES, np.full((8, 4), 0xFF, np.uint8).view(FP8), ONE), "32 of its scales", "E4M3 255"),
    (pair(CODES, np.full((8, 2), 0xFF, np.uint8)), "16 of its scales", "E8M0 255"),
    (packed(random_bytes(8, 48), np.full((8, 2), 0xFF, np.uint8)), "16 of its scales", "E8M0 255"),
]


@pytest.mark.parametrize(("tensors", "count", "words"), BAD_BYTES)
def test_bytes_of_scales_that_are_no_numbers_are_refused_with_their_count(
    tmp_path: Path, tensors: dict[str, Array], count: str, words: str
) -> None:
    with core.open_model(checkpoint(tmp_path / "m", tensors)) as model:
        layer = model.by_name[LAYER]
        with pytest.raises(core.CheckpointError, match=f"{count}.*{words}"):
            all_rows(layer, layer.whole)


DRAWN = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _sources(folder: Path) -> Iterator[tuple[Layer, Matrix, Array]]:
    """Layers of every kind of source and matrix, with all rows of it."""
    swizzled, wide = random_bytes(200, 40), random_bytes(3, 48, 32)
    tensors = {
        f"{EXPERTS}.gate_up_proj_blocks": random_bytes(3, 48, 2, 16),
        f"{EXPERTS}.gate_up_proj_scales": exponents(3, 48, 2),
        **modelopt_stack(
            f"{EXPERTS}.down_proj",
            wide.transpose(0, 2, 1).copy(),
            scales(3, 4, 48),
            np.geomspace(1e-4, 1e-3, 3).astype(np.float32),
        ),
        "six.weight_packed": random_bytes(40, 48),
        "six.weight_scale": exponents(40, 2),
        "tiles._weight_qdata": swizzled,
        "tiles._weight_scale": scales(64, 32).view(FP8),
        "eight.weight": random_bytes(40, 96, high=0x7F).view(FP8),
        "eight.weight_scale": exponents(40, 3),
    }
    with core.open_model(checkpoint(folder, tensors, GPT_OSS)) as model:
        assert not model.quantized_by
        for layer in model.layers:
            assert layer.matrices
            for matrix in (layer.whole, *layer.matrices[-2:]):
                yield layer, matrix, all_rows(layer, matrix).copy()


@settings(DRAWN, max_examples=40)
@given(data=st.data())
def test_any_rows_are_those_of_the_whole(tmp_path: Path, data: st.DataObject) -> None:
    for layer, matrix, whole in _sources(tmp_path / "m"):
        start = data.draw(st.integers(0, matrix.rows - 1))
        stop = data.draw(st.integers(start + 1, matrix.rows))
        found = layer.source.rows(matrix, start, stop)
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, whole[start:stop])


SIZES = st.lists(st.sampled_from([0, 1, 2, 3, 4, 8, 16, 32, 64]), max_size=4).map(tuple)
DTYPES = st.sampled_from([np.uint8, np.int8, FP8, E8M0, np.float32, BF16, np.int32])
LEAVES = (
    "weight weight_packed weight_scale weight_scale_2 weight_global_scale weight_scale_inv _weight_qdata _weight_scale"
    " _weight_per_tensor_scale scale scales biases global_scale p_blocks p_scales p p_weight_scale p_weight_scale_2"
    " weight_blocks weight_scales weight_shape qscale_weight input_scale"
)


@pytest.mark.proof
@settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    parts=st.dictionaries(st.sampled_from(LEAVES.split()), st.tuples(SIZES, DTYPES), max_size=5), stack=st.booleans()
)
def test_parts_of_any_shapes_are_layers_that_decode_or_say_why_not(
    tmp_path: Path, parts: dict[str, tuple[tuple[int, ...], Any]], *, stack: bool
) -> None:
    module = EXPERTS if stack else "a"
    tensors = {f"{module}.{leaf}": np.ones(shape, np.uint8).astype(dtype) for leaf, (shape, dtype) in parts.items()}
    folder = checkpoint(tmp_path / "m", {**tensors, "b.weight": gaussian(4, 32)})
    try:
        opened = core.open_model(folder)
    except core.CheckpointError as error:
        assert "it has the same name" in error.what  # noqa: PT017  # no other error is expected, nor always this one
        return
    with opened as model:
        for layer in model.layers:
            assert layer.matrices or layer.obstacle
            if layer.source.dtype == "F32":
                assert all_rows(layer, layer.whole).size == layer.count
