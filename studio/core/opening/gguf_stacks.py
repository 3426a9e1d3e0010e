"""Weights that llama.cpp splits, in the one tensor that transformers has for them: stacks of experts, and others."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from studio.core.architectures import Family, base_name
from studio.core.errors import CheckpointError
from studio.core.model import Matrix, Source
from studio.core.names import printable
from studio.core.opening.matrices import matrices_of
from studio.core.sources.joined import Joined


def joined_stack(
    name: str, parts: Sequence[Sequence[Source]], family: Family, config: Mapping[str, Any], *, turned: bool
) -> Joined:
    """The stack `name` of `parts`, the experts [outputs, inputs] of each; `turned`: it is [experts, inputs, outputs].

    Raises CheckpointError where their shapes are not those of such a stack.
    """
    outputs, inputs = parts[0][0].shape
    height = outputs * len(parts)
    shape = (len(parts[0]), inputs, height) if turned else (len(parts[0]), height, inputs)
    found, _ = matrices_of(base_name(name), shape, family, config, {})
    pieces = [source for expert in zip(*parts, strict=True) for source in expert]
    if [(m.rows, m.columns) for m in found] != [piece.shape for piece in pieces]:
        raise _no_part(name, parts[0][0])
    its = {m.name: (source, Matrix(m.name, *source.shape)) for m, source in zip(found, pieces, strict=True)}
    return Joined(shape, found, its, _kept_dtype(pieces))


def joined_biases(name: str, parts: Sequence[Source], *, alternating: bool) -> Joined:
    """The biases [experts, outputs] of several projections in one; `alternating`: their outputs lie in turns.

    Raises CheckpointError where they are no such biases, or their shapes differ.
    """
    shape, count = parts[0].shape, len(parts)
    if odd := next((part for part in parts if part.shape != shape or len(shape) != 2 or not all(shape)), None):
        what = f"of shape {printable(list(odd.shape))}, which is not that of biases in {name}"
        raise CheckpointError(what, file=odd.stored.file.path, tensor=odd.stored.tensor.name)
    experts, outputs = shape
    skip, step = (1, count) if alternating else (outputs, 1)
    own = tuple(
        Matrix(f"{name}[{place}]", experts, outputs, place * skip, row_step=count * outputs, column_step=step)
        for place in range(count)
    )
    its = {m.name: (part, Matrix(m.name, experts, outputs)) for m, part in zip(own, parts, strict=True)}
    return Joined((experts, count * outputs), own, its, _kept_dtype(parts))


def _keys_and_values(name: str, parts: Sequence[Source], config: Mapping[str, Any]) -> Joined:
    """Keys [heads, inputs, width] and values [heads, width, inputs], by the heads of which the matrix is made."""
    keys, values = parts
    heads, inputs, width = _three(name, keys)
    if values.shape[:1] != (heads,) or values.shape[2:] != (inputs,) or heads != config["num_attention_heads"]:
        raise _no_part(name, values)
    height = values.shape[1]
    each = width + height
    pieces, own = {}, []
    for head in range(heads):
        first = head * each * inputs
        key = Matrix(f"{name}[{head}].k", inputs, width, first, row_step=1, column_step=inputs)
        value = Matrix(f"{name}[{head}].v", height, inputs, first + width * inputs)
        pieces[key.name] = keys, Matrix(key.name, inputs, width, head * inputs * width)
        pieces[value.name] = values, Matrix(value.name, height, inputs, head * height * inputs)
        own += [key, value]
    return Joined((heads * each, inputs), tuple(own), pieces, _kept_dtype(parts), is_cut=True)


def _heads_of_keys(name: str, parts: Sequence[Source], config: Mapping[str, Any]) -> Joined:
    """The rows of the parts that belong to each head of keys."""
    return _groups(name, parts, int(config["linear_num_key_heads"]))


def _behind(name: str, parts: Sequence[Source], _config: Mapping[str, Any]) -> Joined:
    """One part behind the other."""
    return _groups(name, parts, 1)


def _groups(name: str, parts: Sequence[Source], groups: int) -> Joined:
    """Rows of several weights in groups, which have their share of each of them."""
    columns = parts[0].shape[-1]
    for part in parts:
        if len(part.shape) != 2 or part.shape[1] != columns or part.shape[0] % groups or not all(part.shape):
            raise _no_part(name, part)
    heights = [part.shape[0] // groups for part in parts]
    pieces, own, at = {}, [], 0
    for group in range(groups):
        for place, (part, height) in enumerate(zip(parts, heights, strict=True)):
            matrix = Matrix(f"{name}[{group}].{place}", height, columns, at * columns)
            pieces[matrix.name] = part, Matrix(matrix.name, height, columns, group * height * columns)
            own.append(matrix)
            at += height
    return Joined((at, columns), tuple(own), pieces, _kept_dtype(parts), is_cut=True)


REJOINED: Mapping[str, Callable[[str, Sequence[Source], Mapping[str, Any]], Joined]] = {
    "heads": _keys_and_values,
    "heads of keys": _heads_of_keys,
    "one behind the other": _behind,
}
"""By the word of a row, see `GgufArchitecture.rejoined`. Raise CheckpointError for parts that do not fit."""


def _three(name: str, part: Source) -> tuple[int, int, int]:
    if len(part.shape) != 3 or not all(part.shape):
        raise _no_part(name, part)
    return part.shape[0], part.shape[1], part.shape[2]


def _no_part(name: str, part: Source) -> CheckpointError:
    what = f"no part of {name} with the others that belong to it"
    return CheckpointError(what, file=part.stored.file.path, tensor=part.stored.tensor.name)


def _kept_dtype(parts: Sequence[Source]) -> str:
    """The dtype that holds all of them."""
    found = {part.kept_dtype for part in parts}
    return found.pop() if len(found) == 1 else "F32"
