"""transformers: MXFP4 of gpt-oss and FP8 in tiles, stored as their makers store them, decoded by its own loader."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, FineGrainedFP8Config, Mxfp4Config

from tests.interop.making import Made, Maker
from tests.interop.torch_models import as_numpy, load, weights

_GPT_OSS: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "num_local_experts": 3,
    "num_experts_per_tok": 2,
    "vocab_size": 512,
}
_KEPT = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
Tensors = dict[str, torch.Tensor]


def _mxfp4(_sources: Path, target: Path) -> Made:
    torch.manual_seed(3)
    config = AutoConfig.for_model("gpt_oss", **_GPT_OSS)
    config.architectures = ["GptOssForCausalLM"]
    config.quantization_config = {"quant_method": "mxfp4", "modules_to_not_convert": _KEPT}
    config.save_pretrained(target)
    stored = {name: value for layer in range(2) for name, value in _experts(f"model.layers.{layer}.mlp.experts")}
    save_file({**stored, **_others()}, target / "model.safetensors", {"format": "pt"})
    loaded = load(target, quantization_config=Mxfp4Config(dequantize=True))
    state = loaded.state_dict().items()
    wanted = {name: as_numpy(value) for name, value in state}
    return Made(wanted, "its loader, dequantized", "BF16")


def _experts(path: str) -> Iterator[tuple[str, torch.Tensor]]:
    hidden, width, experts = (_GPT_OSS[key] for key in ("hidden_size", "intermediate_size", "num_local_experts"))
    for name, rows, columns in (("gate_up_proj", 2 * width, hidden), ("down_proj", hidden, width)):
        shape = (experts, rows, columns // 32)
        yield f"{path}.{name}_blocks", torch.randint(0, 256, (*shape, 16), dtype=torch.uint8)
        yield f"{path}.{name}_scales", torch.randint(115, 130, shape, dtype=torch.uint8)
        yield f"{path}.{name}_bias", torch.randn(experts, rows).bfloat16()


def _others() -> Tensors:
    """All that is not quantized, drawn for a model without quantization."""
    plain = AutoConfig.for_model("gpt_oss", **_GPT_OSS)
    state = AutoModelForCausalLM.from_config(plain, dtype=torch.bfloat16).state_dict()
    return {name: value.contiguous().clone() for name, value in state.items() if ".experts." not in name}


def _fp8(source: str, side: int, dtype: torch.dtype, sources: Path, target: Path) -> Made:
    """FP8 with a scale for tiles of so many rows and columns; 0 for one scale."""
    model = load(sources / source)
    stored: Tensors = {}
    for name, array in weights(model).items():
        value = torch.from_numpy(array)
        if "proj" not in name:
            stored[name] = value.bfloat16()
            continue
        stored[name], stored[f"{name}_scale_inv"] = _in_tiles(value, side, dtype)
    tiles = [side, side] if side else None
    model.config.quantization_config = {
        "quant_method": "fp8",
        "weight_block_size": tiles,
        "activation_scheme": "dynamic",
    }
    model.config.save_pretrained(target)
    save_file(stored, target / "model.safetensors", {"format": "pt"})
    how = FineGrainedFP8Config(weight_block_size=tuple(tiles) if tiles else None, dequantize=True)
    loaded = load(target, torch.float32, quantization_config=how)
    return Made(weights(loaded), "its loader, dequantized", "BF16")


def _in_tiles(value: torch.Tensor, side: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    if not side:
        scale = (value.abs().amax() / 448).to(dtype)
        return (value / scale.float()).to(torch.float8_e4m3fn), scale
    rows = [torch.stack([tile.abs().amax() for tile in row.split(side, 1)]) for row in value.split(side, 0)]
    scales = (torch.stack(rows) / 448).to(dtype)
    wide = scales.float().repeat_interleave(side, 0).repeat_interleave(side, 1)[: value.shape[0], : value.shape[1]]
    return (value / wide).to(torch.float8_e4m3fn), scales


CASES: dict[str, Maker] = {
    "gpt-oss MXFP4": _mxfp4,
    "FP8, tiles of 32, llama": partial(_fp8, "wide", 32, torch.float32),
    "FP8, tiles of 64, bf16 scales": partial(_fp8, "wide", 64, torch.bfloat16),
    "FP8, tiles of 32, qwen3_moe": partial(_fp8, "moe", 32, torch.float32),
    "FP8, tiles of 64, qwen3_moe": partial(_fp8, "moe", 64, torch.bfloat16),
}
