"""From stored tensors to layers: codes joined with their scales, stacks of experts cut into matrices."""

from collections.abc import Mapping, Sequence
from typing import Any

from studio.core.architectures import Family, base_name, block_count, block_index, role
from studio.core.architectures.naming import expert_of
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.counting import counted
from studio.core.errors import CheckpointError
from studio.core.model import Layer, Matrix, Stored
from studio.core.names import printable
from studio.core.opening.matrices import is_input_first, matrices_of
from studio.core.sources.packed import PackedSource
from studio.core.sources.plain import Plain
from studio.core.sources.recognition import Recognized

Shapes = Mapping[str, Sequence[int]]


def shapes_of(stored: Mapping[str, Stored]) -> Shapes:
    """Shapes of all tensors as they are stored, by name without `.weight`."""
    return {base_name(name): item.tensor.shape for name, item in stored.items()}


def layers_of(
    stored: Mapping[str, Stored], config: Mapping[str, Any], family: Family, found: Recognized, warnings: list[str]
) -> tuple[Layer, ...]:
    """The layers in file order, read by the rules of `family`; adds to `warnings` what was left out.

    Raises CheckpointError when two tensors are named like one layer.
    """
    files = {id(item.file): position for position, item in enumerate(stored.values())}
    ordered = sorted(stored.values(), key=lambda item: (files[id(item.file)], item.tensor.start))
    parts = found.scales | found.idle
    blocks, shapes = block_count(config), _shapes(stored, found)
    layers = tuple(
        _layer(item, config, family, blocks, shapes, found) for item in ordered if item.tensor.name not in parts
    )
    if idle := len(found.idle):
        scales = "1 scale of activations or caches is" if idle == 1 else f"{idle} scales of activations or caches are"
        warnings.append(f"{scales} left out: weights alone are quantized")
    if with_inputs := sum(isinstance(one.source, PackedSource) and one.source.inputs is not None for one in layers):
        what = counted(with_inputs, "layer has a scale for its inputs", "layers have scales for their inputs")
        warnings.append(f"{what}: convert carries them over, weights alone are quantized")
    names = {layer.name: layer.tensor.name for layer in layers}
    for layer in layers:
        if (other := names[layer.name]) != layer.tensor.name:
            what = f"can not be told from tensor {printable(other)}: without .weight it has the same name"
            raise CheckpointError(what, file=layer.stored.file.path, tensor=layer.tensor.name)
    return layers


def _shapes(stored: Mapping[str, Stored], found: Recognized) -> Shapes:
    """Shapes of all weights, by name without `.weight`."""
    decoded = {base_name(found.weights.get(name, name)): source.shape for name, source in found.sources.items()}
    return {**shapes_of(stored), **decoded}


def _layer(
    item: Stored, config: Mapping[str, Any], family: Family, blocks: int, shapes: Shapes, found: Recognized
) -> Layer:
    tensor = item.tensor
    weight = found.weights.get(tensor.name, tensor.name)
    name = base_name(weight)
    source = found.sources.get(tensor.name) or Plain(item)
    if tensor.name in found.weights and isinstance(source, PackedSource) and is_input_first(name, source.shape, family):
        source = source.across()
    matrices: tuple[Matrix, ...] = ()
    obstacle = found.unread.get(tensor.name, "")
    if not obstacle and source.dtype not in WEIGHT_DTYPES:
        obstacle = f"{tensor.dtype} is copied as it is"
    if not obstacle:
        matrices, obstacle = matrices_of(name, source.shape, family, config, shapes)
    kind = role(weight, source.shape, family, blocks)
    single = expert_of(name, family)
    expert = single[1] if single else None
    renamed = weight if weight != tensor.name else ""
    return Layer(name, kind, block_index(weight), source, matrices, obstacle, expert, weight=renamed)
