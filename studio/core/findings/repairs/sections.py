"""Repairs of the sections that describe a quantization: leftovers go, and what is stored is described."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from kernels import STORED, recipe
from studio.core.errors import CheckpointError
from studio.core.findings.finding import Observation
from studio.core.findings.modules import Module
from studio.core.findings.repairs.draft import TORCH, Draft
from studio.core.layouts import LAYOUTS
from studio.core.layouts.mlx import parameters
from studio.core.model import Layer, Model
from studio.core.opening.checkpoint import open_model
from studio.core.planning.plan import Choice

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
        draft.drop_sections()
        draft.config["quantization_config"] = written["config.json"]["quantization_config"]
        draft.beside = written.get("hf_quant_config.json", {})
        yield from seen


def _is_usual(module: Module) -> bool:
    """True for NVFP4 with the tensor scale that its layout wants, or may have."""
    third = module.third.tensor.dtype if module.third else ""
    return module.is_nvfp4 and third in (("", "F32") if module.layout == "mlx" else ("F32",))


def _written(draft: Draft, layout: str, modules: Sequence[Module]) -> dict[str, Any] | None:
    """The documents of a layout for what is stored; None where some have input scales, or it can not be opened."""
    calibrated = {module.inputs is not None for module in modules}
    if len(calibrated) != 1:
        return None
    try:
        with open_model(draft.folder.path) as model:
            found = LAYOUTS[layout].documents(model, _choices(model))
    except CheckpointError:
        return None
    documents: dict[str, Any] = {name: json.loads(content) for name, content in found.items()}
    if calibrated.pop():
        _declare_inputs(layout, documents)
    return documents


def _choices(model: Model) -> list[Choice]:
    def stored(layer: Layer) -> Choice:
        row = layer.source.format
        return Choice(layer, recipe(row.name, method=STORED) if row else None)

    return [stored(layer) for layer in model.layers]


def _declare_inputs(layout: str, documents: dict[str, Any]) -> None:
    section = documents["config.json"]["quantization_config"]
    section["config_groups"]["group_0"]["input_activations"] = _INPUTS[layout]
    if layout == "modelopt":
        section["quant_algo"] = documents["hf_quant_config.json"]["quantization"]["quant_algo"] = "NVFP4"
