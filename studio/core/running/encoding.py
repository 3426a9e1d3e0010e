"""Encoding the weights of a layer: by the backend, and affine scales in the dtype that a runtime computes in."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import Context, Format, Recipe
from kernels.backend import Backend
from kernels.casts import cast
from kernels.fidelity import Fidelity, concatenate
from kernels.methods import method_of
from kernels.quantized import Quantized
from kernels.reference import symmetric_biases
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.model import Guide, Layer, Matrix

_MEASURED_AT_ONCE = 1 << 16
_CONTEXTS = 16
"""Contexts that are kept: slabs of one matrix follow each other, and a context is small beside a slab."""


def encode(
    backend: Backend,
    layer: Layer,
    matrix: Matrix,
    weights: NDArray[Any],
    recipe: Recipe,
    g: float,
    *,
    blocks: bool = False,
) -> tuple[Quantized, Fidelity]:
    """Quantize weights [rows, columns] of a matrix of a layer and measure the result; see `Backend.encode`.

    Codes come from the weights as they were read. Affine scales and biases are then rounded to the layer's
    `kept_dtype`: those in float32 would make mlx-lm compute in float32.
    """
    context = _context(layer, matrix, recipe)
    found, fidelity = backend.encode(weights, recipe, g, context=context, blocks=blocks)
    quantized = _rounded(found, layer)
    if quantized is not found:
        fidelity = measured(backend, weights, quantized, blocks=blocks)
    assert fidelity is not None
    return quantized, fidelity


def encoded(
    backend: Backend, layer: Layer, matrix: Matrix, weights: NDArray[Any], recipe: Recipe, g: float
) -> Quantized:
    """What `encode` makes of weights [rows, columns], not measured: a small part of the work where rows are short."""
    context = _context(layer, matrix, recipe)
    return _rounded(backend.encode(weights, recipe, g, context=context, measure=False).quantized, layer)


def _context(layer: Layer, matrix: Matrix, recipe: Recipe) -> Context | None:
    return _known(layer.guide, matrix) if layer.guide and method_of(recipe.method).needs else None


@lru_cache(maxsize=_CONTEXTS)
def _known(guide: Guide, matrix: Matrix) -> Context:
    return guide.context(matrix)


def _rounded(quantized: Quantized, layer: Layer) -> Quantized:
    """With affine scales and biases in the dtype that a layer is kept in."""
    dtype = WEIGHT_DTYPES[layer.kept_dtype]
    if not quantized.format.affine or quantized.scales.dtype == dtype:
        return quantized
    assert quantized.biases is not None
    with np.errstate(over="ignore"):  # a scale beyond the dtype makes an infinite error, which is refused
        scales, biases = quantized.scales.astype(dtype), quantized.biases.astype(dtype)
        biases = symmetric_biases(scales, quantized.format) if quantized.format.symmetric else biases
        return replace(quantized, scales=scales, biases=biases)


def taken_over(layer: Layer, found: Quantized, row: Format, g: float) -> Quantized:
    """Stored codes of a layer in a format, with the multiplier `g` that readers compute; ValueError where not exact."""
    if not _same_but_tiers(found, row, g):
        return cast(found, row, g, WEIGHT_DTYPES[layer.kept_dtype] if row.affine else None)
    return replace(found, format=row, tensor_scale=np.array(g, np.float32) if row.tensor_scale else None)


def _same_but_tiers(found: Quantized, row: Format, g: float) -> bool:
    """True where block scales stay: in the same format, or with a tensor scale of 1 that two tiers leave out."""
    bare = (1 if found.tensor_scale is None else float(found.tensor_scale)) == g == 1
    return found.format == row or (bare and found.format.scale == row.scale == "e4m3")


def measured(backend: Backend, weights: NDArray[Any], quantized: Quantized, *, blocks: bool = False) -> Fidelity:
    """`kernels.reference.fidelity`, a few rows at a time: float64 takes many times the memory of the weights."""
    height = max(_MEASURED_AT_ONCE // weights.shape[1], 1)
    parts = []
    for start in range(0, len(weights), height):
        piece = rows_of(quantized, slice(start, start + height))
        parts.append(_compared(weights[start : start + height], backend.decode(piece), piece, blocks=blocks))
    return concatenate(parts)


def rows_of(quantized: Quantized, rows: slice) -> Quantized:
    """Some rows of a quantized weight [rows, columns]."""
    biases = None if quantized.biases is None else quantized.biases[rows]
    return replace(quantized, codes=quantized.codes[rows], scales=quantized.scales[rows], biases=biases)


def _compared(weights: NDArray[Any], decoded: NDArray[np.float32], quantized: Quantized, *, blocks: bool) -> Fidelity:
    """The fidelity of decoded weights [rows, columns]."""
    wide = weights.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # an infinite error is refused
        errors = wide - decoded
        squares = errors * errors
    row = quantized.format
    each = squares.reshape(len(weights), -1, row.block) if blocks else None
    counted = quantized.scales.reshape(-1) if row.byte_scales else np.zeros(0, np.uint8)
    return Fidelity(
        width=weights.shape[1],
        row_squares=np.einsum("ij,ij->i", wide, wide),
        row_error=squares.sum(axis=1),
        max_error=float(np.abs(errors).max()),
        vanished=int(((decoded == 0) & (weights != 0)).sum()),
        scale_counts=np.bincount(counted, minlength=256).astype(np.uint64),
        block_error=None if each is None else each.sum(axis=2).astype(np.float32),
    )
