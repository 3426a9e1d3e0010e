"""convert: codes move between layouts without a changed bit, what can not be exact is refused, and all is verified."""

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from kernels import FORMATS, Quantized, reference
from kernels.casts import Span, cast, exact_blocks, multiplier, span
from studio import core
from studio.core.layouts.compressed_tensors import CompressedTensors
from studio.core.sources.plus_one import plus_one
from tests.core.checkpoints import CONFIG, Tensors, checkpoint, gaussian, llama, tensors_of
from tests.core.conftest import Studio

LAYOUTS = ("mlx", "modelopt", "compressed-tensors")
BF16 = ml_dtypes.bfloat16


def contents(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Name -> dtype, shape and bytes of the tensors in a folder of one shard."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    return {
        name: (tensor.dtype, tensor.shape, data[tensor.start : tensor.start + tensor.nbytes])
        for name, tensor in tensors_of(path).items()
    }


def decoded(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Name -> weights of the matrices of a folder."""
    with core.open_model(folder) as model:
        return {
            layer.name: layer.source.rows(layer.whole, 0, layer.whole.rows).astype(np.float32)
            for layer in model.layers
            if len(layer.shape) == 2
        }


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("there", "back"), list(permutations(LAYOUTS, 2)))
@pytest.mark.parametrize("name", ["nvfp4-2t", "nvfp4-3t"])
def test_there_and_back_every_byte_is_the_same(
    studio: Studio, tmp_path: Path, there: str, back: str, name: str
) -> None:
    source = checkpoint(tmp_path / "model", llama(2))
    first, second, third = (tmp_path / part for part in ("first", "second", "third"))
    made = studio("quantize", source, first, "--layout", back, "--format", name, "--method", "max")
    assert made.code == 0, made.err
    converted = studio("convert", first, second, "--layout", there)
    assert converted.code == 0, converted.err
    assert studio("verify", second, "--source", first).code == 0
    assert studio("convert", second, third, "--layout", back).code == 0
    assert contents(third) == contents(first)
    found, wanted = decoded(second), decoded(first)
    rounded = "one unit in the last place" in converted.out
    assert not rounded or (name == "nvfp4-3t" and {there, back} != {"mlx", "modelopt"})
    for matrix, weights in wanted.items():
        np.testing.assert_allclose(found[matrix], weights, rtol=2.4e-7 if rounded else 0)


@pytest.mark.parametrize("how", [("--format", "nvfp4-3t"), ("--format", "nvfp4-2t", "--lift")], ids=["3t", "lifted"])
def test_what_was_converted_is_compared_with_what_it_was_quantized_from(
    studio: Studio, tmp_path: Path, how: tuple[str, ...]
) -> None:
    source, first, second = checkpoint(tmp_path / "model", llama(1)), tmp_path / "first", tmp_path / "second"
    assert studio("quantize", source, first, "--layout", "mlx", *how).code == 0
    assert studio("convert", first, second, "--layout", "modelopt").code == 0
    lost = {one.name: one.rel_err for one in core.exported_results(first) if one.quantized}
    taken = [one for one in core.exported_results(second) if one.quantized]
    assert {one.lift for one in taken} == {one.lift for one in core.exported_results(first) if one.quantized}
    assert not any(one.measured for one in taken)
    ran = studio("verify", second, "--source", source, "--json")
    assert ran.code == 0, ran.err
    told = [json.loads(line) for line in ran.out.splitlines()]
    assert told[-1]["notes"] == ["every byte as in SHA256SUMS; made from another checkpoint than model"]
    errors = {line["name"]: line["rel_err"] for line in told if line["event"] == "layer" and "rel_err" in line}
    assert errors == pytest.approx(lost, rel=1e-6)
    card, listed = (second / "README.md").read_text(), studio("inspect", second).out
    assert "0.0000" not in card + listed
    assert "codes as they were stored" in listed
    flipped = second / "model.safetensors"
    flipped.write_bytes(flipped.read_bytes()[:-1] + b"\x55")
    assert studio("verify", second, "--source", source).code == 2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_plain_needs_float32_where_a_tensor_scale_is_no_power_of_two(
    studio: Studio, tmp_path: Path, layout: str
) -> None:
    source, packed, plain = checkpoint(tmp_path / "model", llama(1)), tmp_path / "packed", tmp_path / "plain"
    assert studio("quantize", source, packed, "--layout", layout, "--format", "nvfp4-3t").code == 0
    refused = studio("convert", packed, plain, "--layout", "plain")
    assert refused.code == 2
    assert "--dtype float32" in refused.err
    assert "--allow-lossy" in refused.err
    assert not plain.exists()
    assert studio("convert", packed, plain, "--layout", "plain", "--dtype", "float32").code == 0
    assert studio("verify", plain, "--source", packed).code == 0
    wanted = decoded(packed)
    for name, weights in decoded(plain).items():
        np.testing.assert_array_equal(weights, wanted[name])
    assert studio("quantize", plain, tmp_path / "again", "--method", "max").code == 0
    lossy = studio("convert", packed, tmp_path / "lossy", "--layout", "plain", "--allow-lossy")
    assert lossy.code == 0
    assert "relative error" in lossy.out


def test_two_tiers_are_exact_in_bfloat16(studio: Studio, tmp_path: Path) -> None:
    source, packed, plain = checkpoint(tmp_path / "model", llama(1)), tmp_path / "packed", tmp_path / "plain"
    assert studio("quantize", source, packed, "--layout", "modelopt", "--format", "nvfp4-2t").code == 0
    assert studio("convert", packed, plain, "--layout", "plain").code == 0
    wanted = decoded(packed)
    for name, weights in decoded(plain).items():
        np.testing.assert_array_equal(weights, wanted[name])


def test_what_no_layout_stores_is_refused_with_what_does(studio: Studio, tmp_path: Path) -> None:
    ran = studio("convert", checkpoint(tmp_path / "model", llama(1)), tmp_path / "out", "--layout", "modelopt")
    assert ran.code == 2
    assert "--layout plain" in ran.err


def mx_folder(folder: Path, low: int, high: int, others: Tensors | None = None) -> Path:
    """A folder of MLX in which every matrix is MXFP4 with block exponents from `low` to `high`; `others` beside it."""
    rng = np.random.default_rng(11)
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for name, value in llama(1).items():
        if value.ndim == 2 and "proj" in name:
            rows, columns = value.shape
            tensors[name] = rng.integers(0, 256, (rows, columns // 2), np.uint8).view(np.uint32)
            scales = rng.integers(low + 127, high + 128, (rows, columns // 32), np.uint8)
            scales[0, 0], scales[-1, -1] = low + 127, high + 127
            tensors[name.removesuffix("weight") + "scales"] = scales
        else:
            tensors[name] = value
    section = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
    return checkpoint(folder, {**tensors, **(others or {})}, {**CONFIG, "quantization": section})


@pytest.mark.parametrize(
    ("low", "high", "exact"), [(-9, -2, True), (-20, -6, True), (-30, -13, True), (-30, -12, False)]
)
def test_mxfp4_becomes_nvfp4_where_its_exponents_allow_it(
    studio: Studio, tmp_path: Path, low: int, high: int, exact: int
) -> None:
    source, target = mx_folder(tmp_path / "mx", low, high), tmp_path / "out"
    ran = studio("convert", source, target, "--layout", "modelopt", "--dtype", "float32")
    if not exact:
        assert ran.code == 2
        assert "nothing of it can be stored" in ran.err
        return
    assert ran.code == 0, ran.err
    assert "cast exactly" in ran.out
    found, wanted = decoded(target), decoded(source)
    for name, weights in wanted.items():
        np.testing.assert_array_equal(found[name], weights)
    assert studio("verify", target, "--source", source).code == 0


def test_tensor_scales_that_differ_in_a_fused_group_are_not_handed_to_readers_that_join_it(
    studio: Studio, tmp_path: Path
) -> None:
    source, packed = checkpoint(tmp_path / "model", llama(1)), tmp_path / "packed"
    assert studio("quantize", source, packed, "--layout", "mlx", "--format", "nvfp4-3t").code == 0
    (packed / "nvfp4_studio.json").unlink()
    path, data = packed / "model.safetensors", bytearray((packed / "model.safetensors").read_bytes())
    name = next(name for name in tensors_of(path) if name.endswith("k_proj.global_scale"))
    start = tensors_of(path)[name].start
    data[start : start + 4] = (np.frombuffer(data[start : start + 4], np.float32) * 2).tobytes()
    path.write_bytes(bytes(data))
    ran = studio("convert", packed, tmp_path / "out", "--layout", "modelopt", "--dtype", "float32")
    assert ran.code == 0, ran.err
    assert "whose tensor scales differ" in ran.out
    found, wanted = decoded(tmp_path / "out"), decoded(packed)
    for name, weights in wanted.items():
        np.testing.assert_array_equal(found[name], weights)


@pytest.mark.parametrize("kind", ["qwen3_next", "lfm2_moe"])
@pytest.mark.parametrize("layout", ["mlx", "modelopt"])
def test_what_mlx_lm_stores_with_other_values_is_turned_into_nothing_else(
    studio: Studio, tmp_path: Path, kind: str, layout: str
) -> None:
    source = mx_folder(tmp_path / "mx", -9, -2)
    config = {**CONFIG, "model_type": kind, "quantization": {"group_size": 32, "bits": 4, "mode": "mxfp4"}}
    (source / "config.json").write_text(json.dumps(config))
    ran = studio("convert", source, tmp_path / "out", "--layout", layout)
    assert ran.code == 2
    assert "than its makers; this program can not turn them back" in ran.err


def test_norms_and_convolutions_that_mlx_lm_changed_are_turned_back_and_go_to_mlx_as_they_were(
    studio: Studio, tmp_path: Path
) -> None:
    conv = "model.layers.0.linear_attn.conv1d.weight"
    config = {**CONFIG, "model_type": "qwen3_next", "quantization": {"group_size": 32, "bits": 4, "mode": "mxfp4"}}
    norms = {f"model.layers.0.{name}layernorm.weight": np.full(64, 0.9, BF16) for name in ("input_", "post_attention_")}
    norms["model.layers.0.input_layernorm.weight"][3] = 0.1
    kernel = gaussian(16, 4, 1, dtype=BF16)
    source = mx_folder(tmp_path / "mx", -9, -2, {conv: kernel, **norms})
    (source / "config.json").write_text(json.dumps(config))
    with core.open_model(source) as model:
        assert model.by_name[conv.removesuffix(".weight")].shape == (16, 1, 4)
        kept = {name: model.by_name[name.removesuffix(".weight")].kept_dtype for name in norms}
        assert list(kept.values()) == ["F32", "BF16"]
        assert any("norms with 1 added" in text and "1 of them needs float32" in text for text in model.warnings)
    for layout in ("mlx", "plain"):
        ran = studio("convert", source, tmp_path / layout, "--layout", layout)
        assert ran.code == 0, ran.err
    written, plain = tmp_path / "mlx" / "model.safetensors", tmp_path / "plain" / "model.safetensors"
    for name, values in {**norms, conv: kernel}.items():
        np.testing.assert_array_equal(stored(written, name), values.astype(np.float32))
    for name, values in norms.items():
        np.testing.assert_array_equal(stored(plain, name), values.astype(np.float32) - np.float32(1))
    assert (tensors_of(written)[conv].shape, tensors_of(plain)[conv].shape) == ((16, 4, 1), (16, 1, 4))


def stored(path: Path, name: str) -> np.ndarray[Any, Any]:
    """A tensor of BF16 or F32 of a file."""
    tensor = tensors_of(path)[name]
    raw = path.read_bytes()[tensor.start : tensor.start + tensor.nbytes]
    return np.frombuffer(raw, np.float32 if tensor.dtype == "F32" else BF16).astype(np.float32).reshape(tensor.shape)


@pytest.mark.parametrize(("kind", "code"), [("llama", 0), ("deepseek_v3", 2), ("unheard_of", 2)])
def test_names_of_mlx_leave_it_only_where_they_are_those_of_the_makers(
    studio: Studio, tmp_path: Path, kind: str, code: int
) -> None:
    source = mx_folder(tmp_path / "mx", -9, -2)
    config = {**CONFIG, "model_type": kind, "quantization": {"group_size": 32, "bits": 4, "mode": "mxfp4"}}
    (source / "config.json").write_text(json.dumps(config))
    assert studio("convert", source, tmp_path / "out", "--layout", "modelopt").code == code


def test_giving_up_codes_is_said_once(studio: Studio, tmp_path: Path) -> None:
    ran = studio("measure", mx_folder(tmp_path / "mx", -9, -2), "--format", "nvfp4-3t", "--method", "max")
    assert ran.code == 0, ran.err
    assert ran.err.count("quantized already, as MXFP4") == 1
    assert "convert keeps the codes" in ran.err


def test_a_divisor_is_chosen_whose_reciprocal_is_the_multiplier_where_there_is_one() -> None:
    layout = CompressedTensors()
    scales = np.exp2(np.random.default_rng(5).uniform(-12, 2, 2000)).astype(np.float32)
    back = np.array([layout.multiplier(layout.store_scale(float(g))) for g in scales])
    exact = back == scales
    small = np.frexp(scales)[0] < np.sqrt(0.5)
    assert exact[small].all()
    assert exact.mean() > 0.8
    np.testing.assert_allclose(back, scales, rtol=1.2e-7)


@pytest.mark.parametrize("spread", range(20))
def test_a_multiplier_exists_for_seventeen_octaves(spread: int) -> None:
    found = Span(-30, -30 + spread)
    g = multiplier(found)
    assert (g is not None) == (spread <= 17)
    if g is not None:
        scales = np.exp2(np.arange(found.low, found.high + 1)) / g
        np.testing.assert_array_equal(reference.e4m3_decode(reference.e4m3_encode(scales.astype(np.float32))), scales)
        assert (scales >= 2.0**-6).all() == (spread <= 14)


def test_casts_keep_every_weight_or_say_which_blocks_they_lose() -> None:
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 256, (8, 32), np.uint8)
    codes[2] = 0x80
    mx = Quantized(FORMATS["mxfp4"], codes, rng.integers(120, 130, (8, 2), np.uint8))
    g = multiplier(span(mx))
    assert g is not None
    nv = cast(mx, FORMATS["nvfp4-3t"], g)
    np.testing.assert_array_equal(reference.decode(nv), reference.decode(mx))
    np.testing.assert_array_equal(reference.decode(cast(nv, FORMATS["mxfp4"])), reference.decode(mx))
    odd = Quantized(FORMATS["nvfp4-2t"], codes, rng.integers(0x30, 0x40, (8, 4), np.uint8))
    exact = exact_blocks(odd, FORMATS["mxfp4"])
    assert not exact.all()
    assert exact[2].all()
    with pytest.raises(ValueError, match="not exact in mxfp4"):
        cast(odd, FORMATS["mxfp4"])
    with pytest.raises(ValueError, match="do not both hold E2M1"):
        cast(odd, FORMATS["mxfp8"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_stopped_conversion_goes_on_and_ends_in_the_same_bytes(studio: Studio, tmp_path: Path, layout: str) -> None:
    source, packed = checkpoint(tmp_path / "model", llama(3)), tmp_path / "packed"
    assert studio("quantize", source, packed, "--layout", "modelopt", "--format", "nvfp4-2t").code == 0
    whole, stopped, how = tmp_path / "whole", tmp_path / "stopped", ("--layout", layout, "--shard-size", "9K")
    assert studio("convert", packed, whole, *how).code == 0
    target, _ = core.layout_for(layout, "")
    with core.open_model(packed) as model, core.start(core.Machine(threads=1), model) as engine:
        ended = list(core.transcode(engine, model, target))[-1]
        assert isinstance(ended, core.Transcoded)
        job = core.prepare_conversion(model, ended.transcoding, target, stopped, shard_nbytes=9000)
        events = core.export(engine, job)
        assert len(job.shards) > 2
        next(event for event in events if isinstance(event, core.ShardWritten))
        events.close()  # type: ignore[attr-defined]
    ran = studio("convert", packed, stopped, *how)
    assert ran.code == 0, ran.err
    assert ran.err.count("resumed: ") == 1
    files = sorted(path.name for path in whole.iterdir())
    assert sorted(path.name for path in stopped.iterdir()) == files
    assert all((stopped / name).read_bytes() == (whole / name).read_bytes() for name in files)


def _renamed_by_mlx_lm(kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """Config and weights of an architecture whose names, shapes or biases mlx-lm changes."""
    block = "model.layers.0"
    attention = {f"{block}.self_attn.{name}_proj.weight": gaussian(64, 64, seed=i) for i, name in enumerate("qkvo")}
    common = {"model.embed_tokens.weight": gaussian(96, 64), "model.norm.weight": gaussian(64), **attention}
    own = {
        "lfm2_moe": {
            f"{block}.feed_forward.w1.weight": gaussian(128, 64, seed=5),
            f"{block}.feed_forward.w2.weight": gaussian(64, 128, seed=6),
            f"{block}.feed_forward.w3.weight": gaussian(128, 64, seed=7),
            f"{block}.conv.conv.weight": gaussian(64, 1, 3, seed=8),
        },
        "qwen3_next": {
            f"{block}.input_layernorm.weight": gaussian(64, seed=4) + np.array(0.1, BF16),
            f"{block}.post_attention_layernorm.weight": np.linspace(-0.9, 5, 64).astype(BF16),
            f"{block}.linear_attn.conv1d.weight": gaussian(64, 1, 3, seed=8),
            f"{block}.mlp.gate.weight": gaussian(4, 64, seed=4),
            **{
                f"{block}.mlp.experts.{expert}.{name}_proj.weight": gaussian(*shape, seed=9 + expert)
                for expert in range(4)
                for name, shape in (("gate", (128, 64)), ("up", (128, 64)), ("down", (64, 128)))
            },
        },
        "gpt_oss": {
            f"{block}.mlp.router.weight": gaussian(4, 64, seed=4),
            f"{block}.mlp.experts.gate_up_proj": gaussian(4, 64, 256, seed=5),
            f"{block}.mlp.experts.gate_up_proj_bias": gaussian(4, 256, seed=6),
            f"{block}.mlp.experts.down_proj": gaussian(4, 128, 64, seed=7),
            f"{block}.mlp.experts.down_proj_bias": gaussian(4, 64, seed=8),
        },
    }
    config = {**CONFIG, "model_type": kind, "architectures": ["X"], "hidden_size": 64, "num_hidden_layers": 1}
    return {**config, "num_local_experts": 4, "tie_word_embeddings": True}, {**common, **own[kind]}


@pytest.mark.parametrize(
    ("kind", "excluded"), [("lfm2_moe", "*o_proj"), ("gpt_oss", "*o_proj"), ("gpt_oss", "*.experts.*")]
)
def test_names_and_forms_of_our_own_exports_for_mlx_are_turned_back(
    studio: Studio, tmp_path: Path, kind: str, excluded: str
) -> None:
    config, tensors = _renamed_by_mlx_lm(kind)
    source, packed, plain = checkpoint(tmp_path / "model", tensors, config), tmp_path / "packed", tmp_path / "plain"
    how = ("--layout", "mlx", "--format", "nvfp4-2t", "--exclude", excluded)
    assert studio("quantize", source, packed, *how).code == 0
    assert contents(packed).keys() != contents(source).keys()
    ran = studio("convert", packed, plain, "--layout", "plain")
    assert ran.code == 0, ran.err
    found, wanted = contents(plain), contents(source)
    assert {name: part[:2] for name, part in found.items()} == {name: part[:2] for name, part in wanted.items()}
    with core.open_model(packed) as model:
        names = {layer.weight_name for layer in model.layers if layer.source.format is None}
    assert len(names) > 3
    assert {name: found[name] for name in names} == {name: wanted[name] for name in names}
    assert studio("convert", packed, tmp_path / "again", "--layout", "mlx").code == 0
    assert contents(tmp_path / "again") == contents(packed)
    for other in (plain, tmp_path / "again"):
        ran = studio("compare", packed, other)
        assert "B decodes to the weights of A, bit by bit." in ran.out
        assert "only" not in ran.out
    assert studio("quantize", packed, tmp_path / "anew", "--layout", "mlx", "--format", "mxfp8").code == 0


def test_norms_that_mlx_lm_has_with_one_added_are_those_of_the_export_without(studio: Studio, tmp_path: Path) -> None:
    config, tensors = _renamed_by_mlx_lm("qwen3_next")
    source, packed, plain = checkpoint(tmp_path / "model", tensors, config), tmp_path / "packed", tmp_path / "plain"
    assert studio("quantize", source, packed, "--layout", "mlx", "--format", "nvfp4-2t").code == 0
    ran = studio("convert", packed, plain, "--layout", "plain")
    assert ran.code == 0, ran.err
    assert contents(plain).keys() == contents(source).keys()
    added = contents(packed)
    with core.open_model(plain) as model:
        for layer in model.layers:
            if layer.role == "norm":
                wanted = np.frombuffer(added[f"{layer.name}.weight"][2], BF16).astype(np.float32) - 1
                found = layer.source.rows(layer.whole, 0, 1).astype(np.float32).ravel()
                np.testing.assert_array_equal(found, wanted)
        assert {layer.tensor.dtype for layer in model.layers if layer.role == "norm"} == {"BF16"}
        assert model.by_name["model.layers.0.linear_attn.conv1d"].shape == (64, 1, 3)
    again = tmp_path / "again"
    assert studio("convert", packed, again, "--layout", "mlx").code == 0
    assert contents(again) == added
    ran = studio("compare", packed, again)
    assert "B decodes to the weights of A, bit by bit." in ran.out
    assert studio("quantize", packed, tmp_path / "anew", "--layout", "mlx", "--format", "nvfp4-3t").code == 0


@pytest.mark.parametrize(("value", "dtype"), [(0.298828125, "F32"), (1.3, "BF16"), (6.0, "BF16"), (np.nan, "BF16")])
def test_a_norm_less_one_is_kept_in_a_dtype_that_holds_it(tmp_path: Path, value: float, dtype: str) -> None:
    folder = checkpoint(tmp_path / "norm", {"norm.weight": np.full(4, value, BF16)})
    with core.open_model(folder) as model:
        source = plus_one(model.layers[0].stored)
        found = source.rows(model.layers[0].whole, 0, 1)
        assert source.kept_dtype == dtype
        np.testing.assert_array_equal(found, np.full((1, 4), value, BF16).astype(np.float32) - 1)
