"""Stacks of block floats are quantized and kept in every layout, and what is written is what was stored."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from studio import core
from tests.core.checkpoints import CONFIG, FP8, checkpoint, gaussian, llama
from tests.core.conftest import Studio

EXPERTS = "model.layers.0.mlp.experts"


def bytes_of(*shape: int, low: int = 0, high: int = 256) -> NDArray[np.uint8]:
    return np.random.default_rng(shape).integers(low, high, shape, np.uint8)


def gpt_oss() -> dict[str, NDArray[Any]]:
    parts: dict[str, NDArray[Any]] = {}
    for name, (outputs, inputs) in {"gate_up_proj": (128, 64), "down_proj": (64, 64)}.items():
        parts[f"{EXPERTS}.{name}_blocks"] = bytes_of(2, outputs, inputs // 32, 16)
        parts[f"{EXPERTS}.{name}_scales"] = bytes_of(2, outputs, inputs // 32, low=115, high=122)
        parts[f"{EXPERTS}.{name}_bias"] = gaussian(2, outputs)
    return parts


def modelopt() -> dict[str, NDArray[Any]]:
    parts: dict[str, NDArray[Any]] = {}
    for name, (outputs, inputs) in {"gate_up_proj": (128, 64), "down_proj": (64, 64)}.items():
        parts[f"{EXPERTS}.{name}"] = bytes_of(2, inputs // 2, outputs)
        parts[f"{EXPERTS}.{name}_weight_scale"] = bytes_of(2, inputs // 16, outputs, low=0x20, high=0x50).view(FP8)
        parts[f"{EXPERTS}.{name}_weight_scale_2"] = np.full(2, 0.001, np.float32)
    return parts


@pytest.mark.parametrize("options", [(), ("--exclude", "*experts*")], ids=["quantized", "kept"])
@pytest.mark.parametrize(
    ("experts", "kind", "layout"),
    [
        *((gpt_oss, "gpt_oss", layout) for layout in core.LAYOUTS),
        (modelopt, "llama4_text", "modelopt"),
        (modelopt, "llama4_text", "compressed-tensors"),
        (modelopt, "llama4", "mlx"),
    ],
)
def test_a_stack_leaves_in_every_layout_and_is_verified(
    studio: Studio, tmp_path: Path, experts: Any, kind: str, layout: str, options: tuple[str, ...]
) -> None:
    config = {**CONFIG, "model_type": kind, "num_local_experts": 2}
    source = checkpoint(tmp_path / "m", {**llama(1), **experts()}, config)
    if layout == "compressed-tensors":
        options += ("--for", "vllm")  # transformers finds no plain experts beside packed layers
    ran = studio("quantize", source, tmp_path / "out", "--layout", layout, *options)
    assert ran.code == 0, ran.err
    assert studio("verify", tmp_path / "out", "--source", source).code == 0
