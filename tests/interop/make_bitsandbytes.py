"""bitsandbytes: NF4, FP4 and LLM.int8 as transformers saves them."""

from functools import partial
from pathlib import Path
from typing import Any

import bitsandbytes
import torch
from bitsandbytes.functional import dequantize_4bit, int8_vectorwise_dequant
from transformers import BitsAndBytesConfig

from tests.interop.making import Made, Maker
from tests.interop.torch_models import as_numpy, load


def _make(dtype: torch.dtype, options: dict[str, Any], sources: Path, target: Path) -> Made:
    model = load(sources / "llama", dtype, quantization_config=BitsAndBytesConfig(**options))
    model.save_pretrained(target)
    loaded = load(target, dtype)
    decoded = {}
    for path, module in loaded.named_modules():
        weight = getattr(module, "weight", None)
        if weight is not None:
            decoded[f"{path}.weight"] = as_numpy(_decoded(module, weight))
    return Made(decoded, "its dequantize", "BF16" if dtype == torch.bfloat16 else "F32")


def _decoded(module: torch.nn.Module, weight: Any) -> torch.Tensor:
    if isinstance(module, bitsandbytes.nn.Linear4bit):
        return dequantize_4bit(weight.data, weight.quant_state)
    if isinstance(module, bitsandbytes.nn.Linear8bitLt):
        return int8_vectorwise_dequant(weight.data, weight.SCB)
    return weight


_NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
_FP4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}
_NESTED = {"bnb_4bit_use_double_quant": True}
CASES: dict[str, Maker] = {
    "NF4": partial(_make, torch.float32, _NF4),
    "NF4, bfloat16": partial(_make, torch.bfloat16, _NF4),
    "NF4, nested": partial(_make, torch.float32, _NF4 | _NESTED),
    "FP4": partial(_make, torch.float32, _FP4),
    "FP4, nested": partial(_make, torch.float32, _FP4 | _NESTED),
    "LLM.int8": partial(_make, torch.float32, {"load_in_8bit": True}),
}
