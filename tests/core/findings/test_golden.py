"""What packages wrote has no finding above a note, and what they decode four bits to is told to be that."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.checkpoints import write_json, write_safetensors
from tests.core.findings.examining import examined, kinds
from tests.core.sources.golden import items, unpacked

ITEMS = {**items("block_floats"), **items("integers")}
FOUR_BITS = ("fp4", "nf4", "int4", "awq4", "gptq4", "gptq2")
INCOMPLETE = {"fused-partly", "mostly-plain", "refused", "tokenizer-missing"}
"""Golden files are a few matrices of a model each."""


@pytest.mark.parametrize("item", ITEMS)
def test_what_packages_wrote(tmp_path: Path, item: str) -> None:
    folder, _ = unpacked(tmp_path, item, ITEMS[item].get("config", {}))
    found = examined(folder)
    assert kinds(found, "error", "warning") <= INCOMPLETE, found.findings


@pytest.mark.parametrize("item", ITEMS)
def test_what_packages_decode_it_to(tmp_path: Path, item: str) -> None:
    _, decoded = unpacked(tmp_path, item, {})
    plain = {name: array for name, array in decoded.items() if array.ndim > 1 and array.size >= 4096}
    if not plain:
        pytest.skip("too few weights to tell")
    tensors: dict[str, Any] = {
        f"model.layers.{at}.mlp.up_proj.weight": array for at, array in enumerate(plain.values())
    }
    write_safetensors(tmp_path / "plain" / "model.safetensors", tensors, {"format": "pt"})
    write_json(tmp_path / "plain" / "config.json", {"model_type": "llama"})
    told = "coarse-weights" in kinds(examined(tmp_path / "plain"), "warning")
    assert told == any(bits in item for bits in FOUR_BITS), [np.unique(array[0]).size for array in plain.values()]
