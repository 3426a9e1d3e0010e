"""Runtimes: which of mlx-lm and transformers runs a model, found by looking at names; nothing is loaded to try it."""

import importlib.util
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from studio.core.architectures.config import model_types
from studio.core.errors import BackendError
from studio.core.names import printable

RuntimeName = Literal["mlx-lm", "transformers"]
INSTALL = "pip install 'nvfp4-studio[lm]'"
_PACKAGES: dict[RuntimeName, tuple[str, ...]] = {"mlx-lm": ("mlx_lm", "mlx"), "transformers": ("transformers", "torch")}
_LARGE = 4 << 30
_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts")


def installed() -> tuple[RuntimeName, ...]:
    """The runtimes that can be imported here."""
    return tuple(name for name, packages in _PACKAGES.items() if all(map(importlib.util.find_spec, packages)))


def choose_runtime(config: Mapping[str, Any], folder: Path, nbytes: int = _LARGE) -> RuntimeName:
    """The runtime for a model: mlx-lm on a Mac and for large mixtures, where it knows them, else transformers.

    `nbytes` are those of all weights. transformers holds the experts of a mixture in memory, whole; apart from that it
    is many times faster than mlx-lm on a processor other than Apple's.

    Raises BackendError when none is installed, or none that is knows the architecture.
    """
    here = installed()
    if not here:
        raise BackendError("running a model needs mlx-lm, or transformers with torch: neither is here", hint=INSTALL)
    able = [name for name in here if knows(name, config)]
    if not able:
        kind = printable(next(iter(model_types(config)), "no model type"), 60)
        what = f"{kind} is an architecture that no installed runtime knows ({', '.join(here)})"
        hint = "a newer version may; pip install torch transformers adds what mlx-lm lacks"
        raise BackendError(what, file=folder, hint=hint)
    large = is_mixture(config) and nbytes >= _LARGE
    first: RuntimeName = "mlx-lm" if large or platform.system() == "Darwin" else "transformers"
    return first if first in able else able[0]


def knows(runtime: RuntimeName, config: Mapping[str, Any]) -> bool:
    """True when the runtime has code for the model type."""
    kinds = model_types(config)
    return bool(kinds) and (_mlx_knows(kinds[0]) if runtime == "mlx-lm" else _transformers_knows(kinds[0]))


def is_mixture(config: Mapping[str, Any]) -> bool:
    """True when config.json speaks of more than one expert."""
    sections = [config, *(value for value in config.values() if isinstance(value, dict))]
    counts = (section.get(key) for section in sections for key in _EXPERT_COUNTS)
    return any(isinstance(count, int) and count > 1 for count in counts)


def _mlx_knows(kind: str) -> bool:
    from mlx_lm.utils import MODEL_REMAPPING

    name = MODEL_REMAPPING.get(kind, kind)
    return name.isidentifier() and importlib.util.find_spec(f"mlx_lm.models.{name}") is not None


def _transformers_knows(kind: str) -> bool:
    return transformers_class(kind) is not None


def transformers_class(kind: str) -> str | None:
    """The class of transformers that predicts tokens with models of this type, or None."""
    from transformers.models.auto import modeling_auto as auto

    tables = (auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    return next((str(table[kind]) for table in tables if kind in table), None)
