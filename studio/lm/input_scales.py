"""Inputs quantized and decoded again, as readers of an export with input scales compute with them."""

from collections.abc import Container, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels import FORMATS, Recipe
from kernels.backend import Backend
from kernels.formats import E4M3_MAX
from kernels.machines import choose
from studio.core.containers.strict_json import read_object
from studio.core.errors import CheckpointError
from studio.core.exporting.decoded import INPUT_SCALES
from studio.core.names import some_of
from studio.lm.names import Place

Quantizing = tuple[str, float]
"""The format of inputs, and their multiplier; 0 where it is that of the inputs at hand."""

InputScales = Mapping[str, Quantizing]
"""Matrix -> what becomes of its inputs."""

_RECIPES = {name: Recipe(FORMATS[name]) for name in ("nvfp4-3t", "fp8-tensor", "fp8-channel", "fp8-block")}
"""Blocks of inputs may have a scale of zero, which weights in three tiers may not."""

_LEAST_SCALE = 1 / (E4M3_MAX * 512)
"""The smallest multiplier that vLLM takes for an input."""

_GROUP = 128


def read_input_scales(folder: Path) -> InputScales:
    """What a decoded checkpoint says of the inputs of its matrices; empty where these stay as they are."""
    path = folder / INPUT_SCALES
    found = read_object(path).items() if path.exists() else ()
    return {name: (form if form in _RECIPES else "nvfp4-3t", float(g)) for name, (form, g) in found}


def scales_by_place(
    places: Mapping[Place, Sequence[str]], scales: InputScales, folder: Path
) -> dict[Place, Quantizing]:
    """What becomes of the inputs of each module, and expert, that holds matrices with a scale for them.

    Raises CheckpointError when a matrix is nowhere, or shares its module with one of another scale.
    """
    found: dict[Place, Quantizing] = {}
    for place, names in places.items():
        own = {scales[name] for name in names if name in scales}
        if len(own) > 1 or (own and not all(name in scales for name in names)):
            what = f"the runtime joins {some_of(list(names))}, whose inputs have other scales"
            raise CheckpointError(what, file=folder)
        found |= dict.fromkeys([place], *own) if own else {}
    if lacking := sorted(set(scales) - {name for names in places.values() for name in names}):
        raise CheckpointError(f"the runtime has no module for {some_of(lacking)}", file=folder)
    return found


def check_reached(scales: Mapping[Place, Quantizing], reached: Container[str], folder: Path) -> None:
    """Raise CheckpointError when a module of which inputs are to be quantized is not among those `reached`."""
    if lacking := sorted({path for path, _ in scales} - {path for path, _ in scales if path in reached}):
        what = f"the runtime multiplies {some_of(lacking)} in a way in which inputs can not be quantized"
        raise CheckpointError(what, file=folder)


def quantized(x: NDArray[np.float32], how: Quantizing) -> NDArray[np.float32]:
    """Inputs [..., K] quantized and decoded under a multiplier, with block scales in NVFP4 (K a multiple of 16).

    Where it is 0, in FP8 under that of all inputs at hand, of each, or of every 128 numbers of each.
    """
    name, g = how
    rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    if not g:
        return _as_at_hand(rows, name).reshape(x.shape)
    found = _backend().encode(rows, _RECIPES[name], g, measure=False).quantized
    decoded: NDArray[np.float32] = _backend().decode(found).reshape(x.shape)
    return decoded


def _as_at_hand(rows: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    width = _GROUP if name == "fp8-block" else rows.shape[1]
    parts = [rows[:, start : start + width] for start in range(0, rows.shape[1], width)]
    return np.concatenate([_in_e4m3(part, whole=name == "fp8-tensor") for part in parts], axis=1)


def _in_e4m3(rows: NDArray[np.float32], *, whole: bool) -> NDArray[np.float32]:
    """E4M3 under a multiplier for each row, or for all."""
    peaks = np.abs(rows).max(axis=None if whole else 1, keepdims=True, initial=0)
    scales = np.maximum(peaks / np.float32(E4M3_MAX), np.float32(_LEAST_SCALE))
    codes = _backend().encode(np.ascontiguousarray(rows / scales), _RECIPES["fp8-tensor"], 1.0, measure=False)
    decoded: NDArray[np.float32] = _backend().decode(codes.quantized) * scales
    return decoded


@cache
def _backend() -> Backend:
    return choose("cpu")
