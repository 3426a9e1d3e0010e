"""Integers around zero go into compressed-tensors and back as they are, proved block by block."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels import STORED_FORMATS, recipe, reference
from kernels.casts import cast, exact_blocks
from kernels.quantized import Quantized
from studio import core
from tests.core.checkpoints import BF16, CONFIG, checkpoint, tensors_of
from tests.core.conftest import Studio
from tests.core.sources.golden import items, unpacked
from tests.core.sources.integer_files import Array, Drawn, stream

HIDDEN, INNER = 128, 256
SHAPES = {
    **{f"self_attn.{name}_proj": (HIDDEN, HIDDEN) for name in "qkvo"},
    **{f"mlp.{name}_proj": (INNER, HIDDEN) for name in ("gate", "up")},
    "mlp.down_proj": (HIDDEN, INNER),
}
GPTQ = {"quant_method": "gptq", "sym": True, "desc_act": False}
ROUND = {"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq", "sym": True}


def drawn(bits: int, group: int, dtype: Any) -> dict[str, Drawn]:
    """Integers around zero for every matrix of a block."""
    found = {f"model.layers.0.{name}": Drawn(shape, bits, group or shape[1], dtype) for name, shape in SHAPES.items()}
    for one in found.values():
        one.zeros[:] = 1 << (bits - 1)
    return found


def gptq(one: Drawn, path: str) -> Mapping[str, Array]:
    return one.gptq(path, 1)


def packed(one: Drawn, path: str) -> Mapping[str, Array]:
    shape = {f"{path}.weight_shape": np.array(one.shape)}
    return {f"{path}.weight_packed": stream(one.codes, one.bits), f"{path}.weight_scale": one.scales, **shape}


def naive(one: Drawn, path: str) -> Mapping[str, Array]:
    return {f"{path}.weight": (one.codes - 128).astype(np.int8), f"{path}.weight_scale": one.scales}


def said(bits: int, group: int, kind: str) -> dict[str, Any]:
    weights = {"type": "int", "num_bits": bits, "symmetric": True, "group_size": group or None}
    weights["strategy"] = "group" if group else "channel"
    return {"quant_method": "compressed-tensors", "format": kind, "config_groups": {"g": {"weights": weights}}}


SOURCES: dict[str, tuple[int, int, Any, Callable[[Drawn, str], Mapping[str, Array]], dict[str, Any], str]] = {
    "gptq": (4, 128, np.float16, gptq, {**GPTQ, "bits": 4, "group_size": 128}, "int4-sym-g128"),
    "gptq, eight bits": (8, 32, np.float16, gptq, {**GPTQ, "bits": 8, "group_size": 32}, "int8-sym-g32"),
    "auto-round": (4, 64, np.float16, gptq, {**ROUND, "bits": 4, "group_size": 64}, "int4-sym-g64"),
    "packed": (4, 32, BF16, packed, said(4, 32, "pack-quantized"), "int4-sym-g32"),
    "packed, a scale per row": (8, 0, BF16, packed, said(8, 0, "pack-quantized"), "int8-sym-g128"),
    "naive": (8, 0, BF16, naive, said(8, 0, "int-quantized"), "int8-sym-g128"),
}


def source(folder: Path, kind: str, change: Callable[[dict[str, Drawn]], None] = lambda _: None) -> dict[str, Drawn]:
    """A checkpoint of a kind; what its matrices hold."""
    bits, group, dtype, store, section, _ = SOURCES[kind]
    found = drawn(bits, group, dtype)
    change(found)
    tensors: dict[str, Array] = {"model.norm.weight": np.ones(HIDDEN, BF16)}
    for path, one in found.items():
        tensors |= store(one, path)
    checkpoint(folder, tensors, {**CONFIG, "hidden_size": HIDDEN, "quantization_config": section})
    return found


def weights(folder: Path) -> dict[str, Array]:
    with core.open_model(folder) as model:
        chosen = [layer for layer in model.layers if len(layer.shape) == 2]
        return {one.name: one.source.rows(one.whole, 0, one.whole.rows).astype(np.float32) for one in chosen}


@pytest.mark.parametrize("kind", SOURCES)
def test_they_become_integers_of_compressed_tensors_and_go_on_to_mlx_and_back(
    studio: Studio, tmp_path: Path, kind: str
) -> None:
    bits, _, dtype, _, _, name = SOURCES[kind]
    held = source(tmp_path / "m", kind)
    ran = studio("convert", tmp_path / "m", tmp_path / "ct", "--layout", "compressed-tensors")
    assert ran.code == 0, ran.err
    assert "7 cast exactly" in ran.out
    stored = tensors_of(tmp_path / "ct" / "model.safetensors")
    scale = stored["model.layers.0.mlp.up_proj.weight_scale"]
    assert (scale.dtype, scale.shape[1]) == ("BF16" if dtype is BF16 else "F16", HIDDEN // STORED_FORMATS[name].block)
    found = weights(tmp_path / "ct")
    for path, one in held.items():
        np.testing.assert_array_equal(found[path], one.weights())
    assert studio("verify", tmp_path / "ct", "--source", tmp_path / "m").code == 0
    with core.open_model(tmp_path / "ct") as model:
        assert {layer.source.format.name for layer in model.layers if layer.source.format} == {name}
    ran = studio("convert", tmp_path / "ct", tmp_path / "mlx", "--layout", "mlx")
    assert "7 cast exactly" in ran.out
    assert studio("convert", tmp_path / "mlx", tmp_path / "back", "--layout", "compressed-tensors").code == 0
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (
        tmp_path / "ct" / "model.safetensors"
    ).read_bytes()
    assert f"INT{bits}" in STORED_FORMATS[name].title


def test_one_group_with_another_zero_is_told_and_not_rounded(studio: Studio, tmp_path: Path) -> None:
    def lean(found: dict[str, Drawn]) -> None:
        found["model.layers.0.self_attn.o_proj"].zeros[5, 0] = 7

    held = source(tmp_path / "m", "auto-round", lean)
    config = (tmp_path / "m" / "config.json").read_text()
    (tmp_path / "m" / "config.json").write_text(config.replace('"sym": true', '"sym": false'))
    ran = studio("convert", tmp_path / "m", tmp_path / "ct", "--layout", "compressed-tensors", "--dtype", "float32")
    assert ran.code == 0, ran.err
    assert "6 cast exactly, 1 decoded" in ran.out
    assert "99.6% of its blocks are exact in int4-sym-g64" in ran.out
    o_proj = held["model.layers.0.self_attn.o_proj"]
    np.testing.assert_array_equal(
        weights(tmp_path / "ct")["model.layers.0.self_attn.o_proj"], o_proj.weights(o_proj.zeros)
    )


@pytest.mark.parametrize("item", ["ct_int4_g32_sym_bf16", "gptq4_v1_sym", "gptq8_v1_sym"])
def test_what_packages_made_reads_as_they_decode_it(studio: Studio, tmp_path: Path, item: str) -> None:
    folder, decoded = unpacked(tmp_path, item, items("integers")[item]["config"])
    ran = studio("convert", folder, tmp_path / "ct", "--layout", "compressed-tensors", "--for", "vllm")
    assert ran.code == 0, ran.err
    assert "1 cast exactly" in ran.out
    ((name, wanted),) = decoded.items()
    found = weights(tmp_path / "ct")[name.removesuffix(".weight")]
    np.testing.assert_array_equal(found.astype(wanted.dtype), wanted)


@pytest.mark.parametrize("name", ["int4-g32", "int8-g128"])
def test_only_blocks_around_zero_are_exact_and_no_scale_becomes_infinite(name: str) -> None:
    row = STORED_FORMATS[name]
    around = STORED_FORMATS[name.replace("-g", "-sym-g")]
    weight = np.random.default_rng(1).standard_normal((3, 2 * row.block)).astype(np.float32)
    affine = reference.encode(weight, recipe(name))
    assert not exact_blocks(affine, around).all()
    with pytest.raises(ValueError, match=f"blocks of {name} are not exact"):
        cast(affine, around)
    centred = reference.encode(weight, recipe(around.name)) if around.name in core.FORMATS else None
    if centred is not None:
        there = cast(centred, row)
        np.testing.assert_array_equal(reference.decode(there), reference.decode(centred))
        again = cast(there, around)
        np.testing.assert_array_equal(again.scales, centred.scales)
    large = Quantized(row, affine.codes, np.full((3, 2), 6e4, np.float32), np.full((3, 2), -6e4 * 8, np.float32))
    assert not exact_blocks(large, STORED_FORMATS[name], dtype=np.float16).any()


def test_groups_are_cut_and_other_widths_are_refused() -> None:
    codes = np.zeros((1, 64), np.uint8)
    wide = Quantized(STORED_FORMATS["int4-g128"], codes, np.ones((1, 1), np.float32), np.full((1, 1), -8, np.float32))
    found = cast(wide, STORED_FORMATS["int4-sym-g32"])
    assert found.scales.shape == (1, 4)
    for name in ("int8-sym-g128", "int2-g32"):
        with pytest.raises(ValueError, match="do not both hold integers in such groups"):
            cast(wide, STORED_FORMATS[name])
