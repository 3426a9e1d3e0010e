"""Repairs of the sections that describe a quantization: leftovers go, and what is stored is described."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from kernels import STORED, recipe
from studio.core.errors import CheckpointError
from studio.core.findings.finding import Observation
from studio.core.findings.modules import Module
from studio.core.findings.repairs.draft import TORCH, Draft
from studio.core.layouts import LAYOUTS
from studio.core.layouts.fitting import mixed_groups
from studio.core.layouts.mlx import parameters
from studio.core.model import Model, Source
from studio.core.opening.checkpoint import open_model
from studio.core.planning.plan import Choice
from studio.core.sources.fp8 import ScaledFp8
from studio.core.sources.plain import PLAIN_BITS

_FOUR = 4
"""Bits of a weight of NVFP4."""

_INPUTS = {
    "modelopt": {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16},
    "compressed-tensors": {
        "num_bits": 4,
        "type": "float",
        "symmetric": True,
        "strategy": "tensor_group",
        "group_size": 16,
        "dynamic": "local",
    },
}


def leftover(draft: Draft, seen: Sequence[Observation]) -> Iterator[Observation]:
    """No section, as nothing is quantized."""
    draft.drop_sections()
    yield from seen


def described(draft: Draft, seen: Sequence[Observation]) -> Iterator[Observation]:
    """The section of the one layout that all codes have, if they are NVFP4; MLX reads three tiers by a model file."""
    modules = list(draft.folder.modules.values())
    layouts = {module.layout for module in modules}
    if len(layouts) != 1 or not all(map(_is_usual, modules)):
        return
    if (layout := layouts.pop()) == "mlx":
        if any(module.third for module in modules) and "model_file" not in draft.config:
            return
        draft.drop_sections()
        section = parameters(recipe("nvfp4-2t").format)
        draft.config |= {"quantization": section, "quantization_config": section}
        yield from seen
    elif layout in TORCH and (written := _written(draft, layout, modules)):
        _describe(draft, written)
        yield from seen


def _describe(draft: Draft, written: dict[str, Any]) -> None:
    """The sections of the documents of a layout in place of all others."""
    draft.drop_sections()
    draft.config["quantization_config"] = written["config.json"]["quantization_config"]
    draft.beside = written.get("hf_quant_config.json", {})


def eight_bits(draft: Draft, seen: Sequence[Observation]) -> Iterator[Observation]:
    """The section of NVFP4 and FP8 beside each other, or of FP8 alone, where readers take what is stored so."""
    layouts = {claim.layout for claim in draft.claims()}
    modules = list(draft.folder.modules.values())
    eight = [module for module in modules if module.layout == "fp8"]
    four = [module for module in modules if module.layout != "fp8"]
    layout = next(iter(layouts & {*TORCH})) if len(layouts & {*TORCH}) == 1 else ""
    if not eight or {one.where for one in seen} != {module.name for module in eight}:
        return
    if not all(module.layout == layout and _is_usual(module) for module in four):
        return
    if layout == "modelopt" and any(module.inputs is None for module in eight):
        return  # its FP8 rounds inputs by a stored scale
    if written := _written(draft, layout, four):
        _describe(draft, written)
        yield from seen


def _is_usual(module: Module) -> bool:
    """True for NVFP4 with the tensor scale that its layout wants, or may have."""
    third = module.third.tensor.dtype if module.third else ""
    return module.is_nvfp4 and third in (("", "F32") if module.layout == "mlx" else ("F32",))


def _written(draft: Draft, layout: str, modules: Sequence[Module]) -> dict[str, Any] | None:
    """The documents of a layout for what is stored, `modules` being NVFP4; None where it stores no such folder.

    It does not where some have input scales, it can not be opened, or readers do not take it.
    """
    calibrated = {module.inputs is not None for module in modules}
    if len(calibrated) > 1:
        return None
    try:
        with open_model(draft.folder.path) as model:
            choices = _choices(model)
            if choices is None or mixed_groups(choices, layout):
                return None
            found = LAYOUTS[layout].documents(model, choices)
    except CheckpointError:
        return None
    documents: dict[str, Any] = {name: json.loads(content) for name, content in found.items()}
    if True in calibrated:
        _declare_inputs(layout, documents)
    return documents


def _choices(model: Model) -> list[Choice] | None:
    """How every layer is stored; None where one is in codes that no layout has a name for."""
    found = [(layer, _format(layer.source)) for layer in model.layers]
    if any(not name and layer.source.bits < PLAIN_BITS for layer, name in found):
        return None
    return [Choice(layer, recipe(name, method=STORED) if name else None) for layer, name in found]


def _format(source: Source) -> str:
    if not isinstance(source, ScaledFp8):
        return source.format.name if source.format else ""
    scales = source.scales
    if scales is None or scales.stored.tensor.dtype != "F32" or len(source.shape) != 2:
        return ""
    blocks = {source.shape: "fp8-tensor", (1, source.shape[1]): "fp8-channel", (128, 128): "fp8-block"}
    return blocks.get(scales.block, "")


def _declare_inputs(layout: str, documents: dict[str, Any]) -> None:
    section = documents["config.json"]["quantization_config"]
    for group in _of_four_bits(section["config_groups"].values()):
        group["input_activations"] = _INPUTS[layout]
    if layout == "modelopt":
        for place in (section, documents["hf_quant_config.json"]["quantization"]):
            for said in (place, *place.get("quantized_layers", {}).values()):
                if said["quant_algo"] == "W4A16_NVFP4":
                    said["quant_algo"] = "NVFP4"


def _of_four_bits(groups: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [group for group in groups if group["weights"]["num_bits"] == _FOUR]
