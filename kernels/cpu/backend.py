"""CpuBackend: the C++ library as a backend."""

import ctypes
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.backend import Backend, Encoded, Weight
from kernels.context import Context, Factor
from kernels.cpu import library
from kernels.feedback import SWEEPS
from kernels.fidelity import MAGNITUDE_BINS, Census, Fidelity, concatenate
from kernels.formats import Format, Recipe
from kernels.quantized import Quantized
from kernels.tiles import spread, tile_scales

TITLES = {"avx512": "AVX-512", "avx2": "AVX2", "sse": "SSE4", "neon": "NEON"}


class CpuBackend:
    """Encodes and decodes on the processor; `variant` forces an instruction set, None takes the fastest that runs here.

    Raises OSError when the library can not be loaded, ValueError when it has no variant for this processor.
    """

    name = "cpu"

    def __init__(self, variant: str | None = None) -> None:
        found = library.variants()
        if not found or (variant is not None and variant not in found):
            raise ValueError(f"[cpu] this processor runs {', '.join(found) or 'no variant'}, got {variant}")
        self.variant = variant or next(iter(found))
        self.title = f"CPU, {TITLES[self.variant]}"
        self._number = found[self.variant]
        self._library = library.load()

    def census(self, weight: Weight) -> Census:
        """See `Backend.census`."""
        weight = np.ascontiguousarray(weight)
        counts = np.zeros(MAGNITUDE_BINS, np.uint64)
        task = library.CensusTask(
            library.address(weight), library.address(counts), weight.size, _dtype(weight, "census")
        )
        if self._library.nvfp4_census(self._number, ctypes.byref(task)):
            raise MemoryError("[census] no memory for the counters")
        return Census(counts, task.max_abs, task.sum2, task.sum4)

    def max_abs(self, weight: Weight) -> float:
        """Largest |w| of a weight of any shape, as fast as it can be read; Inf or NaN when the weight holds either."""
        weight = np.ascontiguousarray(weight)
        value = self._library.nvfp4_max_abs(self._number, weight.ctypes.data, weight.size, _dtype(weight, "max_abs"))
        return float(value)

    def encode(
        self,
        weight: Weight,
        recipe: Recipe,
        tensor_scale: float = 1.0,
        *,
        context: Context | None = None,
        measure: bool = True,
        blocks: bool = False,
    ) -> Encoded:
        """See `Backend.encode`.

        What is known of the columns is laid out once a call: importance takes 2 bytes a column, moments 24. Feeding
        errors forward takes 5.1 bytes a weight and 512 a row beside the result, rows counted in sixty-fours.
        """
        if recipe.method == "feedback" and context is not None and context.factor is not None:
            return self._feed_forward(weight, recipe, tensor_scale, context, context.factor, measure, blocks)
        row = recipe.format
        dtype = _dtype(weight, "encode")
        rows, width = _slab(weight, row)
        importance, moments = (context or Context()).used(recipe.method, width)
        codes = np.empty((rows, width * row.bits // 8), np.uint8)
        scales = _scales(weight, row)
        biases = np.empty_like(scales) if row.affine else None
        measured = _Measured(rows, width // row.block, blocks) if measure or blocks else None
        task = library.EncodeTask(
            weight=library.address(weight),
            codes=library.address(codes),
            scales=library.address(scales),
            biases=library.address(biases),
            measure=ctypes.pointer(measured.structure) if measured else None,
            importance=library.address(importance),
            moments=library.address(moments),
            rows=rows,
            width=width,
            layout=library.layout(row),
            dtype=dtype,
            tensor_scale=tensor_scale,
            min_scale=recipe.min_scale,
            zero_scale=recipe.zero_scale,
            floor_exponent=recipe.exponent == "floor",
            method=library.METHODS.get(recipe.method, library.SEARCH),
        )
        if self._library.nvfp4_encode(self._number, ctypes.byref(task)):
            raise MemoryError("[encode] no memory to lay out what is known of the columns")
        scale = np.array(tensor_scale, np.float32) if row.tensor_scale else None
        return Encoded(Quantized(row, codes, scales, biases, scale), measured.fidelity(width) if measured else None)

    def _feed_forward(
        self,
        weight: Weight,
        recipe: Recipe,
        tensor_scale: float,
        context: Context,
        factor: Factor,
        measure: bool,
        blocks: bool,
    ) -> Encoded:
        """Scales first, then codes under them; see `kernels.feedback`."""
        row = recipe.format
        rows, width = _slab(weight, row)
        factor.check(width)
        plain = replace(recipe, method="hessian")
        scales = self.encode(weight, plain, tensor_scale, context=context, measure=False).quantized.scales
        codes = np.empty((rows, width * row.bits // 8), np.uint8)
        measured = _Measured(rows, width // row.block, blocks) if measure or blocks else None
        task = library.FeedbackTask(
            weight=library.address(weight),
            scales=library.address(scales),
            order=library.address(factor.order),
            feedback=library.address(factor.feedback),
            coupling=library.address(factor.coupling),
            codes=library.address(codes),
            measure=ctypes.pointer(measured.structure) if measured else None,
            rows=rows,
            width=width,
            dtype=_dtype(weight, "encode"),
            tensor_scale=tensor_scale,
            sweeps=SWEEPS,
        )
        if self._library.nvfp4_feedback(self._number, ctypes.byref(task)):
            raise MemoryError("[encode] no memory for the errors that are fed forward")
        scale = np.array(tensor_scale, np.float32) if row.tensor_scale else None
        quantized = Quantized(row, codes, scales, None, scale)
        return Encoded(quantized, measured.fidelity(width) if measured else None)

    def decode(self, quantized: Quantized, dtype: Any = np.float32) -> Weight:
        """See `Backend.decode`; also takes a stack [E, rows, K / ...] with one tensor scale per matrix."""
        weight = np.empty(quantized.shape, dtype)
        kind = _dtype(weight, "decode")
        for task, first in _coded(quantized):
            task.weight, task.dtype = (library.address(weight) or 0) + first * weight.itemsize, kind
            self._library.nvfp4_decode(self._number, ctypes.byref(task))
        return weight

    def squared_error(self, weight: Weight, quantized: Quantized) -> float:
        """See `Backend.squared_error`."""
        kind, total = _dtype(weight, "squared_error"), 0.0
        if weight.shape != quantized.shape or not weight.flags.c_contiguous:
            raise ValueError(f"[squared_error] weight must be contiguous {quantized.shape}, got {weight.shape}")
        for coded, first in _coded(quantized):
            task = library.CompareTask(coded, weight.ctypes.data + first * weight.itemsize, kind)
            self._library.nvfp4_compare(self._number, ctypes.byref(task))
            total += task.squared_error
        return total


def _coded(quantized: Quantized) -> Iterator[tuple[library.DecodeTask, int]]:
    """For each matrix of a stack what tells its codes, and the number of its first weight; valid until the next."""
    quantized = quantized.in_nibbles_or_bytes()
    parts = [np.ascontiguousarray(part) for part in (quantized.codes, quantized.scales)]
    biases = None if quantized.biases is None else np.ascontiguousarray(quantized.biases)
    factors = np.ones(1, np.float32) if quantized.tensor_scale is None else quantized.tensor_scale.reshape(-1)
    count = math.prod(quantized.shape) // len(factors)
    places = [(library.address(part) or 0, part.nbytes // len(factors)) for part in parts]
    for index, factor in enumerate(factors):
        codes, scales = (start + index * size for start, size in places)
        yield (
            library.DecodeTask(
                codes=codes,
                scales=scales,
                biases=library.address(biases),
                count=count,
                layout=library.layout(quantized.format),
                scale_dtype=library.DTYPES[parts[1].dtype] if quantized.format.affine else 0,
                tensor_scale=float(factor),
            ),
            index * count,
        )


class _Measured:
    """The arrays an encoder writes its measurements to, kept alive beside the structure that points at them."""

    def __init__(self, rows: int, row_blocks: int, blocks: bool) -> None:
        sums = np.empty(2 * rows)
        self.row_squares, self.row_error = sums[:rows], sums[rows:]
        self.block_error = np.empty((rows, row_blocks), np.float32) if blocks else None
        self.scale_counts = np.zeros(256, np.uint64)
        first = library.address(sums) or 0
        after = library.address(self.block_error), library.address(self.scale_counts)
        self.structure = library.Measure(first, first + self.row_error.nbytes, *after)

    def fidelity(self, width: int) -> Fidelity:
        """What was measured."""
        return Fidelity(
            width=width,
            row_squares=self.row_squares,
            row_error=self.row_error,
            max_error=self.structure.max_error,
            vanished=self.structure.vanished,
            scale_counts=self.scale_counts,
            block_error=self.block_error,
        )


def _dtype(weight: Weight, op: str) -> int:
    """The library's number for the weight's dtype; TypeError when it has none."""
    number = library.DTYPES.get(weight.dtype)
    if number is None:
        raise TypeError(f"[{op}] weight must be float32, float16 or bfloat16, got {weight.dtype}")
    return number


def _slab(weight: Weight, row: Format) -> tuple[int, int]:
    """Rows and width of a weight that can be encoded in the format `row`; ValueError when it can not."""
    if reason := row.unfit(weight.shape):
        raise ValueError(f"[encode] {reason}")
    if weight.ndim != 2 or not weight.flags.c_contiguous:
        raise ValueError(f"[encode] weight must be a contiguous matrix, got shape {weight.shape}")
    return weight.shape[0], weight.shape[1]


def _scales(weight: Weight, row: Format) -> NDArray[Any]:
    """Where the scales of the blocks of a weight go; those of tiles are there before it is encoded."""
    rows, width = weight.shape
    if row.scale == "float32":
        return spread(tile_scales(weight, row), row, rows, width)
    return np.empty((rows, width // row.block), weight.dtype if row.affine else np.uint8)


def encode_parallel(
    backend: Backend,
    weight: Weight,
    recipe: Recipe,
    tensor_scale: float = 1.0,
    *,
    threads: int,
    context: Context | None = None,
    measure: bool = True,
    blocks: bool = False,
) -> Encoded:
    """Encode a weight [rows, K] on `threads` threads, each a range of rows; equal bytes and sums for every number."""
    height = recipe.format.height
    edges = [len(weight) * part // threads // height * height for part in range(threads)] + [len(weight)]
    slabs = [weight[low:high] for low, high in pairwise(edges) if high > low]

    def run(slab: Weight) -> Encoded:
        return backend.encode(slab, recipe, tensor_scale, context=context, measure=measure, blocks=blocks)

    with ThreadPoolExecutor(threads) as pool:
        return _join(list(pool.map(run, slabs)))


def _join(parts: Sequence[Encoded]) -> Encoded:
    """One encoded weight from those of its row ranges."""
    first = parts[0].quantized
    biases = [part.quantized.biases for part in parts if part.quantized.biases is not None]
    quantized = Quantized(
        first.format,
        np.concatenate([part.quantized.codes for part in parts]),
        np.concatenate([part.quantized.scales for part in parts]),
        np.concatenate(biases) if biases else None,
        first.tensor_scale,
    )
    measured = [part.fidelity for part in parts if part.fidelity is not None]
    return Encoded(quantized, concatenate(measured) if measured else None)
