"""NVIDIA ModelOpt's unified Hugging Face export: NVFP4 and W4A16_NVFP4, tensor scale stored as the multiplier g."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from kernels import Format
from studio.core.layouts import llama_cpp
from studio.core.layouts.completion import exported_config
from studio.core.layouts.documents import json_document
from studio.core.layouts.fitting import kept, mixed_groups, named, whole_groups
from studio.core.layouts.placement import Content, InputScale, Placement, raw, unsupported
from studio.core.layouts.torch_names import NVFP4, kept_modules, kept_wildcards, module_refusals, place_module
from studio.core.model import Layer, Matrix, Model
from studio.core.planning.plan import Choice
from studio.core.sources.modelopt import INPUT_SCALE, SCALES, TENSOR_SCALE, WEIGHT

_NAMES: Mapping[Content, str] = {"codes": WEIGHT, "scales": SCALES, "tensor_scale": TENSOR_SCALE}
_PRODUCER = {"name": "modelopt", "version": "0.47.0"}
_WEIGHTS = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16}
_INPUTS = _WEIGHTS


class ModelOpt:
    """See `Layout`. Two tiers are stored with a multiplier of 1."""

    name = "modelopt"
    title = "NVIDIA ModelOpt"
    formats: tuple[str, ...] = NVFP4
    metadata: Mapping[str, str] = MappingProxyType({"format": "pt"})
    scale_convention = "weight_scale_2 = g = max|W| / 2688 (multiplier)"
    readers: tuple[str, ...] = ("vllm", "mlx-vlm", "llama.cpp")
    joins = True
    input_scale: InputScale | None = (INPUT_SCALE, ())

    def fit(self, model: Model, choices: Sequence[Choice], reader: str) -> tuple[Choice, ...]:
        """See `Layout.fit`: what vLLM joins is quantized as a whole, or kept, as is what it can not load packed."""
        turned = "vLLM turns this weight while loading, which it can do with plain weights only"
        fitted = llama_cpp.fit(model, choices) if reader == "llama.cpp" else choices
        fitted = [kept(c, turned) if named(c, model.family.input_first) else c for c in fitted]
        names = model.family.vllm
        return whole_groups([kept(c, names.why) if named(c, names.kept) else c for c in fitted], "vLLM")

    def refusals(self, model: Model, choices: Sequence[Choice], reader: str) -> list[str]:
        """See `Layout.refusals`."""
        sentences = unsupported(self, choices) + module_refusals(model, choices, self.title, reader)
        return sentences + mixed_groups(choices, "vLLM")

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
        plain = [*kept_modules(choices), *kept_wildcards(model, choices)]
        config = exported_config(model)
        inputs = any(choice.input_scales for choice in choices)
        algorithm = "NVFP4" if inputs else "W4A16_NVFP4"
        group = {**({"input_activations": _INPUTS} if inputs else {}), "weights": _WEIGHTS, "targets": ["Linear"]}
        config["quantization_config"] = {
            "config_groups": {"group_0": group},
            "ignore": plain,
            "quant_algo": algorithm,
            "producer": _PRODUCER,
            "quant_method": "modelopt",
        }
        quantization: dict[str, Any] = {
            "quant_algo": algorithm,
            "kv_cache_quant_algo": None,
            "group_size": 16,
            "exclude_modules": plain,
        }
        beside = {"producer": _PRODUCER, "quantization": quantization}
        return {"hf_quant_config.json": json_document(beside), "config.json": json_document(config)}
