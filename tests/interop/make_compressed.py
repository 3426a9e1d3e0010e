"""compressed-tensors: its own schemes with the range of each group, and groups of several formats in one model."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationScheme,
    QuantizationStatus,
    apply_quantization_config,
    preset_name_to_scheme,
)
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from transformers.utils.quantization_config import CompressedTensorsConfig

from tests.interop.making import Made, Maker
from tests.interop.torch_models import load, weights

_PRESETS = ("NVFP4A16", "MXFP4A16", "MXFP8A16", "MXFP6A16", "FP8_DYNAMIC", "FP8_BLOCK", "W8A8")
_LINEAR = ["Linear"]
_ATTENTION, _OTHERS = [r"re:.*self_attn\..*"], [r"re:.*mlp\..*"]
Schemes = Mapping[str, QuantizationScheme]


def _preset(name: str, targets: list[str]) -> QuantizationScheme:
    return preset_name_to_scheme(name, targets)


def _integers(bits: int, **options: Any) -> QuantizationScheme:
    """Integers of any group, with zeros of their own or without."""
    arguments = QuantizationArgs(num_bits=bits, type="int", **options)
    return QuantizationScheme(targets=_LINEAR, weights=arguments)


def _make(schemes: Schemes, sources: Path, target: Path) -> Made:
    model = load(sources / "llama")
    config = QuantizationConfig(config_groups=dict(schemes), ignore=["lm_head"])
    apply_quantization_config(model, config)
    for module in model.modules():
        if getattr(module, "quantization_scheme", None):
            _calibrate(module, module.quantization_scheme.weights)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(target)
    if "quantization_config" not in json.loads((target / "config.json").read_text(encoding="utf-8")):
        compressor.update_config(str(target))
    alone = ("fused-scales",) if any(_is_tiered(scheme) for scheme in schemes.values()) else ()
    if len(schemes) > 1:  # transformers 5.23 takes every module for one of the first group
        loaded = load(target)
        ModelCompressor.from_pretrained_model(loaded).decompress_model(loaded)
        return Made(weights(loaded), "its decompress_model", "BF16", alarms=alone)
    loaded = load(target, quantization_config=CompressedTensorsConfig(dequantize=True))
    return Made(weights(loaded), "transformers, dequantized", "BF16", alarms=alone)


def _is_tiered(scheme: QuantizationScheme) -> bool:
    """True for tensor scales: each matrix has its own here, of which vLLM takes one for all that it joins."""
    return bool(scheme.weights.strategy == "tensor_group")


def _calibrate(module: Any, said: QuantizationArgs) -> None:
    weight = module.weight.detach()
    scale = module.weight_global_scale.data if hasattr(module, "weight_global_scale") else None
    if scale is not None:
        scale.copy_(generate_gparam(weight.amin(), weight.amax()))
    low, high = _ranges(weight, tuple(module.weight_scale.shape), said)
    found, zeros = calculate_qparams(low, high, said, global_scale=scale)
    module.weight_scale.data.copy_(found)
    if hasattr(module, "weight_zero_point"):
        module.weight_zero_point.data.copy_(zeros)
    module.quantization_status = QuantizationStatus.FROZEN


def _ranges(weight: torch.Tensor, shape: tuple[int, ...], said: QuantizationArgs) -> tuple[torch.Tensor, torch.Tensor]:
    """The least and largest weight of what shares a scale."""
    if len(shape) < 2:
        return weight.amin().reshape(1), weight.amax().reshape(1)
    height, width = said.block_structure or (1, -(-weight.shape[1] // shape[1]))
    tiles = [[part.split(width, 1) for part in weight.split(height, 0)]]
    low = [[tile.amin() for tile in row] for row in tiles[0]]
    high = [[tile.amax() for tile in row] for row in tiles[0]]
    return (torch.stack([torch.stack(row) for row in low]), torch.stack([torch.stack(row) for row in high]))


_WIDTHS = range(1, 9)
_GROUPS = {
    **{f"int{n}, groups of 64": _integers(n, strategy="group", group_size=64) for n in _WIDTHS},
    **{f"int{n}, groups of 32, zeros": _integers(n, strategy="group", group_size=32, symmetric=False) for n in _WIDTHS},
    **{f"int{n}, rows, zeros": _integers(n, strategy="channel", symmetric=False) for n in _WIDTHS},
}
_MIXES = {
    "NVFP4A16 with FP8_DYNAMIC": ("NVFP4A16", "FP8_DYNAMIC"),
    "W8A8 with NVFP4A16": ("W8A8", "NVFP4A16"),
    "MXFP4A16 with MXFP8A16": ("MXFP4A16", "MXFP8A16"),
}
CASES: dict[str, Maker] = {
    **{name: partial(_make, {"group_0": _preset(name, _LINEAR)}) for name in _PRESETS},
    **{name: partial(_make, {"group_0": scheme}) for name, scheme in _GROUPS.items()},
    **{
        name: partial(_make, {"group_0": _preset(others, _OTHERS), "group_1": _preset(attention, _ATTENTION)})
        for name, (attention, others) in _MIXES.items()
    },
}
