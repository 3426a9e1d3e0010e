"""From stored tensors to layers: FP8 weights joined with their scales, stacks of experts cut into matrices."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.containers.safetensors import Tensor
from studio.core.errors import CheckpointError
from studio.core.model import FP8, Layer, Matrix, Stored
from studio.core.names import printable
from studio.core.roles import EXPERT, STACKED, base_name, block_index, role

_SCALES = ("weight_scale_inv", "weight_scale")
_INPUT_SCALES = ("input_scale", "activation_scale")
_INPUT_FIRST = {"gpt_oss", "llama4", "llama4_text"}
_FP8_BLOCK = 128

LONGEST_ROW = 1 << 20
"""Weights in the longest row that is quantized: a slab holds whole rows, and memory is bounded by slabs."""


def layers_of(stored: Mapping[str, Stored], config: Mapping[str, Any], warnings: list[str]) -> tuple[Layer, ...]:
    """The layers in file order; adds to `warnings` what was left out.

    Raises CheckpointError when two tensors are named like one layer.
    """
    files = {id(item.file): position for position, item in enumerate(stored.values())}
    ordered = sorted(stored.values(), key=lambda item: (files[id(item.file)], item.tensor.start))
    layers = [_layer(item, stored, config) for item in ordered]
    joined = _joined(layers, stored, warnings)
    kept = tuple(layer for layer in layers if layer.tensor.name not in joined)
    names = {layer.name: layer.tensor.name for layer in kept}
    for layer in kept:
        if (other := names[layer.name]) != layer.tensor.name:
            what = f"can not be told from tensor {printable(other)}: without .weight it has the same name"
            raise CheckpointError(what, file=layer.stored.file.path, tensor=layer.tensor.name)
    return kept


def _joined(layers: Sequence[Layer], stored: Mapping[str, Stored], warnings: list[str]) -> set[str]:
    """Names of the tensors that belong to an FP8 weight and are no layers of their own."""
    widened = [layer for layer in layers if layer.scale is not None]
    scales = {layer.scale.tensor.name for layer in widened if layer.scale is not None}
    inputs = {f"{layer.name}.{suffix}" for layer in widened for suffix in _INPUT_SCALES} & set(stored)
    if inputs:
        warnings.append(f"{len(inputs)} activation scales of the FP8 source are left out: weights alone are quantized")
    return scales | inputs


def _layer(item: Stored, stored: Mapping[str, Stored], config: Mapping[str, Any]) -> Layer:
    tensor = item.tensor
    name = base_name(tensor.name)
    kind = role(tensor.name, tensor.shape)
    scale, block, obstacle = None, (1, 1), ""
    if tensor.dtype == FP8:
        scale, block, obstacle = _fp8_scale(name, tensor, stored)
    elif tensor.dtype not in WEIGHT_DTYPES:
        obstacle = f"{tensor.dtype} is copied as it is"
    matrices: tuple[Matrix, ...] = ()
    if not obstacle:
        matrices, obstacle = _matrices(name, tensor, config)
    if obstacle:
        scale, block = None, (1, 1)
    return Layer(name, kind, block_index(tensor.name), item, matrices, obstacle, scale, block)


def _fp8_scale(name: str, tensor: Tensor, stored: Mapping[str, Stored]) -> tuple[Stored | None, tuple[int, int], str]:
    candidates = (stored.get(f"{name}.{suffix}") for suffix in _SCALES)
    scale = next((item for item in candidates if item is not None), None)
    if scale is None or len(tensor.shape) != 2 or not all(tensor.shape):
        return None, (1, 1), "FP8 without scales is copied as it is"
    if scale.tensor.dtype not in WEIGHT_DTYPES:
        return None, (1, 1), f"FP8 with {scale.tensor.dtype} scales is copied as it is"
    block = _scale_block(tensor.shape, scale.tensor.shape)
    if block is None:
        return None, (1, 1), f"FP8 with scales of shape {printable(scale.tensor.shape)} is copied as it is"
    return scale, block, ""


def _scale_block(shape: tuple[int, ...], scales: tuple[int, ...]) -> tuple[int, int] | None:
    """(rows, columns) that share one FP8 scale: the whole tensor, one row, or 128 x 128 as DeepSeek stores it."""
    rows, columns = shape
    if math.prod(scales) == 1:
        return rows, columns
    if scales in ((rows,), (rows, 1)):
        return 1, columns
    if scales == (math.ceil(rows / _FP8_BLOCK), math.ceil(columns / _FP8_BLOCK)):
        return _FP8_BLOCK, _FP8_BLOCK
    return None


def _matrices(name: str, tensor: Tensor, config: Mapping[str, Any]) -> tuple[tuple[Matrix, ...], str]:
    shape = tensor.shape
    if shape and shape[-1] > LONGEST_ROW:
        return (), f"rows of more than {LONGEST_ROW:,} weights are copied as they are"
    if len(shape) == 2 and all(shape):
        expert = EXPERT.match(name)
        return (Matrix(name, shape[0], shape[1], expert=int(expert["expert"]) if expert else None),), ""
    stack = STACKED.match(name)
    if len(shape) != 3 or not stack or not all(shape):
        dimensions = f"{len(shape)}-dimensional" if all(shape) else "empty"
        return (), f"{dimensions} tensors are copied as they are"
    if _is_input_first(stack["projection"], shape, config):
        return (), "its experts are stored input-first, which no layout here can quantize"
    return tuple(_stack(stack["stack"], stack["projection"], shape)), ""


def _is_input_first(projection: str, shape: tuple[int, ...], config: Mapping[str, Any]) -> bool:
    """True when a stack is [experts, in, out], so that its rows are not outputs."""
    text = config.get("text_config")
    hidden = config.get("hidden_size", text.get("hidden_size") if isinstance(text, dict) else None)
    _, rows, columns = shape
    if rows != columns and hidden in (rows, columns):
        return bool((hidden == rows) != (projection == "down_proj"))
    return str(config.get("model_type")) in _INPUT_FIRST


def _stack(stack: str, projection: str, shape: tuple[int, ...]) -> list[Matrix]:
    experts, rows, columns = shape
    parts = ("gate_proj", "up_proj") if projection == "gate_up_proj" and rows % 2 == 0 else (projection,)
    height = rows // len(parts)
    return [
        Matrix(f"{stack}.experts.{expert}.{part}", height, columns, (expert * rows + i * height) * columns, expert)
        for expert in range(experts)
        for i, part in enumerate(parts)
    ]
