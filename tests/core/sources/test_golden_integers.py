"""Integers and codes of four bits that the packages themselves made: every weight is what the package decodes it to."""

from pathlib import Path

import numpy as np
import pytest

from studio import core
from tests.core.conftest import Studio
from tests.core.sources.golden import items, unpacked

ITEMS = items("integers")
MEANINGS = {
    "awq4_gemm": "INT4, groups of 32, AWQ",
    "bnb_fp4": "FP4, blocks of 64, bitsandbytes",
    "bnb_int8": "INT8, a scale per row, bitsandbytes",
    "bnb_nf4": "NF4, blocks of 64, bitsandbytes",
    "bnb_nf4_nested": "NF4, blocks of 64, scales of 8 bits, bitsandbytes",
    "ct_int4_g32_asym": "INT4, groups of 32, compressed-tensors",
    "ct_int4_g32_sym_bf16": "INT4, groups of 32, compressed-tensors",
    "ct_int4_g32_sym_f32": "INT4, groups of 32, compressed-tensors",
    "ct_int8_channel": "INT8, a scale per row, compressed-tensors",
    "ct_int8_naive_channel": "INT8, a scale per row, compressed-tensors",
    "gptq2_v1_asym": "INT2, groups of 32, GPTQ",
    "gptq4_v1_asym": "INT4, groups of 32, GPTQ",
    "gptq4_v1_sym": "INT4, groups of 32, GPTQ",
    "gptq4_v2_asym": "INT4, groups of 32, GPTQ v2",
    "gptq8_v1_sym": "INT8, groups of 32, GPTQ",
}
HANDED_ON = {
    "awq4_gemm": ("int4-g32", "F32"),
    "ct_int4_g32_sym_bf16": ("int4-g32", "BF16"),
    "gptq2_v1_asym": ("int2-g32", "F32"),
    "gptq4_v1_asym": ("int4-g32", "F32"),
    "gptq4_v1_sym": ("int4-g32", "F16"),
    "gptq4_v2_asym": ("int4-g32", "F32"),
    "gptq8_v1_sym": ("int8-g32", "F16"),
}


@pytest.mark.parametrize("item", ITEMS)
def test_what_a_package_made_decodes_to_what_that_package_decodes(tmp_path: Path, item: str) -> None:
    folder, decoded = unpacked(tmp_path, item, ITEMS[item]["config"])
    with core.open_model(folder) as model:
        assert not model.quantized_by
        assert not model.warnings
        assert len(decoded) == 1
        for name, wanted in decoded.items():
            layer = model.by_name[name.removesuffix(".weight")]
            assert layer.weight_name == name
            assert layer.shape == wanted.shape
            assert layer.source.meaning == MEANINGS[item]
            found = layer.source.rows(layer.whole, 0, layer.whole.rows)
            np.testing.assert_array_equal(found.astype(wanted.dtype), wanted)


@pytest.mark.parametrize("item", ITEMS)
def test_any_rows_are_those_of_the_whole(tmp_path: Path, item: str) -> None:
    folder, _ = unpacked(tmp_path, item, ITEMS[item]["config"])
    chance = np.random.default_rng(len(item))
    with core.open_model(folder) as model:
        (layer,) = model.layers
        (matrix,) = layer.matrices
        whole = layer.source.rows(matrix, 0, matrix.rows)
        for _ in range(12):
            start, stop = sorted(chance.choice(matrix.rows + 1, 2, replace=False))
            np.testing.assert_array_equal(layer.source.rows(matrix, int(start), int(stop)), whole[start:stop])


@pytest.mark.parametrize("item", HANDED_ON)
def test_what_mlx_has_a_format_for_is_handed_on_exactly(studio: Studio, tmp_path: Path, item: str) -> None:
    folder, decoded = unpacked(tmp_path, item, ITEMS[item]["config"])
    ran = studio("convert", folder, tmp_path / "out", "--layout", "mlx")
    assert ran.code == 0, ran.err
    assert "1 codes kept" in ran.out
    assert ("scales in F32" in ran.out) == (HANDED_ON[item][1] == "F32")
    assert studio("verify", tmp_path / "out", "--source", folder).code == 0
    with core.open_model(tmp_path / "out") as model:
        (layer,) = model.layers
        assert layer.source.format
        assert (layer.source.format.name, layer.source.scale_dtype) == HANDED_ON[item]
        (wanted,) = decoded.values()
        np.testing.assert_array_equal(layer.source.rows(layer.whole, 0, len(wanted)).astype(wanted.dtype), wanted)


@pytest.mark.parametrize("item", sorted(ITEMS.keys() - HANDED_ON.keys()))
def test_what_mlx_has_none_for_is_refused_and_decoded(studio: Studio, tmp_path: Path, item: str) -> None:
    folder, decoded = unpacked(tmp_path, item, ITEMS[item]["config"])
    ran = studio("convert", folder, tmp_path / "mlx", "--layout", "mlx", "--dtype", "float32")
    assert ran.code == 2
    assert "nothing of it can be stored in the formats of MLX" in ran.err
    assert studio("convert", folder, tmp_path / "out", "--layout", "plain", "--dtype", "float32").code == 0
    with core.open_model(tmp_path / "out") as model:
        (layer,) = model.layers
        (wanted,) = decoded.values()
        np.testing.assert_array_equal(layer.source.rows(layer.whole, 0, len(wanted)).astype(wanted.dtype), wanted)
