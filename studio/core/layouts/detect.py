"""Which quantization a checkpoint already carries, told by its tensor names, dtypes and config."""

from collections.abc import Mapping
from typing import Any

from studio.core.model import FP8, Stored
from studio.core.names import printable

_BY_SUFFIX = (
    (".weight_packed", "compressed-tensors"),
    (".weight_scale_2", "ModelOpt NVFP4"),
    (".qweight", "GPTQ or AWQ"),
    (".weight.absmax", "bitsandbytes"),
    ("._weight_qdata", "torchao"),
)


def quantization_method(stored: Mapping[str, Stored], config: Mapping[str, Any]) -> str:
    """The method that quantized a checkpoint, or "" for plain weights and for FP8 weights, which are read as plain."""
    for suffix, method in _BY_SUFFIX:
        if any(name.endswith(suffix) for name in stored):
            return _declared(config) or method
    for name, item in stored.items():
        base = name.removesuffix(".scales")
        packed = stored.get(f"{base}.weight") if base != name else None
        if packed is not None and packed.tensor.dtype == "U32" and item.tensor.dtype in ("U8", "BF16", "F16", "F32"):
            return _mlx_mode(config)
    declared = _declared(config)
    fp8 = any(item.tensor.dtype == FP8 for item in stored.values())
    return "" if declared == "fp8" or (fp8 and declared.startswith("compressed-tensors")) else declared


def _declared(config: Mapping[str, Any]) -> str:
    section = config.get("quantization_config")
    if not isinstance(section, dict) or not section.get("quant_method"):
        return ""
    detail = section.get("format") or section.get("quant_algo")
    return printable(section["quant_method"]) + (f" ({printable(detail)})" if detail else "")


def _mlx_mode(config: Mapping[str, Any]) -> str:
    section = config.get("quantization")
    mode = section.get("mode", "affine") if isinstance(section, dict) else "affine"
    return f"MLX ({printable(mode)})"
