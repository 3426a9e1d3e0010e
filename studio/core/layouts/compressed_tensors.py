"""compressed-tensors `nvfp4-pack-quantized` (NVFP4A16): tensor scale stored as the divisor 1 / g."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from kernels import Format
from studio.core.layouts.documents import config_without_quantization, json_document
from studio.core.layouts.placement import Content, Placement, raw, unsupported
from studio.core.layouts.torch_names import NVFP4, kept_modules, module_refusals, place_module
from studio.core.model import Layer, Matrix, Model
from studio.core.plan import Choice

_NAMES: Mapping[Content, str] = {
    "codes": "weight_packed",
    "scales": "weight_scale",
    "tensor_scale": "weight_global_scale",
}
_FORMAT = "nvfp4-pack-quantized"
_WEIGHTS = {
    "num_bits": 4,
    "type": "float",
    "symmetric": True,
    "strategy": "tensor_group",
    "group_size": 16,
    "dynamic": False,
    "scale_dtype": "torch.float8_e4m3fn",
}


class CompressedTensors:
    """See `Layout`. Two tiers are stored with a divisor of 1."""

    name = "compressed-tensors"
    title = "compressed-tensors"
    formats: tuple[str, ...] = NVFP4
    metadata: Mapping[str, str] = MappingProxyType({"format": "pt"})
    scale_convention = "weight_global_scale = 1 / g = 2688 / max|W| (divisor)"
    runs = "transformers with compressed-tensors, vLLM, llama.cpp after conversion, ollama"

    def refusals(self, model: Model, choices: Sequence[Choice]) -> list[str]:
        """See `Layout.refusals`."""
        return unsupported(self, choices) + module_refusals(model, choices, self.title)

    def cautions(self, model: Model, choices: Sequence[Choice]) -> list[str]:
        """See `Layout.cautions`."""
        tiers = any(c.recipe and c.recipe.format.tensor_scale and c.layer.role == "expert" for c in choices)
        sentence = "transformers 5.23 drops the tensor scale of experts: load it with vLLM, or export two tiers for it"
        return [sentence] if tiers else []

    def place(self, model: Model, layer: Layer, matrix: Matrix, row: Format) -> list[Placement]:
        """See `Layout.place`."""
        return place_module(matrix, row, _NAMES, (1,))

    def place_kept(self, model: Model, layer: Layer) -> list[Placement]:
        """See `Layout.place_kept`."""
        return raw(layer)

    def store_scale(self, g: float) -> np.float32:
        """See `Layout.store_scale`; kept below infinity for the smallest g."""
        return np.float32(min(np.float32(1) / np.float32(g), np.finfo(np.float32).max))

    def multiplier(self, stored: np.float32) -> np.float32:
        """See `Layout.multiplier`."""
        return np.float32(1) / np.float32(stored)

    def documents(self, model: Model, choices: Sequence[Choice]) -> dict[str, bytes]:
        """config.json with the section that compressed-tensors reads."""
        group = {
            "format": _FORMAT,
            "targets": ["Linear"],
            "weights": _WEIGHTS,
            "input_activations": None,
            "output_activations": None,
        }
        config = config_without_quantization(model)
        config["quantization_config"] = {
            "config_groups": {"group_0": group},
            "format": _FORMAT,
            "global_compression_ratio": None,
            "ignore": kept_modules(model, choices),
            "kv_cache_scheme": None,
            "quant_method": "compressed-tensors",
            "quantization_status": "compressed",
            "version": "0.20.0",
        }
        return {"config.json": json_document(config)}
