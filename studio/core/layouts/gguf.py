"""GGUF: what a file for llama.cpp can hold of a plan; the file itself is written by `exporting.gguf`."""

from collections.abc import Mapping, Sequence

import numpy as np

from studio.core.layouts import llama_cpp
from studio.core.layouts.fitting import kept, with_format
from studio.core.layouts.placement import InputScale, unsupported
from studio.core.model import Model
from studio.core.planning.plan import Choice

TYPES: Mapping[str, str] = {"nvfp4-2t": "NVFP4", "nvfp4-3t": "NVFP4", "mxfp4": "MXFP4"}
"""Formats that are written, and the types of ggml that hold them."""

_BARE = ("embedding", "head")
"""Roles of matrices that llama.cpp's graphs multiply by no tensor scale."""


class Gguf:
    """See `Target`."""

    name = "gguf"
    title = "GGUF"
    formats = tuple(TYPES)
    readers: tuple[str, ...] = ("llama.cpp",)
    joins = False
    input_scale: InputScale | None = None
    static_inputs: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()

    def fit(self, model: Model, choices: Sequence[Choice], _reader: str) -> tuple[Choice, ...]:
        """See `Target.fit`."""
        return llama_cpp.fit(model, [_fitted(choice) for choice in choices])

    def refusals(self, _model: Model, choices: Sequence[Choice], _reader: str) -> list[str]:
        """See `Target.refusals`."""
        return unsupported(self, choices)

    def store_scale(self, g: float) -> np.float32:
        """See `Target.store_scale`."""
        return np.float32(g)

    def multiplier(self, stored: np.float32) -> np.float32:
        """See `Target.multiplier`."""
        return np.float32(stored)


def _fitted(choice: Choice) -> Choice:
    if choice.recipe is None:
        return choice
    if choice.layer.role == "router":
        return kept(choice, "llama.cpp computes routers in float32")
    if choice.layer.role in _BARE and choice.recipe.format.tensor_scale:
        return with_format(choice, "nvfp4-2t", "two tiers, since llama.cpp applies no tensor scale here")
    return choice
