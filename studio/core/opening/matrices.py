"""Matrices: a stored tensor cut into the units of quantization, each with its outputs as rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from studio.core.architectures import Family, base_name, fused_group
from studio.core.architectures.config import hidden_size, number
from studio.core.architectures.family import Stack, pattern
from studio.core.architectures.naming import expert_of, stack_of
from studio.core.model import LONGEST_ROW, Matrix


def matrices_of(
    name: str, shape: Sequence[int], family: Family, config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]
) -> tuple[tuple[Matrix, ...], str]:
    """The matrices of a tensor (name without `.weight`), or none and the reason.

    `shapes` are those of all tensors: the ones beside a stack tell which of its dimensions is the input.
    """
    if not all(shape):
        return (), "empty tensors are copied as they are"
    if len(shape) < 2:
        return (), "biases, vectors and buffers are never quantized"
    if stack := stack_of(name, shape, family):
        return _stack(*stack, shape, family, config, shapes)
    if len(shape) > 2:
        return (), f"{len(shape)}-dimensional, and no stack of experts that this version knows"
    rows, columns = shape
    if is_input_first(name, shape, family):
        return _checked([Matrix(name, columns, rows, row_step=1, column_step=columns, group=fused_group(name, family))])
    if found := expert_of(name, family):
        parent, expert, projection = found
        return _checked([_expert(family, parent, expert, projection, rows, columns, name=name)])
    return _checked([Matrix(name, rows, columns, row_step=columns, group=fused_group(name, family))])


def divided(
    family: Family, config: Mapping[str, Any], name: str, shape: Sequence[int], shapes: Mapping[str, Sequence[int]]
) -> tuple[tuple[Matrix, ...], str]:
    """`matrices_of`, the architecture first."""
    return matrices_of(name, shape, family, config, shapes)


def is_input_first(name: str, shape: Sequence[int], family: Family) -> bool:
    """True for the name, without `.weight`, of a matrix that a plain checkpoint stores [inputs, outputs]."""
    return len(shape) == 2 and bool(family.input_first and pattern(family.input_first).search(name))


def stored_input_first(
    family: Family, config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]], tensor: str, shape: Sequence[int]
) -> bool:
    """True when a tensor is a stack of experts [experts, in, out]."""
    found = stack_of(base_name(tensor), shape, family)
    if found is None or found[0].experts:
        return False
    row, parent, parts = found
    return bool(_is_input_first(parent, parts, shape, row, config, shapes))


def _checked(matrices: Sequence[Matrix]) -> tuple[tuple[Matrix, ...], str]:
    if any(matrix.columns > LONGEST_ROW for matrix in matrices):
        return (), f"rows of more than {LONGEST_ROW:,} weights are copied as they are"
    return tuple(matrices), ""


def _expert(family: Family, parent: str, expert: int, projection: str, rows: int, columns: int, **place: Any) -> Matrix:
    name = place.pop("name", f"{parent}.experts.{expert}.{projection}")
    place.setdefault("row_step", columns)
    group = fused_group(f"{parent}.experts.{expert}.{projection}", family)
    return Matrix(name, rows, columns, expert=expert, stack=parent, projection=projection, group=group, **place)


def _stack(
    row: Stack,
    parent: str,
    parts: Sequence[str],
    shape: Sequence[int],
    family: Family,
    config: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]],
) -> tuple[tuple[Matrix, ...], str]:
    if row.experts:
        count = number(config, row.experts)
        if not count or shape[0] % count:
            return (), "a stack of experts whose number config.json does not tell"
        shape = (count, shape[0] // count, shape[1])
    input_first = _is_input_first(parent, parts, shape, row, config, shapes)
    if input_first is None:
        return (), "a stack of experts of which neither shapes nor config.json tell the inputs from the outputs"
    experts, outputs, inputs = (shape[0], shape[2], shape[1]) if input_first else shape
    if outputs % len(parts):
        return (), f"a stack of {' and '.join(parts)} with an odd number of outputs"
    height = outputs // len(parts)
    stride, step = (1, outputs) if input_first else (inputs, 1)
    skip, stride = (stride, stride * len(parts)) if row.interleaved else (stride * height, stride)
    return _checked(
        [
            _expert(
                family,
                parent,
                expert,
                part,
                height,
                inputs,
                first=expert * outputs * inputs + i * skip,
                row_step=stride,
                column_step=step,
            )
            for expert in range(experts)
            for i, part in enumerate(parts)
        ]
    )


def _is_input_first(
    parent: str,
    parts: Sequence[str],
    shape: Sequence[int],
    row: Stack,
    config: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]],
) -> bool | None:
    """Told by the architecture, the other stack of the block, the width of the model, or by none of them."""
    if row.input_first is not None:
        return row.input_first
    _, rows, columns = shape
    joined, down = (shapes.get(f"{parent}.experts.{name}", ()) for name in ("gate_up_proj", "down_proj"))
    if len(joined) == 3 and len(down) == 3:
        if joined[2] == down[1] and joined[1] == 2 * down[2]:
            return False
        if joined[1] == down[2] and joined[2] == 2 * down[1]:
            return True
    width = hidden_size(config)
    if rows != columns and width in (rows, columns):
        return (width == rows) != (parts[0] in ("down_proj", "w2"))
    return row.square
