"""Scales of tiles: one float32 for some rows and columns of a weight, and its place beside every block of these."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.fidelity import widen
from kernels.formats import E4M3_MAX, Format

Float32 = NDArray[np.float32]
_LEAST = np.finfo(np.float32).tiny
_MAGNITUDES = {2: (np.uint16, 0x7FFF), 4: (np.uint32, 0x7FFFFFFF)}


def tile_scales(weight: NDArray[Any], row: Format) -> Float32:
    """The scales of the tiles of finite weights [rows, K], as `kernels.reference.tile_scale` has them."""
    if not all(row.tiles(*weight.shape)):
        return np.ones((1, 1), np.float32)
    peaks = _peaks(weight, row)
    scales = np.maximum(peaks / np.float32(E4M3_MAX), _LEAST)
    return np.where(peaks == 0, np.float32(1), rounded_up(scales)).astype(np.float32)


def rounded_up(scales: Float32) -> Float32:
    """The smallest bfloat16 numbers, in float32, that are not less than positive scales of at most 2**120."""
    bits = np.asarray(scales, np.float32).view(np.uint32)
    found: Float32 = ((bits + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)).view(np.float32)
    return found


def _peaks(weight: NDArray[Any], row: Format) -> Float32:
    """The largest magnitude of each tile, found among the bits of magnitudes, which are ordered alike."""
    kind, mask = _MAGNITUDES[weight.dtype.itemsize]
    bits = weight.view(kind) & kind(mask)
    high, wide = row.tile
    down, across = (range(0, size, step or size) for size, step in zip(weight.shape, (high, wide), strict=True))
    found = np.maximum.reduceat(np.maximum.reduceat(bits, list(across), axis=1), list(down), axis=0)
    return widen(np.ascontiguousarray(found).view(weight.dtype))


def spread(scales: Float32, row: Format, rows: int, columns: int, start: int = 0) -> Float32:
    """The scales of tiles beside the blocks of `rows` x `columns` weights, from row `start` of the matrix on."""
    high, wide = row.tile
    down = np.arange(start, start + rows) // high - start // high if high else np.zeros(rows, np.int64)
    across = np.arange(0, columns, row.block) // wide if wide else np.zeros(columns // row.block, np.int64)
    return np.ascontiguousarray(scales[down][:, across])


def gathered(scales: Float32, row: Format, columns: int) -> Float32:
    """The scales of tiles from those beside blocks; rows begin with a tile."""
    high, wide = row.tile
    down, across = row.tiles(len(scales), columns)
    steps = (high or len(scales)), max(wide // row.block, 1) if wide else scales.shape[1]
    return np.ascontiguousarray(scales[:: steps[0], :: steps[1]][:down, :across])
