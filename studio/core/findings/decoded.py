"""Checks of what codes decode to: of GGUF every weight; of other formats than NVFP4 whether codes are all one."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.core.counting import counted
from studio.core.errors import CheckpointError
from studio.core.findings.finding import Observation, Reading, Seen
from studio.core.findings.folder import Folder
from studio.core.findings.scales import FLOAT16_MAX
from studio.core.model import Layer, Matrix

_SLAB = 1 << 18
"""Weights that are decoded at a time."""

_SAMPLE = 1 << 12
"""Weights at the start of a matrix that are looked at first: nearly always one of them is not zero."""

_BLOCK = 16
"""Weights in a row that have one scale, and one zero, in every format with few enough bits."""

_NVFP4 = ("nvfp4-2t", "nvfp4-3t")
_MATRICES = ("linear", "expert", "head", "embedding")


def readings(folder: Folder) -> Iterator[Reading]:
    """The weights of a GGUF model, and of other checkpoints the matrices whose codes nothing else examines."""
    if folder.model:
        for layer in folder.layers if not folder.model.quantized_by else ():
            yield Reading(layer.name, layer.source.nbytes, partial(_examine, layer))
        return
    known = {module.codes.tensor.name for module in folder.modules.values() if module.is_nvfp4}
    for layer in folder.layers:
        name = layer.source.stored.tensor.name
        if layer.role in _MATRICES and name in folder.recognized.sources and name not in known:
            yield Reading(layer.name, 0, partial(_zeros, layer))


def _examine(layer: Layer) -> Iterator[Seen]:
    """Numbers that are none, or that float16 has none for, and matrices of zeros."""
    bad, largest = 0, 0.0
    for values in _slabs(layer, _whole(layer)):
        finite = np.isfinite(values)
        bad += values.size - int(np.count_nonzero(finite))
        largest = max(largest, float(np.abs(values, where=finite, out=np.zeros_like(values)).max(initial=0)))
    yield layer.source.nbytes
    count = math.prod(layer.source.shape)
    if bad:
        yield Observation("weights-nan", layer.name, f"{bad:,} of {count:,} are NaN or infinite")
    elif not largest and count and layer.role in _MATRICES:
        yield Observation("weights-zero", layer.name, f"all {count:,}")
    if layer.source.format and layer.source.format.name in _NVFP4:
        yield from _lost_blocks(layer)
    if largest > FLOAT16_MAX:
        yield Observation("float16-overflow", layer.name, f"up to {largest:.6g}, float16 ends at {FLOAT16_MAX:g}")


def _lost_blocks(layer: Layer) -> Iterator[Observation]:
    """Blocks of NVFP4 with live codes and a scale of 0, or of a byte that is 0 to ggml."""
    lost, whole = 0, _whole(layer)
    try:
        for start, stop in _ranges(whole):
            stored = layer.source.packed(whole, start, stop)
            live = ((stored.codes & 0x77) != 0).reshape(*stored.scales.shape, -1).any(axis=-1)
            lost += int((live & (stored.scales == 0)).sum())
    except CheckpointError as error:
        yield Observation("scales-nan", layer.name, error.what)
    if lost:
        yield Observation("scales-zero", layer.name, f"{lost:,} of {counted(math.prod(layer.shape) // 16, 'block')}")


def _zeros(layer: Layer) -> Iterator[Seen]:
    """Matrices of which all weights are zero, or all codes one, as far as they can be decoded."""
    matrices = layer.matrices
    dead = [matrix.name for matrix in matrices if _is_dead(layer, matrix)]
    if dead:
        more = f"{len(dead):,} of {len(matrices):,} matrices, the first is {dead[0]}"
        yield Observation("weights-zero", layer.name, more if len(matrices) > 1 else "no two of its codes differ")


def _is_dead(layer: Layer, matrix: Matrix) -> bool:
    """True where weights differ in no block: all are zero, or all codes of a format with zeros of its own are."""
    try:
        first = layer.source.rows(matrix, 0, max(min(matrix.rows, _SAMPLE // max(matrix.columns, 1)), 1))
        return not _varies(first) and not any(map(_varies, _slabs(layer, matrix)))
    except CheckpointError:
        return False  # what can not be decoded is found where its parts are looked at


def _varies(rows: NDArray[Any]) -> bool:
    """True where two weights of a block differ, or where one is not zero and rows are too short to tell."""
    across = rows.shape[1] // _BLOCK * _BLOCK
    blocks = rows[:, :across].reshape(len(rows), -1, _BLOCK)
    return bool((blocks != blocks[..., :1]).any() if across else rows.any())


def _whole(layer: Layer) -> Matrix:
    columns = layer.source.shape[-1] if layer.source.shape else 1
    return Matrix(layer.name, math.prod(layer.source.shape[:-1]), columns)


def _slabs(layer: Layer, matrix: Matrix) -> Iterator[NDArray[Any]]:
    for start, stop in _ranges(matrix):
        yield layer.source.rows(matrix, start, stop)


def _ranges(matrix: Matrix) -> Iterator[tuple[int, int]]:
    """Rows to decode at a time, from and to."""
    height = max(_SLAB // max(matrix.columns, 1), 1)
    for start in range(0, matrix.rows if matrix.columns else 0, height):
        yield start, min(start + height, matrix.rows)
