"""NVIDIA ModelOpt's unified Hugging Face export: W4A16_NVFP4, tensor scale stored as the multiplier g."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from kernels import Format
from studio.core.layouts.documents import config_without_quantization, json_document
from studio.core.layouts.placement import Content, Placement, raw, unsupported
from studio.core.layouts.torch_names import NVFP4, kept_modules, module_refusals, place_module
from studio.core.model import Layer, Matrix, Model
from studio.core.plan import Choice

_NAMES: Mapping[Content, str] = {"codes": "weight", "scales": "weight_scale", "tensor_scale": "weight_scale_2"}
_PRODUCER = {"name": "modelopt", "version": "0.47.0"}
_WEIGHTS = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16}


class ModelOpt:
    """See `Layout`. Two tiers are stored with a multiplier of 1."""

    name = "modelopt"
    title = "NVIDIA ModelOpt"
    formats: tuple[str, ...] = NVFP4
    metadata: Mapping[str, str] = MappingProxyType({"format": "pt"})
    scale_convention = "weight_scale_2 = g = max|W| / 2688 (multiplier)"
    runs = "vLLM (Marlin, weight only), TensorRT-LLM, llama.cpp after conversion, ollama"

    def refusals(self, model: Model, choices: Sequence[Choice]) -> list[str]:
        """See `Layout.refusals`."""
        return unsupported(self, choices) + module_refusals(model, choices, self.title)

    def cautions(self, model: Model, choices: Sequence[Choice]) -> list[str]:
        """See `Layout.cautions`."""
        return []

    def place(self, model: Model, layer: Layer, matrix: Matrix, row: Format) -> list[Placement]:
        """See `Layout.place`."""
        return place_module(matrix, row, _NAMES, ())

    def place_kept(self, model: Model, layer: Layer) -> list[Placement]:
        """See `Layout.place_kept`."""
        return raw(layer)

    def store_scale(self, g: float) -> np.float32:
        """See `Layout.store_scale`."""
        return np.float32(g)

    def multiplier(self, stored: np.float32) -> np.float32:
        """See `Layout.multiplier`."""
        return np.float32(stored)

    def documents(self, model: Model, choices: Sequence[Choice]) -> dict[str, bytes]:
        """config.json and hf_quant_config.json; readers look at one or the other."""
        kept = kept_modules(model, choices)
        config = config_without_quantization(model)
        config["quantization_config"] = {
            "config_groups": {"group_0": {"weights": _WEIGHTS, "targets": ["Linear"]}},
            "ignore": kept,
            "quant_algo": "W4A16_NVFP4",
            "producer": _PRODUCER,
            "quant_method": "modelopt",
        }
        quantization: dict[str, Any] = {
            "quant_algo": "W4A16_NVFP4",
            "kv_cache_quant_algo": None,
            "group_size": 16,
            "exclude_modules": kept,
        }
        beside = {"producer": _PRODUCER, "quantization": quantization}
        return {"hf_quant_config.json": json_document(beside), "config.json": json_document(config)}
