"""NVIDIA ModelOpt: its unified Hugging Face export in every format that it makes on a processor, alone and mixed."""

import copy
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import modelopt.torch.quantization as mtq
import numpy as np
import torch
from modelopt.torch.export import export_hf_checkpoint, unified_export_hf
from modelopt.torch.export.model_config import QUANTIZATION_FP8, QUANTIZATION_INT8_WO
from modelopt.torch.export.quant_utils import from_quantized_weight
from modelopt.torch.quantization.qtensor import FP8QTensor, MXFP4QTensor, MXFP8QTensor, NVFP4QTensor
from safetensors.torch import load_file

from tests.interop.making import Made, Maker
from tests.interop.torch_models import as_numpy, load, weights

_TOKENS = torch.arange(96).reshape(2, 48) * 37 % 4096
_SCALES = ("weight_scale", "weight_scale_2", "input_scale", "pre_quant_scale")
Parts = Mapping[str, torch.Tensor]


def _make(config: Mapping[str, Any], name: str, dtype: torch.dtype, sources: Path, target: Path) -> Made:
    model = load(sources / name, dtype)
    plain = weights(model)
    mtq.quantize(model, copy.deepcopy(dict(config)), forward_loop=lambda model: model(_TOKENS))
    integers: dict[bytes, torch.Tensor] = {}
    unified_export_hf.to_quantized_weight = partial(_packed, _PACK, integers)
    with torch.no_grad():
        export_hf_checkpoint(model, dtype=dtype, export_dir=target)
    stored = {key: value for path in sorted(target.glob("*.safetensors")) for key, value in load_file(path).items()}
    decoded = {}
    for key, value in stored.items():
        path, _, leaf = key.rpartition(".")
        parts = {part: stored[f"{path}.{part}"] for part in _SCALES if f"{path}.{part}" in stored}
        if leaf == "weight":
            decoded[key] = as_numpy(_decoded(value, parts, integers))
        if leaf == "weight" and "pre_quant_scale" in parts:
            decoded[key] = decoded[key] * as_numpy(parts["pre_quant_scale"])
            assert _is_near(decoded[key], plain[key])
    return Made(decoded, "its QTensors, in float32")


def _is_near(decoded: np.ndarray, plain: np.ndarray) -> bool:
    """What inputs are multiplied by belongs to the weights: with it they are those of the source again."""
    return bool(np.linalg.norm(decoded - plain) < 0.2 * np.linalg.norm(plain))


_PACK = unified_export_hf.to_quantized_weight


def _packed(
    pack: Callable[..., torch.Tensor],
    integers: dict[bytes, torch.Tensor],
    weight: torch.Tensor,
    *rest: Any,
    **named: Any,
) -> torch.Tensor:
    """Pack as the package does; and note what integers of four bits stand for, which it does not unpack itself."""
    found = pack(weight, *rest, **named)
    if found.dtype == torch.uint8 and 2 * found.shape[0] == weight.shape[0]:
        scales = rest[0].to(weight.device)
        wide = scales.repeat_interleave(weight.shape[1] // scales.shape[1], 1)
        integers[_key(found)] = (weight / wide).round().clamp(-8, 7).float() * wide.float()
    return found


def _key(packed: torch.Tensor) -> bytes:
    return packed.detach().contiguous().numpy().tobytes()


def _decoded(codes: torch.Tensor, parts: Parts, integers: Mapping[bytes, torch.Tensor]) -> torch.Tensor:
    scales = parts.get("weight_scale")
    if scales is None:
        return codes
    if codes.dtype == torch.uint8:
        if _key(codes) in integers:
            return integers[_key(codes)]
        shape = torch.Size((codes.shape[0], 2 * codes.shape[1]))
        if "weight_scale_2" in parts:
            block = shape[1] // scales.shape[1]
            how = {"scale": scales, "double_scale": parts["weight_scale_2"], "block_sizes": {-1: block}}
            return NVFP4QTensor(shape, torch.float32, codes).dequantize(torch.float32, **how)
        made = MXFP4QTensor(shape, torch.float32, codes)
        return made.dequantize(torch.float32, scale=scales, block_sizes={-1: 32})
    if codes.dtype == torch.int8:
        return from_quantized_weight(codes, scales, QUANTIZATION_INT8_WO, torch.float32)
    if scales.dtype == torch.uint8:
        return MXFP8QTensor(codes.shape, torch.float32, codes).dequantize(torch.float32, scale=scales)
    if scales.dim() == 4:
        sides = {-2: -(-codes.shape[0] // scales.shape[0]), -1: -(-codes.shape[1] // scales.shape[2])}
        tiles = scales.reshape(scales.shape[0], scales.shape[2])
        return FP8QTensor(codes.shape, torch.float32, codes).dequantize(torch.float32, scale=tiles, block_sizes=sides)
    wide = scales[:, None] if scales.dim() == 1 else scales
    return from_quantized_weight(codes, wide, QUANTIZATION_FP8, torch.float32)


def _mixed(*rules: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The weights of modules that a pattern names as another configuration has them."""
    config = copy.deepcopy(dict(mtq.NVFP4_DEFAULT_CFG))
    for pattern, other in rules:
        for entry in other["quant_cfg"]:
            if entry.get("quantizer_name") in ("*weight_quantizer", "*input_quantizer"):
                config["quant_cfg"].append({**entry, "quantizer_name": pattern + entry["quantizer_name"]})
    return config


_BF16 = {
    "W4A4 NVFP4": mtq.NVFP4_DEFAULT_CFG,
    "W4A16 NVFP4": mtq.W4A16_NVFP4_CFG,
    "W4A8 NVFP4 FP8": mtq.W4A8_NVFP4_FP8_CFG,
    "FP8": mtq.FP8_DEFAULT_CFG,
    "FP8, rows": mtq.FP8_PER_CHANNEL_PER_TOKEN_CFG,
    "FP8, tiles": mtq.FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG,
    "MXFP8": mtq.MXFP8_DEFAULT_CFG,
    "MXFP4": mtq.MXFP4_DEFAULT_CFG,
    "W4A8 MXFP4 FP8": mtq.W4A8_MXFP4_FP8_CFG,
    "INT8, weights": mtq.INT8_WEIGHT_ONLY_CFG,
    "INT8": mtq.INT8_DEFAULT_CFG,
    "INT8 SmoothQuant": mtq.INT8_SMOOTHQUANT_CFG,
    "INT4, groups of 128": mtq.INT4_BLOCKWISE_WEIGHT_ONLY_CFG,
    "INT4 AWQ": mtq.INT4_AWQ_CFG,
    "W4A8 INT4 AWQ": mtq.W4A8_AWQ_BETA_CFG,
    "NVFP4 with FP8 attention": _mixed(("*self_attn*", mtq.FP8_DEFAULT_CFG)),
    "NVFP4 with W4A8 AWQ down": _mixed(("*down_proj*", mtq.W4A8_AWQ_BETA_CFG)),
}
CASES: dict[str, Maker] = {
    **{name: partial(_make, config, "wide", torch.bfloat16) for name, config in _BF16.items()},
    "INT4 AWQ, in float32": partial(_make, mtq.INT4_AWQ_CFG, "wide", torch.float32),
    "W4A4 NVFP4, experts": partial(_make, mtq.NVFP4_DEFAULT_CFG, "moe", torch.bfloat16),
    "FP8, experts": partial(_make, mtq.FP8_DEFAULT_CFG, "moe", torch.bfloat16),
}
