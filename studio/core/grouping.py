"""From stored tensors to layers: codes joined with their scales, stacks of experts cut into matrices."""

from collections.abc import Mapping
from typing import Any

from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.errors import CheckpointError
from studio.core.model import LONGEST_ROW, Layer, Matrix, Stored
from studio.core.names import printable
from studio.core.roles import EXPERT, STACKED, base_name, block_index, role
from studio.core.sources.plain import Plain
from studio.core.sources.recognition import Recognized

_INPUT_FIRST = {"gpt_oss", "llama4", "llama4_text"}


def layers_of(
    stored: Mapping[str, Stored], config: Mapping[str, Any], found: Recognized, warnings: list[str]
) -> tuple[Layer, ...]:
    """The layers in file order; adds to `warnings` what was left out.

    Raises CheckpointError when two tensors are named like one layer.
    """
    files = {id(item.file): position for position, item in enumerate(stored.values())}
    ordered = sorted(stored.values(), key=lambda item: (files[id(item.file)], item.tensor.start))
    parts = found.scales | found.idle
    layers = tuple(_layer(item, config, found) for item in ordered if item.tensor.name not in parts)
    if idle := len(found.idle):
        scales = "1 scale of activations or caches is" if idle == 1 else f"{idle} scales of activations or caches are"
        warnings.append(f"{scales} left out: weights alone are quantized")
    names = {layer.name: layer.tensor.name for layer in layers}
    for layer in layers:
        if (other := names[layer.name]) != layer.tensor.name:
            what = f"can not be told from tensor {printable(other)}: without .weight it has the same name"
            raise CheckpointError(what, file=layer.stored.file.path, tensor=layer.tensor.name)
    return layers


def _layer(item: Stored, config: Mapping[str, Any], found: Recognized) -> Layer:
    tensor = item.tensor
    name = base_name(tensor.name)
    source = found.sources.get(tensor.name) or Plain(item)
    matrices: tuple[Matrix, ...] = ()
    obstacle = found.unread.get(tensor.name, "")
    if not obstacle and source.dtype not in WEIGHT_DTYPES:
        obstacle = f"{tensor.dtype} is copied as it is"
    if not obstacle:
        matrices, obstacle = _matrices(name, source.shape, config)
    return Layer(name, role(tensor.name, source.shape), block_index(tensor.name), source, matrices, obstacle)


def stored_input_first(config: Mapping[str, Any], tensor: str, shape: tuple[int, ...]) -> bool:
    """True when a tensor is a stack of experts [experts, in, out]."""
    stack = STACKED.match(base_name(tensor))
    return stack is not None and len(shape) == 3 and _is_input_first(stack["projection"], shape, config)


def _matrices(name: str, shape: tuple[int, ...], config: Mapping[str, Any]) -> tuple[tuple[Matrix, ...], str]:
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
