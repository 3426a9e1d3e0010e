"""Extreme weights, scales and names: finished and true to the source, or refused with the tensor; never a traceback."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.core.checkpoints import FP8, QUERY, checkpoint, gaussian, llama
from tests.core.conftest import Refused, Studio


def test_zeros_do_not_hide_the_share_that_is_lost(studio: Studio, tmp_path: Path) -> None:
    place = np.arange(64 * 64).reshape(64, 64) % 16
    weight = np.where(place == 0, 100.0, np.where(place < 3, 1e-3, 0.0))
    tensors = {**llama(1), QUERY: weight.astype(ml_dtypes.bfloat16)}
    ran = studio("quantize", checkpoint(tmp_path / "model", tensors), tmp_path / "out")
    assert ran.code == 0
    assert "q_proj: 67% of its non-zero weights became zero" in ran.err


@pytest.mark.parametrize("name", ["mxfp4", "mxfp8"])
def test_weights_too_large_for_a_format_are_refused_with_the_tensor(studio: Studio, tmp_path: Path, name: str) -> None:
    tensors = {**llama(1), QUERY: np.full((64, 64), 3.4e38, np.float32)}
    source = checkpoint(tmp_path / "model", tensors)
    ran = studio("quantize", source, tmp_path / "out", "--format", name)
    assert ran.code == 2
    assert QUERY in ran.err
    assert name in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert studio("quantize", source, tmp_path / "out", "--format", name, "--exclude", "*q_proj").code == 0


@pytest.mark.parametrize("name", ["nvfp4-2t", "nvfp4-3t", "int4-g32"])
def test_the_largest_weights_are_quantized_and_verified(studio: Studio, tmp_path: Path, name: str) -> None:
    tensors = {**llama(1), QUERY: np.full((64, 64), np.finfo(np.float32).max)}
    source = checkpoint(tmp_path / "model", tensors)
    assert studio("quantize", source, tmp_path / "out", "--format", name).code == 0
    assert studio("verify", tmp_path / "out", "--source", source).code == 0


@pytest.mark.parametrize(
    ("scale", "words"), [(3e38, "4,096"), (np.inf, "1 of its scales"), (np.nan, "1 of its scales")]
)
def test_scales_that_blow_up_an_fp8_weight_are_refused_with_counts(
    refused: Refused, tmp_path: Path, scale: float, words: str
) -> None:
    weight = {QUERY: np.full((64, 64), 448, FP8), f"{QUERY}_scale": np.array([scale], np.float32)}
    refused(checkpoint(tmp_path / "model", {**llama(1), **weight}), QUERY, words)


def test_a_row_longer_than_a_slab_is_kept_so_that_memory_stays_bounded(studio: Studio, tmp_path: Path) -> None:
    tensors = {**llama(1), "model.long.weight": gaussian(1, (1 << 20) + 16, dtype=np.float16)}
    source = checkpoint(tmp_path / "model", tensors)
    assert "rows of more than" in studio("plan", source, "--include", "model.long").out
    assert studio("quantize", source, tmp_path / "out").code == 0
    assert studio("verify", tmp_path / "out", "--source", source).code == 0


@pytest.mark.parametrize("name", ["bits.weight", "group_size.weight", "mode.weight"])
def test_a_layer_named_like_a_setting_of_the_config_is_refused(refused: Refused, tmp_path: Path, name: str) -> None:
    refused(checkpoint(tmp_path / "model", {**llama(1), name: gaussian(16, 32)}), name.removesuffix(".weight"))


def test_a_tensor_with_and_without_the_suffix_weight_is_refused(refused: Refused, tmp_path: Path) -> None:
    both = {**llama(1), QUERY.removesuffix(".weight"): gaussian(64, 64)}
    refused(checkpoint(tmp_path / "model", both), QUERY, "same name")


@pytest.mark.parametrize("name", ["model.layers.{}.x_proj.weight", "model.layers.0.mlp.experts.{}.up_proj.weight"])
@pytest.mark.parametrize("number", ["9" * 5000, "999999999", "\u0663"])
def test_a_number_in_a_name_sizes_nothing(studio: Studio, tmp_path: Path, name: str, number: str) -> None:
    source = checkpoint(tmp_path / "model", {**llama(1), name.format(number): gaussian(16, 32)})
    ran = studio("quantize", source, tmp_path / "out", "--layout", "modelopt", "--report", tmp_path / "report")
    assert ran.code == 0
    assert ran.seconds < 5


def test_every_line_of_json_is_json_whatever_the_weights_are(studio: Studio, tmp_path: Path) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    tensors = dict(llama(1))
    tensors["model.norm.weight"] = np.full(64, np.nan, np.float32)
    tensors["model.layers.0.input_layernorm.weight"] = np.full(64, np.inf, np.float32)
    tensors["model.layers.0.mlp.up_proj.weight"] = np.zeros((128, 64), np.float32)
    tensors[QUERY] = np.full((64, 64), np.finfo(np.float32).max)
    source = checkpoint(tmp_path / "model", tensors)
    ran = studio("quantize", source, tmp_path / "out", "--json", "--report", tmp_path / "report")
    assert ran.code == 0
    for line in [*ran.out.splitlines(), (tmp_path / "report" / "report.json").read_text()]:
        json.loads(line, parse_constant=refuse)
