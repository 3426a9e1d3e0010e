"""compressed-tensors `nvfp4-pack-quantized` (NVFP4 and NVFP4A16): tensor scale stored as the divisor 1 / g."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from kernels import Format
from studio.core.layouts import llama_cpp
from studio.core.layouts.completion import exported_config
from studio.core.layouts.documents import json_document
from studio.core.layouts.fitting import kept, mixed_groups, named, whole_groups, with_format
from studio.core.layouts.placement import Content, InputScale, Placement, nearest_stored, raw, rows, unsupported
from studio.core.layouts.torch_names import NVFP4, kept_modules, kept_patterns, module_refusals, place_module
from studio.core.model import Layer, Matrix, Model
from studio.core.planning.plan import Choice
from studio.core.sources.compressed_tensors import CODES, INPUT_SCALE, SCALES, TENSOR_SCALE
from studio.core.sources.in_format import multiplier_of

_NAMES: Mapping[Content, str] = {
    "codes": CODES,
    "scales": SCALES,
    "tensor_scale": TENSOR_SCALE,
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
_INPUTS = {**_WEIGHTS, "dynamic": "local", "observer": "static_minmax"}


class CompressedTensors:
    """See `Layout`. Two tiers are stored with a divisor of 1."""

    name = "compressed-tensors"
    title = "compressed-tensors"
    formats: tuple[str, ...] = NVFP4
    metadata: Mapping[str, str] = MappingProxyType({"format": "pt"})
    scale_convention = "weight_global_scale = 1 / g = 2688 / max|W| (divisor)"
    readers: tuple[str, ...] = ("transformers", "vllm", "mlx-vlm", "llama.cpp")
    joins = True
    input_scale: InputScale | None = (INPUT_SCALE, (1,))

    def fit(self, model: Model, choices: Sequence[Choice], reader: str) -> tuple[Choice, ...]:
        """See `Layout.fit`: for transformers experts have two tiers, for vLLM what it joins is quantized as a whole."""
        names = model.family.transformers if reader == "transformers" else model.family.vllm
        fitted = llama_cpp.fit(model, choices) if reader == "llama.cpp" else tuple(choices)
        fitted = tuple(kept(c, names.why) if named(c, names.kept) else c for c in fitted)
        if reader == "transformers":
            dropped = "two tiers, since transformers drops the tensor scale of experts"
            fitted = tuple(with_format(c, "nvfp4-2t", dropped) if _is_tiered_expert(c) else c for c in fitted)
        return whole_groups(fitted, "vLLM")

    def refusals(self, model: Model, choices: Sequence[Choice], reader: str) -> list[str]:
        """See `Layout.refusals`."""
        refused = model.family.transformers.refused if reader == "transformers" else ""
        sentences = [f"{refused}; --for vllm writes what vLLM loads"] if refused else []
        sentences += unsupported(self, choices) + module_refusals(model, choices, self.title, reader)
        return sentences + mixed_groups(choices, "vLLM")

    def cautions(self, model: Model, choices: Sequence[Choice]) -> list[str]:
        """See `Layout.cautions`."""
        found = []
        if any(map(_is_tiered_expert, choices)):
            found.append("transformers 5.23 drops the tensor scale of these experts: load this export with vLLM")
        if any(choice.input_scales and choice.layer.role == "expert" for choice in choices):
            found.append("transformers 5.23 leaves the inputs of experts as they are")
        if model.family.transformers.dequantized:
            found.append("transformers 5.23 loads this architecture with CompressedTensorsConfig(dequantize=True) only")
        return found

    def place(self, model: Model, layer: Layer, matrix: Matrix, row: Format) -> list[Placement]:
        """See `Layout.place`."""
        return place_module(matrix, row, _NAMES, (1,))

    def place_kept(self, model: Model, layer: Layer) -> list[Placement]:
        """See `Layout.place_kept`."""
        single = model.family.transformers.split and any(matrix.expert is not None for matrix in layer.matrices)
        return rows(layer) if single else raw(layer)

    def store_scale(self, g: float) -> np.float32:
        """See `Layout.store_scale`."""
        return nearest_stored(1.0 / g, g, self.multiplier)

    def multiplier(self, stored: np.float32) -> np.float32:
        """See `Layout.multiplier`."""
        return np.float32(multiplier_of(float(stored), "divisor"))

    def documents(self, model: Model, choices: Sequence[Choice]) -> dict[str, bytes]:
        """config.json with the section that compressed-tensors reads."""
        heads = any(choice.recipe and choice.layer.role == "head" for choice in choices)
        group = {
            "format": _FORMAT,
            "targets": ["Linear", "re:.*lm_head$"] if heads else ["Linear"],
            "weights": _WEIGHTS,
            "input_activations": _INPUTS if any(choice.input_scales for choice in choices) else None,
            "output_activations": None,
        }
        config = exported_config(model)
        config["quantization_config"] = {
            "config_groups": {"group_0": group},
            "format": _FORMAT,
            "global_compression_ratio": None,
            "ignore": [*kept_modules(choices), *(f"re:{text}" for text in kept_patterns(model, choices))],
            "kv_cache_scheme": None,
            "quant_method": "compressed-tensors",
            "quantization_status": "compressed",
            "version": "0.20.0",
        }
        return {"config.json": json_document(config)}


def _is_tiered_expert(choice: Choice) -> bool:
    return choice.recipe is not None and choice.recipe.format.tensor_scale and choice.layer.role == "expert"
