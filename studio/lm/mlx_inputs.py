"""Quantized inputs in mlx-lm: what goes into a layer with an input scale passes through its format."""

from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module
from numpy.typing import NDArray

from studio.core.model import Model
from studio.lm.input_scales import InputScales, Quantizing, check_reached, quantized, scales_by_place
from studio.lm.mlx_running import LINEAR, STACK, parts_of, rebind
from studio.lm.names import Place, mlx_places


def quantize_inputs(module: Module, model: Model, scales: InputScales) -> None:
    """Let the layers of a loaded model quantize their inputs. Raises CheckpointError, see `scales_by_place`."""
    found = scales_by_place(mlx_places(model), scales, model.folder)
    paths = {path for path, _ in found}
    reached = {path for path, part in parts_of(module) if path in paths and _rebound(path, part, found)}
    check_reached(found, reached, model.folder)


def _rebound(path: str, part: Module, scales: Mapping[Place, Quantizing]) -> bool:
    """Let one layer quantize its inputs; False for one that multiplies otherwise."""
    if isinstance(part, LINEAR) and (path, None) in scales:
        rebind(part, __call__=_linear(type(part), scales[path, None]))
    elif isinstance(part, STACK):
        rebind(part, __call__=_stack(type(part), path, scales))
    else:
        return False
    return True


def _linear(kind: type, how: Quantizing) -> Callable[..., Any]:
    def call(part: Module, x: Any) -> Any:
        return kind.__call__(part, _back(quantized(_array(x), how), x))

    return call


def _stack(kind: type, path: str, scales: Mapping[Place, Quantizing]) -> Callable[..., Any]:
    """An input that goes to several experts is one for each, under the scale of that expert."""

    def call(part: Any, x: Any, indices: Any, *args: Any, **named: Any) -> Any:
        experts = np.array(indices)
        rows = np.broadcast_to(_array(x), (*experts.shape, *x.shape[-2:])).copy()
        for expert in np.unique(experts):
            how = scales.get((path, int(expert)))
            if how is not None:
                rows[experts == expert] = quantized(rows[experts == expert], how)
        return kind.__call__(part, _back(rows, x), indices, *args, **named)

    return call


def _array(x: Any) -> NDArray[np.float32]:
    return np.array(x.astype(mx.float32))


def _back(rows: NDArray[np.float32], x: Any) -> Any:
    return mx.array(rows).astype(x.dtype)
