"""Checks of plain weights: values that are no number or too large for float16, and grids of an earlier quantization."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.core.findings.finding import Observation, Reading, Seen
from studio.core.findings.folder import Folder, pieces_of
from studio.core.findings.scales import FLOAT16_MAX
from studio.core.model import Stored


@dataclass(frozen=True, slots=True)
class _Bits:
    """How a dtype lies in memory: its whole numbers, which bits are the magnitude, from which on there are none."""

    words: "np.dtype[Any]"
    magnitude: int
    infinity: int


_BITS = {
    "BF16": _Bits(np.dtype(np.uint16), 0x7FFF, 0x7F80),
    "F16": _Bits(np.dtype(np.uint16), 0x7FFF, 0x7C00),
    "F32": _Bits(np.dtype(np.uint32), 0x7FFFFFFF, 0x7F800000),
}


@dataclass(frozen=True, slots=True)
class _Grid:
    """Of `window` weights in a row at most `levels` differ: magnitudes, or, where `signed`, values."""

    title: str
    window: int
    levels: int
    signed: bool = False


_GRIDS = (
    _Grid("4 bits, symmetric", 16, 8),
    _Grid("4 bits with a zero point", 32, 16, signed=True),
    _Grid("8-bit floats", 128, 64),
)
"""Of normal weights in bfloat16, the coarsest plain dtype, 16 have some 16 magnitudes, 32 some 31 values and 128 some
105 magnitudes. Four bits have 8 magnitudes, or 16 values in a group of at least 32. 128 normal weights in E4M3 have
some 45 magnitudes, eight-bit integers some 75: these are not told from plain ones."""

_ALL = 0.98
"""Share of the windows that must be coarse. By chance hardly one is."""

_FEWEST_WINDOWS, _FEWEST_LIVE = 64, 0.75
_MATRICES = ("linear", "expert", "head", "embedding")
_SAMPLE = 1 << 18
"""Weights of a tensor that are looked at, at most."""


def readings(folder: Folder) -> Iterator[Reading]:
    """All floating-point tensors that are not parts of codes, to be read."""
    parts = folder.parts
    matrices = {layer.tensor.name for layer in folder.layers if layer.role in _MATRICES and len(layer.shape) > 1}
    for name, stored in folder.stored.items():
        if stored.tensor.dtype in _BITS and name not in parts:
            yield Reading(name, stored.tensor.nbytes, partial(_examine, stored, is_matrix=name in matrices))


def _examine(stored: Stored, *, is_matrix: bool) -> Iterator[Seen]:
    row, name, bad, largest = _BITS[stored.tensor.dtype], stored.tensor.name, 0, 0
    for number, piece in enumerate(pieces_of(stored)):
        words = np.frombuffer(piece, row.words)
        magnitudes = words & row.magnitude
        numbers = magnitudes[magnitudes < row.infinity] if magnitudes.max(initial=0) >= row.infinity else magnitudes
        bad += magnitudes.size - numbers.size
        largest = max(largest, int(numbers.max(initial=0)))
        yield len(piece)
        if number == 0 and len(stored.tensor.shape) > 1:
            yield from _grid(stored, words[:_SAMPLE], row)
    if bad:
        yield Observation("weights-nan", name, f"{bad:,} of {math.prod(stored.tensor.shape):,} are NaN or infinite")
    elif is_matrix and not largest and stored.tensor.nbytes:
        yield Observation("weights-zero", name, f"all {math.prod(stored.tensor.shape):,}")
    value = _value(largest, stored.tensor.dtype)
    if value > FLOAT16_MAX:
        yield Observation("float16-overflow", name, f"up to {value:.6g}, float16 ends at {FLOAT16_MAX:g}")


def _value(magnitude: int, dtype: str) -> float:
    if dtype == "F16":
        return float(np.array([magnitude], np.uint16).view(np.float16)[0])
    bits = magnitude << 16 if dtype == "BF16" else magnitude
    return float(np.array([bits], np.uint32).view(np.float32)[0])


def _grid(stored: Stored, words: NDArray[Any], row: _Bits) -> Iterator[Observation]:
    """The first grid that the weights lie on, in rows or, as packages store some stacks, in columns."""
    columns = stored.tensor.shape[-1]
    matrix = words[: words.size // columns * columns].reshape(-1, columns) if columns else words[:0].reshape(0, 1)
    for values in (matrix, np.ascontiguousarray(matrix.T)):
        for grid in _GRIDS:
            if _lies_on(values, grid, row):
                evidence = f"at most {grid.levels} {'values' if grid.signed else 'magnitudes'} in {grid.window} weights"
                yield Observation("coarse-weights", stored.tensor.name, f"{evidence}: a grid of {grid.title}")
                return


def _lies_on(matrix: NDArray[Any], grid: _Grid, row: _Bits) -> bool:
    values = matrix[:, : matrix.shape[1] // grid.window * grid.window].reshape(-1, grid.window)
    magnitudes = values & row.magnitude
    return _share(values if grid.signed else magnitudes, magnitudes, grid) > _ALL


def _share(values: NDArray[Any], magnitudes: NDArray[Any], grid: _Grid) -> float:
    """The share of windows with no more levels than the grid has.

    Windows of few weights beside 0, and those of one or two levels, as in constant or binary tensors, are left out.
    """
    if len(values) < _FEWEST_WINDOWS:
        return 0.0
    live = (magnitudes != 0).sum(axis=1) >= _FEWEST_LIVE * grid.window
    ordered = np.sort(values[live], axis=1)
    levels = 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1)
    judged = levels[levels > 2]
    return float((judged <= grid.levels).mean()) if judged.size >= _FEWEST_WINDOWS else 0.0
