"""Stacks of experts that llama.cpp splits, in the one tensor that transformers has for them, and their biases."""

from collections.abc import Mapping, Sequence
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
        first = parts[0][0].stored
        what = f"no part of {name} with the others that belong to it"
        raise CheckpointError(what, file=first.file.path, tensor=first.tensor.name)
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


def _kept_dtype(parts: Sequence[Source]) -> str:
    """The dtype that holds all of them."""
    found = {part.kept_dtype for part in parts}
    return found.pop() if len(found) == 1 else "F32"
