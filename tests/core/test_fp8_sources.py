"""FP8 in every form that is read becomes code x scale in float32, and leaves as that or not at all."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from kernels import FORMATS, recipe, reference
from studio import core
from studio.core.running.encoding import encode
from studio.core.running.reading import read_slab, slabs
from studio.core.running.scratch import Scratch
from studio.core.sources.fp8 import decode_e4m3
from tests.core.checkpoints import BF16, CONFIG, E8M0, FP8, checkpoint, gaussian, llama, tensors_of
from tests.core.conftest import Studio
from tests.core.test_faults_target import anonymous_peak

Array = NDArray[Any]
LAYER = "model.layers.0.mlp.up_proj"
DOWN = "model.layers.0.mlp.down_proj"
EXPERTS = "model.layers.0.mlp.experts"
FP4_VALUES = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]


def codes(*shape: int, seed: int = 0) -> Array:
    return gaussian(*shape, seed=seed, sigma=60).astype(np.float32).clip(-448, 448).astype(FP8)


def multipliers(*shape: int, dtype: Any = np.float32, seed: int = 1) -> Array:
    """Positive scales; those that only hold exponents are powers of two."""
    exponents = np.random.default_rng([seed, *shape]).uniform(-14, -9, shape)
    if dtype == np.uint8:
        return (np.rint(exponents) + 127).astype(np.uint8)
    return np.exp2(np.rint(exponents) if dtype == E8M0 else exponents).astype(dtype)


def number(scale: Array) -> NDArray[np.float32]:
    """What stored scales mean."""
    if scale.dtype == np.uint8:
        return np.exp2(scale.astype(np.float32) - 127)
    return scale.astype(np.float32)


def expanded(scale: Array, rows: int, columns: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Every scale repeated over its block, cut off at the edges."""
    return number(scale).repeat(rows, -2)[..., : shape[-2], :].repeat(columns, -1)[..., : shape[-1]]


def quantization(**section: Any) -> dict[str, Any]:
    return {**CONFIG, "quantization_config": section}


def read(model: core.Model, name: str, nbytes: int = 4096) -> Array:
    """A layer in the order of its matrices, or in stored order where it has none."""
    layer = model.by_name[name]
    matrices = layer.matrices or [layer.whole]
    return np.concatenate([read_slab(slab) for matrix in matrices for slab in slabs(layer, matrix, nbytes)])


def decoded(folder: Path, tensors: dict[str, Array], name: str, config: Any = None, nbytes: int = 4096) -> Array:
    """What is read of the one layer that `tensors` are, which needs no warning."""
    with core.open_model(checkpoint(folder, tensors, config or CONFIG)) as model:
        assert not model.quantized_by
        assert [layer.name for layer in model.layers] == [name]
        assert model.by_name[name].dtype == "F32"
        return read(model, name, nbytes)


def test_all_256_codes_decode_as_the_definition_says() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(2, 128)
    out = np.empty(every.shape, np.float32)
    decode_e4m3(every, out)
    np.testing.assert_array_equal(out.view(np.uint32)[~np.isnan(out)], _bits(every)[~np.isnan(out)])
    np.testing.assert_array_equal(np.isnan(out), np.isnan(reference.e4m3_decode(every)))


def _bits(every: Array) -> Array:
    return reference.e4m3_decode(every).view(np.uint32)


BLOCKS = [(128, 128), (64, 64), (32, 32), (1, 128), (1, 32)]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, BF16, E8M0])
@pytest.mark.parametrize("nbytes", [1, 50_000, 1 << 20])
def test_a_block_of_the_config_is_counted_from_the_top_left(
    tmp_path: Path, block: tuple[int, int], dtype: Any, nbytes: int
) -> None:
    weight = codes(200, 336)
    scale = multipliers(-(-200 // block[0]), -(-336 // block[1]), dtype=dtype)
    tensors = {f"{LAYER}.weight": weight, f"{LAYER}.weight_scale_inv": scale}
    config = quantization(quant_method="fp8", weight_block_size=list(block))
    wanted = weight.astype(np.float32) * expanded(scale, *block, (200, 336))
    np.testing.assert_array_equal(decoded(tmp_path / "m", tensors, LAYER, config, nbytes), wanted)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_in_use_is_told_from_the_shapes_where_the_config_is_silent(
    tmp_path: Path, block: tuple[int, int]
) -> None:
    weight = codes(200, 336)
    scale = multipliers(-(-200 // block[0]), -(-336 // block[1]))
    tensors = {f"{LAYER}.weight": weight, f"{LAYER}.weight_scale": scale}
    wanted = weight.astype(np.float32) * expanded(scale, *block, (200, 336))
    np.testing.assert_array_equal(decoded(tmp_path / "m", tensors, LAYER), wanted)


def test_a_block_of_the_config_may_be_of_any_size(tmp_path: Path) -> None:
    weight, scale = codes(200, 336), multipliers(3, 4)
    tensors = {f"{LAYER}.weight": weight, f"{LAYER}.weight_scale": scale}
    config = quantization(quant_method="fp8", weight_block_size=[96, 100])
    wanted = weight.astype(np.float32) * expanded(scale, 96, 100, (200, 336))
    np.testing.assert_array_equal(decoded(tmp_path / "m", tensors, LAYER, config), wanted)


@pytest.mark.parametrize("suffix", ["weight_scale_inv", "weight_scale", "scale", "qscale_weight"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("dtype", [np.float32, BF16])
def test_one_scale_is_for_the_whole_weight(tmp_path: Path, suffix: str, shape: tuple[int, ...], dtype: Any) -> None:
    weight, scale = codes(40, 64), np.full(shape, 0.00037, dtype)
    tensors = {f"{LAYER}.weight": weight, f"{LAYER}.{suffix}": scale}
    wanted = weight.astype(np.float32) * scale.astype(np.float32).reshape(())
    for config in (None, quantization(quant_method="fp8", weight_block_size=None)):
        np.testing.assert_array_equal(decoded(tmp_path / "m", tensors, LAYER, config), wanted)


@pytest.mark.parametrize("shape", [(64,), (64, 1)])
@pytest.mark.parametrize("dtype", [np.float32, BF16])
def test_a_scale_per_row_stays_with_its_row_also_in_a_square(
    tmp_path: Path, shape: tuple[int, ...], dtype: Any
) -> None:
    weight, scale = codes(64, 64), multipliers(*shape, dtype=dtype)
    tensors = {f"{LAYER}.weight": weight, f"{LAYER}.weight_scale": scale}
    wanted = weight.astype(np.float32) * number(scale).reshape(64, 1)
    for config in (None, quantization(quant_method="fbgemm_fp8")):
        np.testing.assert_array_equal(decoded(tmp_path / "m", tensors, LAYER, config), wanted)


@pytest.mark.parametrize("block", [128, 32])
@pytest.mark.parametrize("algorithm", ["FP8_PB_WO", "fp8_pb_wo"])
def test_modelopt_stores_blocks_in_four_dimensions(tmp_path: Path, block: int, algorithm: str) -> None:
    weight = codes(200, 336)
    scale = multipliers(-(-200 // block), -(-336 // block))
    tensors = {f"{LAYER}.weight": weight, f"{LAYER}.weight_scale": scale[:, None, :, None]}
    config = quantization(quant_method="modelopt", quant_algo=algorithm)
    wanted = weight.astype(np.float32) * expanded(scale, block, block, (200, 336))
    np.testing.assert_array_equal(decoded(tmp_path / "m", tensors, LAYER, config), wanted)


MX_CONFIGS = [
    {"quant_method": "mxfp8"},
    {"quant_method": "modelopt", "quant_algo": "MXFP8"},
    {
        "quant_method": "compressed-tensors",
        "config_groups": {"g": {"weights": {"num_bits": 8, "strategy": "group", "group_size": 32}}},
    },
]


@pytest.mark.parametrize("section", [*MX_CONFIGS, {}])
@pytest.mark.parametrize("suffix", ["weight_scale", "weight_scale_inv"])
def test_bytes_as_scales_of_32_are_exponents(tmp_path: Path, section: dict[str, Any], suffix: str) -> None:
    weight, scale = codes(40, 96), multipliers(40, 3, dtype=np.uint8)
    scale[0, 0] = 0
    tensors = {f"{LAYER}.weight": weight, f"{LAYER}.{suffix}": scale}
    config = quantization(**section) if section else None
    wanted = weight.astype(np.float32) * expanded(scale, 1, 32, (40, 96))
    np.testing.assert_array_equal(decoded(tmp_path / "m", tensors, LAYER, config), wanted)


GROUPS = [
    ({"strategy": "tensor"}, (1,), (40, 96)),
    ({"strategy": "channel"}, (40, 1), (1, 96)),
    ({"strategy": "block", "block_structure": [16, 48]}, (3, 2), (16, 48)),
    ({"strategy": "block", "block_structure": "16x48"}, (3, 2), (16, 48)),
    ({"strategy": "group", "group_size": 48}, (40, 2), (1, 48)),
]


@pytest.mark.parametrize(("weights", "shape", "block"), GROUPS)
def test_compressed_tensors_says_the_block_in_its_strategy(
    tmp_path: Path, weights: dict[str, Any], shape: tuple[int, ...], block: tuple[int, int]
) -> None:
    weight, scale = codes(40, 96), multipliers(*shape)
    tensors = {f"{LAYER}.weight": weight, f"{LAYER}.weight_scale": scale}
    groups = {"group_0": {"weights": {"num_bits": 8, "type": "float", **weights}}}
    config = quantization(quant_method="compressed-tensors", format="float-quantized", config_groups=groups)
    wanted = weight.astype(np.float32) * expanded(scale.reshape(shape[0], -1), *block, (40, 96))
    np.testing.assert_array_equal(decoded(tmp_path / "m", tensors, LAYER, config), wanted)


@pytest.mark.parametrize("place", ["text_config", "llm_config"])
def test_the_block_may_stand_in_the_config_of_the_language_model(tmp_path: Path, place: str) -> None:
    weight, scale = codes(64, 64), multipliers(2, 4)
    tensors = {f"{LAYER}.weight": weight, f"{LAYER}.weight_scale_inv": scale}
    config = {place: quantization(quant_method="fp8", weight_block_size=[48, 16])}
    wanted = weight.astype(np.float32) * expanded(scale, 48, 16, (64, 64))
    np.testing.assert_array_equal(decoded(tmp_path / "m", tensors, LAYER, config), wanted)


STACKS = [
    ("scale_inv", (3, 2, 2), (64, 40), quantization(quant_method="fp8", weight_block_size=[64, 40])),
    ("scale_inv", (3, 1, 1), (96, 48), quantization(quant_method="fp8", weight_block_size=None)),
    ("scale_inv", (3, 1, 1), (96, 48), None),
    ("scale", (3,), (96, 48), None),
    ("scale", (), (96, 48), None),
    ("scale", (3, 96, 1), (1, 48), None),
    ("scale_inv", (3, 3, 2), (32, 32), None),
]


@pytest.mark.parametrize(("suffix", "shape", "block", "config"), STACKS)
def test_a_stack_of_experts_has_scales_of_its_own_for_each(
    tmp_path: Path, suffix: str, shape: tuple[int, ...], block: tuple[int, int], config: Any
) -> None:
    name = f"{EXPERTS}.gate_up_proj"
    weight, scale = codes(3, 96, 48), multipliers(*shape)
    grid = np.broadcast_to(scale.reshape(-1, 1, 1), (3, 1, 1)) if len(shape) < 3 else scale
    wanted = weight.astype(np.float32) * expanded(grid, *block, (96, 48))
    settings = {**(config or CONFIG), "hidden_size": 48}
    found = decoded(tmp_path / "m", {name: weight, f"{name}_{suffix}": scale}, name, settings, 1000)
    np.testing.assert_array_equal(found, wanted.reshape(-1, 48))


def test_half_a_fused_stack_starts_in_the_middle_of_a_block(tmp_path: Path) -> None:
    name = f"{EXPERTS}.gate_up_proj"
    weight, scale = codes(2, 96, 64), multipliers(2, 2, 1)
    config = {**quantization(quant_method="fp8", weight_block_size=[64, 64]), "hidden_size": 64}
    folder = checkpoint(tmp_path / "m", {name: weight, f"{name}_scale_inv": scale}, config)
    with core.open_model(folder) as model:
        layer = model.by_name[name]
        up = next(matrix for matrix in layer.matrices if matrix.name == f"{EXPERTS}.1.up_proj")
        found = np.concatenate([read_slab(slab) for slab in slabs(layer, up, 2000)])
    wanted = (weight.astype(np.float32) * expanded(scale, 64, 64, (96, 64)))[1, 48:]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("inner", [96, 64])
def test_llama_4_stores_experts_input_first_with_a_scale_per_output(tmp_path: Path, inner: int) -> None:
    hidden = 64
    tensors = {
        f"{EXPERTS}.gate_up_proj": codes(2, hidden, 2 * inner),
        f"{EXPERTS}.gate_up_proj_scale": multipliers(2, 1, 2 * inner),
        f"{EXPERTS}.down_proj": codes(2, inner, hidden, seed=3),
        f"{EXPERTS}.down_proj_scale": multipliers(2, hidden, 1, seed=4),
    }
    config = {**quantization(quant_method="fbgemm_fp8"), "model_type": "llama4_text", "hidden_size": hidden}
    with core.open_model(checkpoint(tmp_path / "m", tensors, config)) as model:
        assert not model.quantized_by
        found = {name: read(model, f"{EXPERTS}.{name}") for name in ("gate_up_proj", "down_proj")}
    up = tensors[f"{EXPERTS}.gate_up_proj"].astype(np.float32) * tensors[f"{EXPERTS}.gate_up_proj_scale"]
    down = tensors[f"{EXPERTS}.down_proj"].astype(np.float32)
    down = down * tensors[f"{EXPERTS}.down_proj_scale"].transpose(0, 2, 1)
    np.testing.assert_array_equal(found["gate_up_proj"], up.transpose(0, 2, 1).reshape(-1, hidden))
    np.testing.assert_array_equal(found["down_proj"], down.transpose(0, 2, 1).reshape(-1, inner))


@pytest.mark.parametrize("shape", [(24, 48), (2, 24, 48)])
@pytest.mark.parametrize("dtype", [E8M0, np.uint8])
def test_fp4_of_deepseek_is_told_from_integers_by_its_scales(
    tmp_path: Path, shape: tuple[int, ...], dtype: Any
) -> None:
    packed = np.random.default_rng(5).integers(-128, 128, shape).astype(np.int8)
    scale = multipliers(*shape[:-1], 3, dtype=dtype)
    stack = len(shape) == 3
    name = f"{EXPERTS}.down_proj" if stack else "layers.0.ffn.experts.0.w1"
    tensors = {name if stack else f"{name}.weight": packed, f"{name}_scale" if stack else f"{name}.scale": scale}
    raw = packed.view(np.uint8)
    values = np.stack([np.array(FP4_VALUES, np.float32)[raw & 15], np.array(FP4_VALUES, np.float32)[raw >> 4]], -1)
    wanted = values.reshape(-1, 96) * number(scale).reshape(-1, 3).repeat(32, 1)
    with core.open_model(checkpoint(tmp_path / "m", tensors, {**CONFIG, "hidden_size": 24})) as model:
        assert model.by_name[name].shape == (*shape[:-1], 96)
        np.testing.assert_array_equal(read(model, name, 1000).view(np.uint32), wanted.view(np.uint32))


def test_a_mere_cast_is_its_codes_also_where_it_is_no_matrix(tmp_path: Path) -> None:
    tensors = {f"{LAYER}.weight": codes(32, 64), "model.norm.weight": codes(64), "model.conv.weight": codes(4, 3, 16)}
    with core.open_model(checkpoint(tmp_path / "m", tensors)) as model:
        assert not model.quantized_by
        for layer in model.layers:
            np.testing.assert_array_equal(read(model, layer.name).reshape(layer.shape), tensors[layer.tensor.name])


def test_reading_into_scratch_gives_the_same(tmp_path: Path) -> None:
    tensors = {f"{LAYER}.weight": codes(200, 300), f"{LAYER}.weight_scale_inv": multipliers(2, 3)}
    scratch = Scratch()
    with core.open_model(checkpoint(tmp_path / "m", tensors)) as model:
        layer = model.by_name[LAYER]
        for slab in slabs(layer, layer.matrices[0], 30_000):
            np.testing.assert_array_equal(read_slab(slab, scratch), read_slab(slab))


def test_deepseek_v4_keeps_its_own_parameters_that_are_called_scale(tmp_path: Path) -> None:
    own = {"layers.0.hc_attn_scale": np.ones(3, np.float32), "layers.0.l2_clip.scale": np.ones(1, BF16)}
    tensors = {
        "layers.0.attn.wq_a.weight": codes(64, 64),
        "layers.0.attn.wq_a.scale": multipliers(1, 1, dtype=E8M0),
        **own,
    }
    config = quantization(quant_method="fp8", scale_fmt="ue8m0", weight_block_size=[128, 128])
    with core.open_model(checkpoint(tmp_path / "m", tensors, config)) as model:
        assert {layer.tensor.name for layer in model.layers} == {"layers.0.attn.wq_a.weight", *own}


IDLE = [
    f"{LAYER}.input_scale",
    f"{LAYER}.activation_scale",
    f"{LAYER}.input_scale_ub",
    f"{LAYER}.qscale_act",
    "model.layers.0.self_attn.k_scale",
    "model.layers.0.self_attn.v_proj.v_scale",
    "model.layers.0.self_attn.k_proj.output_scale",
    f"{EXPERTS}.gate_up_proj_activation_scale",
]


def test_scales_of_activations_and_caches_are_left_out_and_counted(tmp_path: Path) -> None:
    tensors = {f"{LAYER}.weight": codes(40, 64), f"{LAYER}.weight_scale": multipliers()}
    tensors |= {name: np.array(0.01, BF16 if "act" in name else np.float32) for name in IDLE}
    with core.open_model(checkpoint(tmp_path / "m", tensors)) as model:
        assert [layer.name for layer in model.layers] == [LAYER]
        assert [warning for warning in model.warnings if "8 scales of activations" in warning] == list(model.warnings)


def test_in_a_plain_checkpoint_they_are_parameters_like_any_other(tmp_path: Path) -> None:
    with core.open_model(checkpoint(tmp_path / "m", {**llama(1), "model.k_scale": np.ones(1, np.float32)})) as model:
        assert "model.k_scale" in model.by_name
        assert not model.warnings


def fp8_llama(**changes: Array) -> dict[str, Array]:
    """A llama of one block whose two projections are FP8, one in blocks and one by row; large enough to be ragged."""
    return {
        **llama(1, hidden=192, inner=384),
        f"{LAYER}.weight": codes(384, 192),
        f"{LAYER}.weight_scale_inv": multipliers(3, 2),
        f"{DOWN}.weight": codes(192, 384, seed=2),
        f"{DOWN}.weight_scale_inv": multipliers(2, 3, seed=3),
        **changes,
    }


FP8_CONFIG = {**quantization(quant_method="fp8", weight_block_size=[128, 128]), "hidden_size": 192}


def truth(tensors: dict[str, Array], name: str) -> NDArray[np.float32]:
    weight = tensors[f"{name}.weight"]
    wide: NDArray[np.float32] = weight.astype(np.float32)
    return wide * expanded(tensors[f"{name}.weight_scale_inv"], 128, 128, weight.shape)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "fp8", fp8_llama(), FP8_CONFIG)


def stored(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    for tensor in tensors_of(path).values():
        yield tensor.name, tensor.dtype, data[tensor.start : tensor.start + tensor.nbytes]


@pytest.mark.parametrize("layout", list(core.LAYOUTS))
def test_a_kept_layer_is_rounded_once_to_bf16_and_verified(
    studio: Studio, source: Path, tmp_path: Path, layout: str
) -> None:
    options = ("--layout", layout, "--exclude", "*down_proj")
    assert studio("quantize", source, tmp_path / "out", *options).code == 0
    found = {name: (dtype, data) for name, dtype, data in stored(tmp_path / "out")}
    assert found[f"{DOWN}.weight"] == ("BF16", truth(fp8_llama(), DOWN).astype(BF16).tobytes())
    assert not [name for name in found if name.endswith("weight_scale_inv")]
    assert "weight_block_size" not in (tmp_path / "out" / "config.json").read_text()
    assert studio("verify", tmp_path / "out", "--source", source).code == 0


def test_codes_are_chosen_from_float32_not_from_rounded_weights(studio: Studio, source: Path, tmp_path: Path) -> None:
    assert studio("quantize", source, tmp_path / "out", "--layout", "modelopt", "--method", "max").code == 0
    found = {name: data for name, _, data in stored(tmp_path / "out")}
    weight = truth(fp8_llama(), DOWN)
    g = float(reference.tensor_scale(float(np.abs(weight).max())))
    wanted = reference.encode(weight, recipe("nvfp4-3t"), g)
    rounded = reference.encode(weight.astype(BF16), recipe("nvfp4-3t"), g)
    assert found[f"{DOWN}.weight"] == wanted.codes.tobytes()
    assert found[f"{DOWN}.weight_scale"] == wanted.scales.tobytes()
    assert rounded.codes.tobytes() != wanted.codes.tobytes()
    assert studio("verify", tmp_path / "out", "--source", source).code == 0


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_format_is_exported_at_the_size_said_and_verified(
    studio: Studio, source: Path, tmp_path: Path, name: str
) -> None:
    able = (row for row in core.LAYOUTS.values() if name in row.formats and name not in row.static_inputs)
    layout = next(able).name
    how = ("--layout", layout, "--format", name, "--method", "max")
    assert studio("quantize", source, tmp_path / "out", *how).code == 0
    assert studio("verify", tmp_path / "out", "--source", source).code == 0
    with core.open_model(source) as model:
        (choice,) = [
            c
            for c in core.resolve(core.preset("linear").with_format(name).with_method("max"), model)
            if c.layer.name == DOWN
        ]
        written = tensors_of(tmp_path / "out" / "model.safetensors")
        parts = [tensor for tensor in written.values() if tensor.name.startswith(DOWN) and tensor.dtype != "I64"]
        assert choice.nbytes == sum(part.nbytes for part in parts)
        assert {part.dtype for part in parts} <= {"U32", "I32", "U8", "F8_E4M3", "BF16", "F32"}
        if FORMATS[name].affine:
            assert {part.dtype for part in parts} == {"U32" if layout == "mlx" else "I32", "BF16"}


@pytest.mark.parametrize("name", ["int4-g32", "int8-g64"])
def test_rounded_affine_scales_are_measured_as_the_definition_says(source: Path, name: str) -> None:
    weight = truth(fp8_llama(), DOWN)
    with core.open_model(source) as model, core.start(core.Machine(threads=1), model) as engine:
        layer = model.by_name[DOWN]
        quantized, fidelity = encode(engine.backend, layer, layer.matrices[0], weight, recipe(name), 1.0, blocks=True)
    wanted = reference.fidelity(weight, quantized, blocks=True)
    assert quantized.scales.dtype == BF16
    assert quantized.codes.tobytes() == reference.encode(weight, recipe(name)).codes.tobytes()
    assert (fidelity.max_error, fidelity.vanished) == (wanted.max_error, wanted.vanished)
    np.testing.assert_allclose(fidelity.row_error, wanted.row_error, rtol=1e-12)
    np.testing.assert_allclose(fidelity.row_squares, wanted.row_squares, rtol=1e-12)
    assert fidelity.block_error is not None
    np.testing.assert_allclose(fidelity.block_error, wanted.block_error, rtol=1e-6)


def test_a_kept_layer_that_was_changed_on_disk_does_not_verify(studio: Studio, source: Path, tmp_path: Path) -> None:
    assert studio("quantize", source, tmp_path / "out", "--exclude", "*down_proj").code == 0
    changed = fp8_llama(**{f"{DOWN}.weight_scale_inv": multipliers(2, 3, seed=4)})
    other = checkpoint(tmp_path / "other", changed, FP8_CONFIG)
    ran = studio("verify", tmp_path / "out", "--source", other)
    assert ran.code == 2
    assert DOWN in ran.err


@pytest.mark.parametrize("layout", list(core.LAYOUTS))
@pytest.mark.parametrize("options", [(), ("--exclude", "*experts*")])
def test_stacked_fp8_experts_are_exported_and_verified(
    studio: Studio, tmp_path: Path, layout: str, options: tuple[str, ...]
) -> None:
    tensors = {
        **llama(1),
        f"{EXPERTS}.gate_up_proj": codes(2, 96, 64),
        f"{EXPERTS}.gate_up_proj_scale_inv": multipliers(2, 2, 1),
        f"{EXPERTS}.down_proj": codes(2, 64, 48, seed=2),
        f"{EXPERTS}.down_proj_scale_inv": multipliers(2, 1, 1, seed=3),
    }
    config = quantization(quant_method="fp8", weight_block_size=[64, 64])
    source = checkpoint(tmp_path / "m", tensors, config)
    assert studio("quantize", source, tmp_path / "out", "--layout", layout, *options).code == 0
    assert studio("verify", tmp_path / "out", "--source", source).code == 0
    assert "F8_E4M3" not in {dtype for name, dtype, _ in stored(tmp_path / "out") if "scale" not in name}


@pytest.mark.parametrize("layout", list(core.LAYOUTS))
@pytest.mark.parametrize("options", [(), ("--exclude", "*experts*")])
def test_fp4_experts_are_exported_and_verified(
    studio: Studio, tmp_path: Path, layout: str, options: tuple[str, ...]
) -> None:
    tensors = dict(llama(1))
    for number, part in enumerate(("gate_proj", "up_proj")):
        packed = np.random.default_rng(number).integers(-128, 128, (64, 64)).astype(np.int8)
        tensors |= {f"{EXPERTS}.0.{part}.weight": packed, f"{EXPERTS}.0.{part}.scale": multipliers(64, 4, dtype=E8M0)}
    source = checkpoint(tmp_path / "m", tensors)
    assert studio("quantize", source, tmp_path / "out", "--layout", layout, *options).code == 0
    assert studio("verify", tmp_path / "out", "--source", source).code == 0
    found = {dtype for name, dtype, _ in stored(tmp_path / "out") if name.endswith(".weight") and "gate" in name}
    assert ("BF16" in found) == bool(options)
    assert "I8" not in found


def test_layers_that_only_can_be_kept_leave_as_bf16_too(studio: Studio, tmp_path: Path) -> None:
    tensors = {**llama(1), "model.conv.weight": codes(4, 8, 16), "model.odd.weight": codes(8, 24)}
    source = checkpoint(tmp_path / "m", tensors)
    assert studio("quantize", source, tmp_path / "out", "--layout", "modelopt", "--method", "max").code == 0
    assert studio("verify", tmp_path / "out", "--source", source).code == 0
    found = {name: (dtype, data) for name, dtype, data in stored(tmp_path / "out")}
    for name in ("model.conv.weight", "model.odd.weight"):
        assert found[name] == ("BF16", tensors[name].astype(BF16).tobytes())


def test_a_dtype_of_the_config_that_names_fp8_becomes_bf16(studio: Studio, tmp_path: Path) -> None:
    config = {**CONFIG, "torch_dtype": "float8_e4m3fn", "text_config": {"dtype": "torch.float8_e4m3fn"}}
    source = checkpoint(tmp_path / "m", {**llama(1), f"{LAYER}.weight": codes(128, 64)}, config)
    assert studio("quantize", source, tmp_path / "out", "--layout", "modelopt", "--method", "max").code == 0
    text = (tmp_path / "out" / "config.json").read_text()
    assert "float8" not in text
    assert text.count('"bfloat16"') == 2


def test_two_readings_of_the_same_bytes_differ_in_their_meaning(source: Path, tmp_path: Path) -> None:
    def meanings(folder: Path) -> list[str]:
        with core.open_model(folder) as model:
            return [model.by_name[name].source.meaning for name in (LAYER, DOWN)]

    other = checkpoint(tmp_path / "m", fp8_llama(), quantization(quant_method="fp8", weight_block_size=[130, 130]))
    assert meanings(source) == ["FP8 (E4M3), F32 scales of 128 x 128"] * 2
    assert meanings(other) == ["FP8 (E4M3), F32 scales of 130 x 130"] * 2


@pytest.mark.parametrize("value", [0x7F, 0xFF])
def test_codes_that_are_no_number_are_refused_with_their_count(studio: Studio, tmp_path: Path, value: int) -> None:
    weight = codes(384, 192).view(np.uint8).copy()
    weight[3, 5:8] = value
    source = checkpoint(tmp_path / "m", fp8_llama(**{f"{LAYER}.weight": weight.view(FP8)}), FP8_CONFIG)
    ran = studio("quantize", source, tmp_path / "out")
    assert ran.code == 2
    assert "3 NaN" in ran.err
    assert studio("quantize", source, tmp_path / "out", "--skip-nonfinite").code == 0
    assert studio("verify", tmp_path / "out", "--source", source).code == 0


@pytest.mark.parametrize("dtype", [E8M0, np.uint8])
@pytest.mark.parametrize("options", [(), ("--exclude", "*up_proj"), ("--skip-nonfinite",)])
def test_an_exponent_that_is_no_number_is_refused_whatever_is_done_with_the_weight(
    studio: Studio, tmp_path: Path, dtype: Any, options: tuple[str, ...]
) -> None:
    scale = multipliers(128, 2, dtype=dtype)
    scale.view(np.uint8)[2, 1] = 255
    tensors = {**llama(1), f"{LAYER}.weight": codes(128, 64), f"{LAYER}.weight_scale_inv": scale}
    ran = studio("quantize", checkpoint(tmp_path / "m", tensors), tmp_path / "out", *options)
    assert ran.code == 2
    assert f"tensor {LAYER}.weight: 1 of its scales" in ran.err
    assert "E8M0 255" in ran.err
    assert not (tmp_path / "out").exists()


@pytest.mark.proof
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc, which is Linux's")
@pytest.mark.parametrize("options", [(), ("--exclude", "*gate_proj")])
def test_memory_does_not_grow_with_an_fp8_tensor(tmp_path: Path, options: tuple[str, ...]) -> None:
    def peak(rows: int) -> int:
        tensors = {
            "model.layers.0.mlp.up_proj.weight": np.zeros((rows, 4096), FP8),
            "model.layers.0.mlp.up_proj.weight_scale": np.ones((rows, 128), E8M0),
            "model.layers.0.mlp.gate_proj.weight": np.zeros((rows, 4096), FP8),
            "model.layers.0.mlp.gate_proj.weight_scale": np.ones((rows, 128), E8M0),
        }
        return anonymous_peak(checkpoint(tmp_path / f"m{rows}", tensors), tmp_path / f"out{rows}", *options)

    small, large = peak(2048), peak(16384)
    assert large < 150_000
    assert large < small + 20_000


def test_the_statistics_are_those_of_the_float32_weights(source: Path) -> None:
    weight = truth(fp8_llama(), DOWN)
    with core.open_model(source) as model, core.start(core.Machine(threads=1), model) as engine:
        choices = core.resolve(core.preset("linear"), model)
        events = [event for event in core.measure(engine, model, choices) if isinstance(event, core.LayerDone)]
    (result,) = [event.result for event in events if event.result.name == DOWN]
    assert result.statistics is not None
    assert result.statistics.max_abs == float(np.abs(weight).max())
    assert result.sum_squares == pytest.approx(float((weight.astype(np.float64) ** 2).sum()), rel=1e-7)
    assert result.statistics.max_abs != float(np.abs(weight.astype(ml_dtypes.bfloat16)).max())
