"""A checkpoint some of whose layers can not be read opens all the same, and loses none of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from studio import core
from tests.core.checkpoints import FP8, checkpoint, gaussian, llama
from tests.core.conftest import Refused, Studio

LAYER = "model.layers.0.mlp.up_proj"
WHY = "codes of U8 [128, 32] with scales of F8_E4M3 [128, 3]"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    parts: dict[str, NDArray[Any]] = {
        f"{LAYER}.weight": np.zeros((128, 32), np.uint8),
        f"{LAYER}.weight_scale": np.ones((128, 3), FP8),
        f"{LAYER}.weight_scale_2": np.ones((), np.float32),
    }
    return checkpoint(tmp_path / "m", {**llama(1), **parts})


def test_the_layer_is_there_with_the_reason_and_so_are_all_others(source: Path) -> None:
    with core.open_model(source) as model:
        unread = model.by_name[LAYER]
        assert WHY in unread.obstacle
        assert not unread.matrices
        assert f"{LAYER}.weight_scale" not in {layer.name for layer in model.layers}
        assert model.by_name["model.layers.0.mlp.gate_proj"].matrices


def test_inspecting_shows_it(studio: Studio, source: Path) -> None:
    ran = studio("inspect", source, "--json")
    assert ran.code == 0
    assert WHY in ran.out


def test_measuring_leaves_it_out_with_a_warning(studio: Studio, source: Path) -> None:
    ran = studio("measure", source)
    assert ran.code == 0
    assert "left out" in ran.err
    assert WHY in ran.err


def test_quantizing_would_lose_it_and_is_refused(refused: Refused, source: Path) -> None:
    refused(source, "already quantized", f"{LAYER}.weight", WHY)


def test_measuring_nothing_but_unread_layers_is_refused(refused: Refused, tmp_path: Path) -> None:
    tensors = {"a.weight": np.zeros((8, 32), np.uint8), "a.weight_scale": np.ones((8, 3), FP8)}
    tensors |= {"a.weight_scale_2": np.ones((), np.float32)}
    refused(checkpoint(tmp_path / "m", tensors), "already quantized", command="measure")


def test_names_of_mistrals_own_code_are_warned_of(tmp_path: Path) -> None:
    name = "layers.0.attention.wq"
    tensors = {f"{name}.weight": gaussian(64, 64, sigma=60, dtype=FP8), f"{name}.qscale_weight": np.float32(0.01)[None]}
    with core.open_model(checkpoint(tmp_path / "m", tensors, {})) as model:
        assert not model.quantized_by
        assert any("rows of wq and wk" in warning for warning in model.warnings)


def test_what_a_layer_is_stored_as_is_shown(studio: Studio, tmp_path: Path) -> None:
    tensors = {"a.weight": np.zeros((8, 16), np.uint8), "a.weight_scale": np.full((8, 1), 127, np.uint8)}
    ran = studio("inspect", checkpoint(tmp_path / "m", {**llama(1), **tensors}))
    (row,) = [line for line in ran.out.splitlines() if line.split()[:1] == ["a"]]
    assert "MXFP4, ModelOpt" in row
    assert "8 x 32" in row.replace("×", "x")
