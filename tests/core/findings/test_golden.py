"""What packages wrote has no finding above a note, and what they decode four bits to is told to be that."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.checkpoints import write_json, write_safetensors
from tests.core.findings.examining import examined, kinds
from tests.core.sources.golden import items, unpacked

ITEMS = {**items("block_floats"), **items("integers")}
FOUR_BITS = ("fp4", "nf4", "int4", "awq4", "gptq4", "gptq2")
INCOMPLETE = {"fused-partly", "weight-shape", "mostly-plain", "refused", "tokenizer-missing"}
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


Spoilt = tuple[str, str, Callable[[bytes, dict[str, Any]], bytes]]


def _filled(name: str, value: bytes) -> Callable[[bytes, dict[str, Any]], bytes]:
    """The tensors whose names end so, filled with a value."""

    def spoil(content: bytes, _config: dict[str, Any]) -> bytes:
        start = 8 + int.from_bytes(content[:8], "little")
        for key, form in json.loads(content[8:start]).items():
            if key.endswith(name):
                low, high = (start + offset for offset in form["data_offsets"])
                content = content[:low] + value * ((high - low) // len(value)) + content[high:]
        return content

    return spoil


def _gone(name: str) -> Callable[[bytes, dict[str, Any]], bytes]:
    """The tensors whose names end so under another name."""
    other = f"{name[:-1]}?"
    return lambda content, _config: content.replace(f'{name}"'.encode(), f'{other}"'.encode())


def _said(**changes: Any) -> Callable[[bytes, dict[str, Any]], bytes]:
    """Other words in the section of the config, or about the weights of its one group."""

    def spoil(content: bytes, config: dict[str, Any]) -> bytes:
        section = config["quantization_config"]
        groups = section.get("config_groups")
        (next(iter(groups.values()))["weights"] if groups else section).update(changes)
        return content

    return spoil


def _undeclared(content: bytes, config: dict[str, Any]) -> bytes:
    del config["quantization_config"]
    return content


SPOILT: list[Spoilt] = [
    ("scales-nan", "gptoss_mxfp4", _filled("_scales", b"\xff")),
    ("scales-zero", "gptoss_mxfp4", _filled("_scales", b"\0")),
    ("codes-without-scales", "gptoss_mxfp4", _gone("_scales")),
    ("float16-overflow", "mlx_mxfp4", _filled(".scales", b"\xc8")),
    ("codes-without-scales", "fp4_deepseek_v4_expert", _gone(".scale")),
    ("section-missing", "fp8_deepseek_v3", _undeclared),
    ("tensor-scale-unusable", "torchao_nvfp4", _filled("_per_tensor_scale", b"\0")),
    ("inputs-missing", "modelopt_fp8", _gone(".input_scale")),
    ("scales-zero", "awq4_gemm", _filled(".scales", b"\0")),
    ("codes-without-scales", "gptq4_v1_sym", _gone(".qzeros")),
    ("claims-other-format", "gptq4_v1_sym", _said(bits=8)),
    ("claims-other-format", "awq4_gemm", _said(group_size=64)),
    ("claims-other-format", "ct_mxfp4", _said(group_size=64)),
    ("claims-other-format", "ct_int4_g32_sym_f32", _said(type="float")),
    ("float16-overflow", "ct_int8_channel", _filled("weight_scale", np.float32(1e30).tobytes())),
    ("codes-without-scales", "ct_int4_g32_asym", _gone(".weight_shape")),
    (
        "codes-without-scales",
        "gptq4_v1_sym",
        lambda raw, config: _gone(".g_idx")(_said(desc_act=True)(raw, config), {}),
    ),
    ("scales-without-codes", "gptoss_mxfp4", _gone("_blocks")),
    ("scales-nan", "torchao_nvfp4", _filled("_weight_scale", b"\x7f")),
    ("scales-negative", "torchao_nvfp4", _filled("_weight_scale", b"\xb8")),
    ("weights-zero", "fp8_deepseek_v3", _filled("o_proj.weight", b"\0")),
    ("weights-zero", "bnb_int8", _filled("q_proj.weight", b"\0")),
    ("weights-zero", "bnb_nf4", _filled("q_proj.weight", b"\0")),
    ("scales-without-codes", "gptq4_v1_sym", _gone(".qweight")),
    ("scales-without-codes", "bnb_nf4", _gone("q_proj.weight")),
    ("section-contradicts", "gptq4_v1_sym", _said(quant_method="awq")),
    ("section-contradicts", "quark_mxfp4", _said(quant_method="modelopt")),
    ("section-contradicts", "fp8_deepseek_v3", _said(quant_method="bitsandbytes")),
    ("exclusions-idle", "quark_mxfp4", _said(exclude=["transformer.output"])),
    ("sections-disagree", "modelopt_fp8", _said(num_bits=4)),
]


@pytest.mark.parametrize(("kind", "item", "spoil"), SPOILT, ids=[f"{item}-{kind}" for kind, item, _ in SPOILT])
def test_what_is_spoilt_in_it_is_found(tmp_path: Path, kind: str, item: str, spoil: Any) -> None:
    config = {"model_type": "llama", **copy.deepcopy(ITEMS[item].get("config", {}))}
    folder, _ = unpacked(tmp_path, item, config)
    path = next(folder.glob("*.safetensors"))
    path.write_bytes(spoil(path.read_bytes(), config))
    write_json(folder / "config.json", config)
    found = examined(folder)
    assert kind in kinds(found, "error", "warning"), found.findings
