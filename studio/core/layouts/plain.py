"""Plain: every weight decoded under its Hugging Face name, which all runtimes load."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np

from kernels import Format
from studio.core.architectures.family import pattern
from studio.core.layouts.completion import exported_config
from studio.core.layouts.documents import json_document
from studio.core.layouts.placement import InputScale, Placement, raw, rows, unsupported
from studio.core.model import Layer, Matrix, Model
from studio.core.planning.plan import Choice

_OF_MLX = r"\.switch_(?:mlp|glu)\."
"""Modules of stacks in mlx-lm; granite, JetMoE and others have stacks under names of their own."""


class Plain:
    """See `Layout`; a target of conversions only."""

    name = "plain"
    title = "plain safetensors"
    formats: tuple[str, ...] = ()
    metadata: Mapping[str, str] = MappingProxyType({"format": "pt"})
    scale_convention = "none: weights are stored as the numbers they are"
    readers: tuple[str, ...] = ("transformers", "vllm", "mlx-lm")
    joins = False
    input_scale: InputScale | None = None
    static_inputs: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()

    def fit(self, _model: Model, choices: Sequence[Choice], _reader: str) -> tuple[Choice, ...]:
        """See `Layout.fit`."""
        return tuple(choices)

    def refusals(self, _model: Model, choices: Sequence[Choice], _reader: str) -> list[str]:
        """See `Layout.refusals`."""
        return unsupported(self, choices)

    def cautions(self, _model: Model, _choices: Sequence[Choice]) -> list[str]:
        """See `Layout.cautions`."""
        return []

    def place(self, _model: Model, _layer: Layer, _matrix: Matrix, row: Format) -> NoReturn:
        """See `Layout.place`; never called, as no format is stored."""
        raise ValueError(f"[place] the layout plain stores no {row.name}")

    def place_kept(self, _model: Model, layer: Layer) -> list[Placement]:
        """See `Layout.place_kept`: stacks of experts that only MLX has become an expert a tensor."""
        return rows(layer) if is_mlx_stack(layer) else raw(layer)

    def store_scale(self, g: float) -> np.float32:
        """See `Layout.store_scale`."""
        return np.float32(g)

    def multiplier(self, stored: np.float32) -> np.float32:
        """See `Layout.multiplier`."""
        return np.float32(stored)

    def rounded(self, _config: Mapping[str, Any]) -> tuple[str, ...]:
        """See `Layout.rounded`."""
        return ()

    def documents(self, model: Model, _choices: Sequence[Choice]) -> dict[str, bytes]:
        """config.json without a quantization."""
        return {"config.json": json_document(exported_config(model))}


def is_mlx_stack(layer: Layer) -> bool:
    """True for a stack of one projection of all experts, under a name that MLX alone gives it."""
    is_stack = len(layer.shape) == 3 and bool(layer.matrices) and layer.matrices[0].expert is not None
    return is_stack and bool(pattern(_OF_MLX).search(layer.name))
