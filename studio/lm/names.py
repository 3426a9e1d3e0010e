"""Which matrices of a checkpoint a module of a runtime multiplies with."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from studio.core.architectures import block_index, renamed
from studio.core.architectures.naming import part_of
from studio.core.layouts.mlx import module_of
from studio.core.model import Layer, Matrix, Model

Place = tuple[str, int | None]
"""A module, and the expert in it, None where it holds one matrix."""

_PARTS = {"gate_proj": "gate_up_proj", "up_proj": "gate_up_proj", "w1": "gate_up_proj", "w3": "gate_up_proj"}
_SINGLE = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
_BLOCK = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.(.+)$")


def mlx_places(model: Model) -> dict[Place, list[str]]:
    """Names of matrices by their places in mlx-lm, in file order."""
    found: dict[Place, list[str]] = defaultdict(list)
    for _, matrix in matrices(model):
        path, expert, _ = module_of(model, matrix)
        for name in dict.fromkeys((path, renamed(path, model.family.mlx.module))):
            found[name, expert].append(matrix.name)
    return found


def torch_places(model: Model, parameters: Mapping[str, tuple[int, ...]]) -> dict[Place, list[str]]:
    """Names of matrices by the module (of a parameter, without `.weight`) and expert that hold them in transformers.

    transformers 5 stacks experts, joins gate and up, and moves prefixes: what counts besides the name is the block, and
    where in it a module stands.
    """
    found: dict[Place, list[str]] = defaultdict(list)
    names = {name.removesuffix(".weight"): shape for name, shape in parameters.items()}
    modules = {name: shape for name, shape in names.items() if not part_of(name, model.family)}
    by_tail = _by_tail(modules)
    for _, matrix in matrices(model):
        for name, expert in _candidates(matrix):
            path = name if name in modules else by_tail.get(_tail(name), "")
            if path and (expert is None) == (len(modules[path]) == 2):
                found[path, expert].append(matrix.name)
                break
    return found


def matrices(model: Model) -> Iterator[tuple[Layer, Matrix]]:
    """All matrices that text goes through, with their layers."""
    for layer in model.layers:
        if layer.role not in ("vision", "audio", "projector", "draft", "embedding"):
            yield from ((layer, matrix) for matrix in layer.matrices)


def _candidates(matrix: Matrix) -> Iterator[Place]:
    yield matrix.name, None
    if matrix.expert is not None:
        kind = matrix.projection
        for stack in (f"{matrix.stack}.experts", matrix.stack):
            for name in dict.fromkeys((_PARTS.get(kind, kind), _SINGLE.get(kind, kind), kind)):
                yield f"{stack}.{name}", matrix.expert
        block = block_index(matrix.name)
        for name in dict.fromkeys((_PARTS.get(kind, kind), _SINGLE.get(kind, kind), kind)):
            yield f"layers.{block}.*.experts.{name}", matrix.expert


def _by_tail(modules: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """The only module of each place in a block; also by "*.experts.NAME" wherever a block has one stack of it."""
    found: dict[str, list[str]] = defaultdict(list)
    for path, shape in modules.items():
        tail = _tail(path)
        found[tail].append(path)
        if len(shape) == 3 and ".experts." in path:
            found[f"{block_index(path)} *.experts.{path.rpartition('.')[2]}"].append(path)
    return {tail: paths[0] for tail, paths in found.items() if len(paths) == 1}


def _tail(name: str) -> str:
    """Block and place in it; outside of blocks the last part of the name."""
    found = _BLOCK.search(name)
    return f"{found[1]} {found[2]}" if found else name.rpartition(".")[2]
