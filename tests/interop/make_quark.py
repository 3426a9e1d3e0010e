"""AMD Quark: its safetensors export in the schemes that it has for a llama, decoded by its own import."""

from functools import partial
from pathlib import Path

import torch
from quark.torch import LLMTemplate, ModelQuantizer, export_safetensors, import_model_from_safetensors
from quark.torch.export.nn.modules.qparamslinear import QParamsLinear
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from tests.interop.making import Made, Maker
from tests.interop.torch_models import as_numpy, load

_KINDS = (QParamsLinear, torch.nn.Linear, torch.nn.Embedding, LlamaRMSNorm)
_TOKENS = torch.arange(64).reshape(2, 1, 32) * 37 % 4096


def _make(scheme: str, sources: Path, target: Path) -> Made:
    model = load(sources / "wide")
    config = LLMTemplate.get("llama").get_config(scheme=scheme)
    quantizer = ModelQuantizer(config)
    frozen = quantizer.freeze(quantizer.quantize_model(model, list(_TOKENS)))
    with torch.no_grad():
        export_safetensors(frozen, str(target))
        imported = import_model_from_safetensors(load(sources / "wide"), str(target))
        modules = {path: module for path, module in imported.named_modules() if isinstance(module, _KINDS)}
        decoded = {f"{path}.weight": as_numpy(_weight(module)) for path, module in modules.items()}
    return Made(decoded, "its import", "BF16")


def _weight(module: torch.nn.Module) -> torch.Tensor:
    return module._get_qweight(module.weight) if isinstance(module, QParamsLinear) else module.weight


_SCHEMES = (
    "fp8",
    "mxfp4",
    "nvfp4",
    "int4_wo_32",
    "int4_wo_128",
    "uint4_wo_32",
    "int8",
    "ptpc_fp8",
    "mxfp6_e2m3",
    "mxfp6_e3m2",
)
CASES: dict[str, Maker] = {scheme: partial(_make, scheme) for scheme in _SCHEMES}
