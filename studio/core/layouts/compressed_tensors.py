"""compressed-tensors: NVFP4 (tensor scale stored as the divisor 1 / g), MXFP4, MXFP8, FP8, in groups of a config."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from kernels import STORED_FORMATS, Format
from studio.core.architectures import joins_single_experts
from studio.core.architectures.joined import ONE_PIECE
from studio.core.layouts import llama_cpp
from studio.core.layouts.completion import exported_config
from studio.core.layouts.documents import json_document
from studio.core.layouts.fitting import kept, mixed_groups, named, whole_groups, whole_tiles, with_format
from studio.core.layouts.placement import InputScale, Placement, nearest_stored, raw, rows, unsupported
from studio.core.layouts.torch_names import (
    Part,
    kept_modules,
    kept_patterns,
    module_refusals,
    place_module,
    target_patterns,
)
from studio.core.model import Layer, Matrix, Model
from studio.core.names import printable
from studio.core.planning.plan import Choice
from studio.core.sources.compressed_tensors import CODES, INPUT_SCALE, SCALES, TENSOR_SCALE
from studio.core.sources.in_format import multiplier_of


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a format is stored: its name for the package, its arguments there, and the parts of a module.

    A part without a dtype has that of the weights where they are kept. inputs: how vLLM quantizes
    the inputs as it runs; without that it has no kernel for experts, nor for tiles.
    """

    format: str
    weights: Mapping[str, Any]
    parts: tuple[Part, ...]
    inputs: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """What tells it from others."""
        told = ("num_bits", "strategy", "group_size")
        return " ".join([self.format, *(str(self.weights.get(key, "")) for key in told)])


_FLOAT = {"type": "float", "symmetric": True, "dynamic": False}
_NVFP4 = Scheme(
    "nvfp4-pack-quantized",
    {
        **_FLOAT,
        "num_bits": 4,
        "strategy": "tensor_group",
        "group_size": 16,
        "scale_dtype": "torch.float8_e4m3fn",
    },
    (("codes", CODES, "U8"), ("scales", SCALES, "F8_E4M3"), ("tensor_scale", TENSOR_SCALE, "F32")),
)
_MX = {**_FLOAT, "strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"}
_FP8 = {**_FLOAT, "num_bits": 8}
_BY_TENSOR = {**_FP8, "dynamic": True, "strategy": "tensor"}
_BY_TOKEN = {**_FP8, "dynamic": True, "strategy": "token"}
_BY_TILE = {**_FP8, "dynamic": True, "strategy": "group", "group_size": 128}
_TILED: tuple[Part, ...] = (("codes", "weight", "F8_E4M3"), ("scales", SCALES, "F32"))
_WHOLE: tuple[Part, ...] = (("codes", "weight", "F8_E4M3"), ("multiplier", SCALES, "F32"))
_INTEGERS: tuple[Part, ...] = (("codes", CODES, "I32"), ("scales", SCALES, ""), ("shape", "weight_shape", "I64"))


def _integers(bits: int, group_size: int) -> Scheme:
    numbers = {"num_bits": bits, "type": "int", "symmetric": True, "strategy": "group", "group_size": group_size}
    return Scheme("pack-quantized", {**numbers, "dynamic": False}, _INTEGERS)


SCHEMES: Mapping[str, Scheme] = {
    "nvfp4-2t": _NVFP4,
    "nvfp4-3t": _NVFP4,
    "mxfp4": Scheme("mxfp4-pack-quantized", {**_MX, "num_bits": 4}, (("codes", CODES, "U8"), ("scales", SCALES, "U8"))),
    "mxfp8": Scheme(
        "mxfp8-quantized", {**_MX, "num_bits": 8}, (("codes", "weight", "F8_E4M3"), ("scales", SCALES, "U8"))
    ),
    "fp8-tensor": Scheme("float-quantized", {**_FP8, "strategy": "tensor"}, _WHOLE, _BY_TENSOR),
    "fp8-channel": Scheme("float-quantized", {**_FP8, "strategy": "channel"}, _TILED, _BY_TOKEN),
    "fp8-block": Scheme(
        "float-quantized", {**_FP8, "strategy": "block", "block_structure": [128, 128]}, _TILED, _BY_TILE
    ),
    **{name: _integers(row.bits, row.block) for name, row in STORED_FORMATS.items() if row.symmetric},
}
"""By format; those of one scheme are one group of the config."""

_INPUTS = {**_NVFP4.weights, "dynamic": "local", "observer": "static_minmax"}
_MIXED = "mixed-precision"
OWN_INPUTS = "leaves the inputs of experts as they are, and comes to other logits (4.7 % off in a small qwen3_moe)"
_UNREAD = ("mxfp8", "fp8-block")
"""Formats in which transformers does not read experts."""


class CompressedTensors:
    """See `Layout`. Two tiers are stored with a divisor of 1."""

    name = "compressed-tensors"
    title = "compressed-tensors"
    formats: tuple[str, ...] = tuple(SCHEMES)
    metadata: Mapping[str, str] = MappingProxyType({"format": "pt"})
    scale_convention = "weight_global_scale = 1 / g = 2688 / max|W| (divisor)"
    readers: tuple[str, ...] = ("transformers", "vllm", "mlx-vlm", "llama.cpp")
    joins = True
    input_scale: InputScale | None = (INPUT_SCALE, (1,))
    static_inputs: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()

    def fit(self, model: Model, choices: Sequence[Choice], reader: str) -> tuple[Choice, ...]:
        """See `Layout.fit`: for transformers experts have two tiers, for vLLM what it joins is quantized as a whole."""
        names = model.family.transformers if reader == "transformers" else model.family.vllm
        fitted = llama_cpp.convertible(model, choices) if reader == "llama.cpp" else tuple(choices)
        fitted = tuple(kept(c, names.why) if named(c, names.kept) else c for c in fitted)
        if reader == "transformers":
            single = model.family.transformers.split or joins_single_experts(model.config)
            fitted = tuple(kept(c, ONE_PIECE) if _is_stack(c) and not single else c for c in fitted)
            dropped = "two tiers, since transformers drops the tensor scale of experts"
            fitted = tuple(with_format(c, "nvfp4-2t", dropped) if _is_tiered_expert(c) else c for c in fitted)
            unread = "transformers 5.23 reads experts in 8 bits under a scale per tensor or row only"
            fitted = tuple(kept(c, unread) if _is_expert(c) and c.format in _UNREAD else c for c in fitted)
        if reader == "vllm":
            rounding = [replace(c, rounds_inputs=True) if _has_inputs(c) else c for c in fitted]
            fitted = whole_tiles(rounding)
        return whole_groups(fitted, "vLLM")

    def rounded(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        """See `Layout.rounded`."""
        groups = config.get("quantization_config", {}).get("config_groups", {}).values()
        dynamic = any((group.get("input_activations") or {}).get("dynamic") is True for group in groups)
        return tuple(name for name, scheme in SCHEMES.items() if scheme.inputs) if dynamic else ()

    def refusals(self, model: Model, choices: Sequence[Choice], reader: str) -> list[str]:
        """See `Layout.refusals`."""
        refused = model.family.transformers.refused if reader == "transformers" else ""
        sentences = [f"{refused}; --for vllm writes what vLLM loads"] if refused else []
        sentences += unsupported(self, choices) + module_refusals(model, choices, self.title, reader)
        if (
            reader == "transformers"
            and len({SCHEMES[c.format].name for c in choices if _is_expert(c) and c.format in SCHEMES}) > 1
        ):
            sentences.append("transformers 5.23 reads all experts by one scheme: store them in one format")
        return sentences + mixed_groups(choices, "vLLM")

    def cautions(self, model: Model, choices: Sequence[Choice]) -> list[str]:
        """See `Layout.cautions`."""
        found = []
        if any(map(_is_tiered_expert, choices)):
            found.append("transformers 5.23 drops the tensor scale of these experts: load this export with vLLM")
        if any(choice.input_scales and choice.layer.role == "expert" for choice in choices):
            found.append("transformers 5.23 leaves the inputs of experts as they are")
        with_inputs = [choice for choice in choices if _has_inputs(choice)]
        if any(choice.rounds_inputs for choice in with_inputs):
            found.append("readers quantize the inputs of layers in FP8, too, as they run")
            if any(map(_is_expert, with_inputs)):
                found.append(f"transformers 5.23 {OWN_INPUTS}: load this export with vLLM")
        elif any(_is_expert(choice) or choice.format == "fp8-block" for choice in with_inputs):
            found.append("vLLM 0.25.1 runs experts and tiles in FP8 only as --for vllm writes them")
        if model.family.transformers.dequantized:
            found.append("transformers 5.23 loads this architecture with CompressedTensorsConfig(dequantize=True) only")
        return found

    def place(self, model: Model, layer: Layer, matrix: Matrix, row: Format) -> list[Placement]:
        """See `Layout.place`."""
        parts = [(content, name, dtype or layer.kept_dtype) for content, name, dtype in SCHEMES[row.name].parts]
        return place_module(matrix, row, parts, (1,))

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
        groups = _groups(choices)
        config = exported_config(model)
        config["quantization_config"] = {
            "config_groups": {f"group_{number}": group for number, group in enumerate(groups)},
            "format": _MIXED if len({group["format"] for group in groups}) > 1 else groups[0]["format"],
            "global_compression_ratio": None,
            "ignore": [*kept_modules(choices), *(f"re:{text}" for text in kept_patterns(model, choices))],
            "kv_cache_scheme": None,
            "quant_method": "compressed-tensors",
            "quantization_status": "compressed",
            "version": "0.20.0",
        }
        return {"config.json": json_document(config)}


def wants_packed(model: Model, layer: Layer) -> bool:
    """True for experts that transformers finds packed only, once any layer of the model is.

    It joins experts while loading, and looks for all of them under the names that packed weights have.
    """
    split = model.family.transformers.split and bool(layer.matrices)
    return layer.role == "expert" and (split or (layer.expert is not None and joins_single_experts(model.config)))


def lost_experts(model: Model, choices: Sequence[Choice]) -> str:
    """Why transformers does not find the plain experts among `choices`, "" when it does."""
    packed = sorted({choice.format for choice in choices if choice.format in SCHEMES and _is_packed(choice.format)})
    plain = (choice.layer for choice in choices if choice.recipe is None and wants_packed(model, choice.layer))
    lost = next(plain, None) if packed else None
    return f"no plain experts like {printable(lost.name)} beside layers in {', '.join(packed)}" if lost else ""


def _is_packed(name: str) -> bool:
    """True for a format whose codes do not have the name of plain weights."""
    return any(stored == CODES for _, stored, _ in SCHEMES[name].parts)


def _groups(choices: Sequence[Choice]) -> list[dict[str, Any]]:
    """A group of the config for each scheme; which modules are in it, only where there are others."""
    chosen: dict[str, list[Choice]] = defaultdict(list)
    for choice in choices:
        if choice.recipe:
            chosen[SCHEMES[choice.format].name].append(choice)
    heads = any(choice.layer.role == "head" for found in chosen.values() for choice in found)
    every = {name: ["Linear", "re:.*lm_head$"] if heads else ["Linear"] for name in chosen}
    targets = every if len(chosen) == 1 else _targets(chosen)
    return [_group(SCHEMES[found[0].format], targets[name], found) for name, found in chosen.items()]


def _targets(chosen: Mapping[str, Sequence[Choice]]) -> dict[str, list[str]]:
    patterns = target_patterns(chosen)
    head = {name for name, found in chosen.items() if any(choice.layer.role == "head" for choice in found)}
    return {name: [f"re:{t}" for t in found] + ["re:.*lm_head$"] * (name in head) for name, found in patterns.items()}


def _group(scheme: Scheme, targets: list[str], choices: Sequence[Choice]) -> dict[str, Any]:
    return {
        "format": scheme.format,
        "targets": targets,
        "weights": scheme.weights,
        "input_activations": _inputs(scheme, choices),
        "output_activations": None,
    }


def _inputs(scheme: Scheme, choices: Sequence[Choice]) -> Mapping[str, Any] | None:
    if any(choice.input_scales for choice in choices):
        return _INPUTS
    return scheme.inputs if any(choice.rounds_inputs for choice in choices) else None


def _has_inputs(choice: Choice) -> bool:
    return choice.recipe is not None and choice.format in SCHEMES and SCHEMES[choice.format].inputs is not None


def _is_stack(choice: Choice) -> bool:
    return _is_expert(choice) and choice.layer.expert is None


def _is_expert(choice: Choice) -> bool:
    return choice.recipe is not None and choice.layer.role == "expert"


def _is_tiered_expert(choice: Choice) -> bool:
    return _is_expert(choice) and choice.format == "nvfp4-3t"
