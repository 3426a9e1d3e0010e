"""NVIDIA ModelOpt's unified Hugging Face export: NVFP4, MXFP8 and FP8; tensor scales are stored as the multiplier g."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from kernels import Format
from studio.core.layouts import llama_cpp
from studio.core.layouts.completion import exported_config
from studio.core.layouts.documents import json_document
from studio.core.layouts.fitting import kept, mixed_groups, named, whole_groups, whole_tiles
from studio.core.layouts.placement import InputScale, Placement, raw, unsupported
from studio.core.layouts.torch_names import Part, kept_modules, kept_wildcards, module_refusals, place_module
from studio.core.model import Layer, Matrix, Model
from studio.core.planning.plan import Choice
from studio.core.sources.modelopt import INPUT_SCALE, SCALES, TENSOR_SCALE, WEIGHT

_PRODUCER = {"name": "modelopt", "version": "0.47.0"}
_MIXED = "MIXED_PRECISION"


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a format is stored: the algorithm by which readers know it, what it says of numbers, the parts of a module.

    with_inputs: the algorithm where inputs have a scale, "" where they never have one.
    """

    algorithm: str
    numbers: Mapping[str, Any]
    parts: tuple[Part, ...]
    with_inputs: str = ""


def _numbers(bits: int, group_size: int = 0) -> dict[str, Any]:
    return {"dynamic": False, "num_bits": bits, "type": "float"} | ({"group_size": group_size} if group_size else {})


_SCALED: tuple[Part, ...] = (("codes", WEIGHT, "F8_E4M3"), ("scales", SCALES, "F32"))
_NVFP4 = Scheme(
    "W4A16_NVFP4",
    _numbers(4, 16),
    (("codes", WEIGHT, "U8"), ("scales", SCALES, "F8_E4M3"), ("tensor_scale", TENSOR_SCALE, "F32")),
    with_inputs="NVFP4",
)

SCHEMES: Mapping[str, Scheme] = {
    "nvfp4-2t": _NVFP4,
    "nvfp4-3t": _NVFP4,
    "mxfp8": Scheme("MXFP8", _numbers(8, 32), (("codes", WEIGHT, "F8_E4M3"), ("scales", SCALES, "U8"))),
    "fp8-tensor": Scheme(
        "FP8", _numbers(8), (("codes", WEIGHT, "F8_E4M3"), ("multiplier", SCALES, "F32")), with_inputs="FP8"
    ),
    "fp8-channel": Scheme("FP8_PER_CHANNEL_PER_TOKEN", _numbers(8), _SCALED),
    "fp8-block": Scheme("FP8_PB_WO", _numbers(8), _SCALED),
}


class ModelOpt:
    """See `Layout`. Two tiers are stored with a multiplier of 1."""

    name = "modelopt"
    title = "NVIDIA ModelOpt"
    formats: tuple[str, ...] = tuple(SCHEMES)
    metadata: Mapping[str, str] = MappingProxyType({"format": "pt"})
    scale_convention = "weight_scale_2 = g = max|W| / 2688 (multiplier)"
    readers: tuple[str, ...] = ("vllm", "mlx-vlm", "llama.cpp")
    joins = True
    input_scale: InputScale | None = (INPUT_SCALE, ())
    static_inputs: tuple[str, ...] = ("fp8-tensor",)
    alone: tuple[str, ...] = ("fp8-channel", "fp8-block")

    def fit(self, model: Model, choices: Sequence[Choice], reader: str) -> tuple[Choice, ...]:
        """See `Layout.fit`: what vLLM joins is quantized as a whole, or kept, as is what it can not load packed."""
        turned = "vLLM turns this weight while loading, which it can do with plain weights only"
        fitted = llama_cpp.convertible(model, choices) if reader == "llama.cpp" else choices
        fitted = [kept(c, turned) if named(c, model.family.input_first) else c for c in fitted]
        alone = "vLLM runs experts in FP8 under one scale per tensor only"
        fitted = [kept(c, alone) if c.layer.role == "expert" and c.format in self.alone else c for c in fitted]
        names = model.family.vllm
        fitted = [kept(c, names.why) if named(c, names.kept) else c for c in fitted]
        rounding = [replace(c, rounds_inputs=True) if c.format in self.alone else c for c in fitted]
        return whole_groups(whole_tiles(rounding), "vLLM")

    def rounded(self, _config: Mapping[str, Any]) -> tuple[str, ...]:
        """See `Layout.rounded`."""
        return self.alone

    def refusals(self, model: Model, choices: Sequence[Choice], reader: str) -> list[str]:
        """See `Layout.refusals`."""
        sentences = unsupported(self, choices) + module_refusals(model, choices, self.title, reader)
        if len(_algorithms(choices)) > 1 and (lone := sorted({c.format for c in choices if c.format in self.alone})):
            sentences.append(f"vLLM takes {', '.join(lone)} of {self.title} for all layers or none")
        return sentences + mixed_groups(choices, "vLLM")

    def cautions(self, model: Model, choices: Sequence[Choice]) -> list[str]:
        """See `Layout.cautions`."""
        return []

    def place(self, model: Model, layer: Layer, matrix: Matrix, row: Format) -> list[Placement]:
        """See `Layout.place`."""
        down, across = row.tiles(matrix.rows, matrix.columns)
        odd = {"fp8-channel": (down,), "fp8-block": (down, 1, across, 1)}.get(row.name, ())
        return place_module(matrix, row, SCHEMES[row.name].parts, (), odd)

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
        found = _algorithms(choices)
        algorithm = next(iter(found)) if len(found) == 1 else _MIXED
        layers = {"quantized_layers": _layers(choices)} if algorithm == _MIXED else {}
        config = exported_config(model)
        config["quantization_config"] = {
            "config_groups": {
                f"group_{number}": _group(name, chosen, whole=algorithm != _MIXED)
                for number, (name, chosen) in enumerate(found.items())
            },
            "ignore": plain,
            "quant_algo": algorithm,
            **layers,
            "producer": _PRODUCER,
            "quant_method": "modelopt",
        }
        quantization: dict[str, Any] = {
            "quant_algo": algorithm,
            "kv_cache_quant_algo": None,
            "group_size": _group_size(next(iter(found.values()))[0]),
            "exclude_modules": plain,
            **layers,
        }
        beside = {"producer": _PRODUCER, "quantization": quantization}
        return {"hf_quant_config.json": json_document(beside), "config.json": json_document(config)}


def _algorithm(choice: Choice) -> str:
    scheme = SCHEMES[choice.format]
    return scheme.with_inputs if choice.input_scales else scheme.algorithm


def _algorithms(choices: Sequence[Choice]) -> dict[str, list[Choice]]:
    """The algorithms of an export, each with the layers that it is for; what the layout can not store is left out."""
    found: dict[str, list[Choice]] = defaultdict(list)
    for choice in choices:
        if choice.format in SCHEMES:
            found[_algorithm(choice)].append(choice)
    return found


def _group_size(choice: Choice) -> int | None:
    size: int | None = SCHEMES[choice.format].numbers.get("group_size")
    return size


def _group(name: str, choices: Sequence[Choice], *, whole: bool) -> dict[str, Any]:
    scheme = SCHEMES[choices[0].format]
    targets = ["Linear"] if whole else [matrix.name for choice in choices for matrix in choice.layer.matrices]
    inputs = {"input_activations": scheme.numbers} if name == scheme.with_inputs else {}
    return {**inputs, "weights": scheme.numbers, "targets": targets}


def _layers(choices: Sequence[Choice]) -> dict[str, dict[str, Any]]:
    """What readers of a mix look up for each module."""
    found = {}
    for choice in choices:
        size = _group_size(choice) if choice.recipe else None
        for matrix in choice.layer.matrices if choice.recipe else ():
            found[matrix.name] = {"quant_algo": _algorithm(choice), **({"group_size": size} if size else {})}
    return found
