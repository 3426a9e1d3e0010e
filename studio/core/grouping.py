"""From stored tensors to layers: FP8 weights joined with their scales, stacks of experts cut into matrices."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from studio.core.architectures import Family, base_name, block_count, block_index, role
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.containers.safetensors import Tensor
from studio.core.errors import CheckpointError
from studio.core.matrices import matrices_of
from studio.core.model import FP8, Layer, Matrix, Stored
from studio.core.names import printable

_SCALES = ("weight_scale_inv", "weight_scale")
_INPUT_SCALES = ("input_scale", "activation_scale")
_FP8_BLOCK = 128


def layers_of(
    stored: Mapping[str, Stored], config: Mapping[str, Any], family: Family, warnings: list[str]
) -> tuple[Layer, ...]:
    """The layers in file order, read by the rules of `family`; adds to `warnings` what was left out.

    Raises CheckpointError when two tensors are named like one layer.
    """
    files = {id(item.file): position for position, item in enumerate(stored.values())}
    ordered = sorted(stored.values(), key=lambda item: (files[id(item.file)], item.tensor.start))
    shapes = {base_name(name): item.tensor.shape for name, item in stored.items()}
    blocks = block_count(config)
    layers = [_layer(item, stored, family, blocks, config, shapes) for item in ordered]
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


def _layer(
    item: Stored,
    stored: Mapping[str, Stored],
    family: Family,
    blocks: int,
    config: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]],
) -> Layer:
    tensor = item.tensor
    name = base_name(tensor.name)
    kind = role(tensor.name, tensor.shape, family, blocks)
    scale, block, obstacle = None, (1, 1), ""
    if tensor.dtype == FP8:
        scale, block, obstacle = _fp8_scale(name, tensor, stored)
    elif tensor.dtype not in WEIGHT_DTYPES:
        obstacle = f"{tensor.dtype} is copied as it is"
    matrices: tuple[Matrix, ...] = ()
    if not obstacle:
        matrices, obstacle = matrices_of(name, tensor.shape, family, config, shapes)
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
