"""torchao: what transformers saves of it as safetensors: integers, FP8, NVFP4 and the MX formats."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torchao.prototype.mx_formats import NVFP4WeightOnlyConfig
from torchao.prototype.mx_formats.mx_tensor import MXTensor
from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict, unflatten_tensor_state_dict
from torchao.quantization import (
    Float8WeightOnlyConfig,
    Int8DynamicActivationInt8WeightConfig,
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
    PerAxis,
    PerGroup,
    PerRow,
    PerTensor,
)
from transformers import TorchAoConfig

from tests.interop.making import Made, Maker
from tests.interop.torch_models import as_numpy, load


def _make(config: Any, sources: Path, target: Path) -> Made:
    model = load(sources / "wide", quantization_config=TorchAoConfig(quant_type=config))
    model.save_pretrained(target)
    (path,) = target.glob("*.safetensors")
    with safe_open(path, "pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        found, _ = unflatten_tensor_state_dict(stored, file.metadata())
    return Made({name: _decoded(value) for name, value in found.items()}, "its dequantize", "BF16")


def _make_mx(dtype: Any, tiled: bool, sources: Path, target: Path) -> Made:
    """transformers has no setting that stores these on a processor."""
    model = load(sources / "wide")
    state = dict(model.state_dict())
    for name, value in state.items():
        if "proj" in name:
            state[name] = MXTensor.to_mx(value, dtype, 32, is_swizzled_scales=tiled)
    stored, said = flatten_tensor_state_dict(state)
    model.config.save_pretrained(target)
    said |= {"format": "pt"}
    save_file({name: value.contiguous() for name, value in stored.items()}, target / "model.safetensors", said)
    found = {name: as_numpy(_wide(value)) for name, value in state.items()}
    return Made(found, "its dequantize in float32")


def _wide(value: torch.Tensor) -> torch.Tensor:
    return value.dequantize(torch.float32) if isinstance(value, MXTensor) else value


def _decoded(value: torch.Tensor) -> Any:
    return as_numpy(value.dequantize() if type(value) not in (torch.Tensor, torch.nn.Parameter) else value)


_WIDTHS = range(1, 9)
_CONFIGS = {
    "INT8, rows": Int8WeightOnlyConfig(granularity=PerRow()),
    "INT8, tensor": Int8WeightOnlyConfig(granularity=PerTensor()),
    "INT8, groups": Int8WeightOnlyConfig(granularity=PerGroup(64)),
    "INT8 W8A8": Int8DynamicActivationInt8WeightConfig(),
    "FP8, weights": Float8WeightOnlyConfig(),
    "NVFP4": NVFP4WeightOnlyConfig(),
    **{f"INT{n}, groups of 32": IntxWeightOnlyConfig(getattr(torch, f"int{n}"), PerGroup(32)) for n in _WIDTHS},
    **{f"INT{n}, rows": IntxWeightOnlyConfig(getattr(torch, f"int{n}"), PerAxis(0)) for n in (4, 8)},
}
_MX = {"MXFP8": torch.float8_e4m3fn, "MXFP4": torch.float4_e2m1fn_x2}
CASES: dict[str, Maker] = {
    **{name: partial(_make, config) for name, config in _CONFIGS.items()},
    **{
        f"{name}{', tiles' * tiled}": partial(_make_mx, kind, tiled)
        for name, kind in _MX.items()
        for tiled in (False, True)
    },
}
