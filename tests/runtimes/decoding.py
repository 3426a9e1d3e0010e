"""Decodes an export without a line of the code that reads exports: the safetensors package, names as the formats define
them, and the reference decoder."""

from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import deserialize

from kernels import FORMATS, Quantized
from kernels.reference import decode, e2m1_decode, e4m3_decode, unpack

Arrays = dict[str, np.ndarray]

_DTYPES: Mapping[str, Any] = {
    "BF16": ml_dtypes.bfloat16,
    "F16": np.float16,
    "F32": np.float32,
    "U8": np.uint8,
    "U32": np.uint32,
    "I32": np.int32,
    "I64": np.int64,
    "F8_E4M3": np.uint8,
}


def read_arrays(folder: Path) -> Arrays:
    """Every tensor of the model files in `folder`; E4M3 numbers as bytes."""
    return {
        name: np.frombuffer(item["data"], _DTYPES[item["dtype"]]).reshape(item["shape"])
        for path in sorted(folder.glob("model*.safetensors"))
        for name, item in deserialize(path.read_bytes())
    }


def mlx_weights(arrays: Arrays, formats: list[list[str]]) -> Arrays:
    """Float32 weights by tensor name; `formats` are (pattern, format name) pairs, the first match counts."""
    paths = {name.removesuffix(".scales") for name in arrays if name.endswith(".scales")}
    parts = ("weight", "scales", "biases", "global_scale")
    inside = {f"{path}.{part}" for path in paths for part in parts}
    weights = {name: array.astype(np.float32) for name, array in arrays.items() if name not in inside}
    for path in paths:
        row = next(FORMATS[name] for pattern, name in formats if fnmatch(path, pattern))
        packed, scales = arrays[f"{path}.weight"], arrays[f"{path}.scales"]
        codes = packed.view(np.uint8).reshape(*packed.shape[:-1], -1)
        amax = arrays.get(f"{path}.global_scale")
        g = None if amax is None else amax / np.float32(2688)
        weights[f"{path}.weight"] = decode(Quantized(row, codes, scales, arrays.get(f"{path}.biases"), g))
    return weights


def compressed_tensors_weights(arrays: Arrays) -> Arrays:
    """Float32 weights by tensor name: code x (scale x (1 / divisor))."""
    return _torch_weights(arrays, "weight_packed", "weight_global_scale", lambda stored: np.float32(1) / stored)


def modelopt_weights(arrays: Arrays) -> Arrays:
    """Float32 weights by tensor name: code x (scale x multiplier)."""
    return _torch_weights(arrays, "weight", "weight_scale_2", lambda stored: stored)


def _torch_weights(arrays: Arrays, codes: str, tensor_scale: str, multiplier: Callable[[Any], Any]) -> Arrays:
    modules = {name.removesuffix(".weight_scale") for name in arrays if name.endswith(".weight_scale")}
    inside = {f"{module}.{part}" for module in modules for part in (codes, "weight_scale", tensor_scale)}
    weights = {name: array.astype(np.float32) for name, array in arrays.items() if name not in inside}
    for module in modules:
        g = np.float32(multiplier(arrays[f"{module}.{tensor_scale}"].reshape(-1)[0]))
        packed, scales = arrays[f"{module}.{codes}"], arrays[f"{module}.weight_scale"]
        weights[f"{module}.weight"] = decode(
            Quantized(FORMATS["nvfp4-3t"], packed, scales, None, np.array(g, np.float32))
        )
    return weights


def divided_weight(arrays: Arrays, module: str) -> np.ndarray:
    """The float32 weight of a module in the order of compressed-tensors: code x (scale / divisor).

    A divisor without dimensions, as the package's own converter stores it, makes torch divide in bfloat16.
    """
    divisor = arrays[f"{module}.weight_global_scale"]
    scale = e4m3_decode(arrays[f"{module}.weight_scale"]) / divisor.reshape(-1)[0]
    if divisor.ndim == 0:
        scale = scale.astype(ml_dtypes.bfloat16).astype(np.float32)
    values = e2m1_decode(unpack(arrays[f"{module}.weight_packed"]))
    return (values.reshape(*scale.shape, 16) * scale[..., None]).reshape(values.shape)
