"""The GPU as a Backend: numpy in, numpy out, self-tested against the reference on first use."""

import threading
from importlib import metadata, util
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import reference
from kernels.backend import Backend, Encoded, Weight
from kernels.context import Context
from kernels.fidelity import INFINITY_BIN, MAGNITUDE_BINS, Census, Fidelity, squared_error
from kernels.formats import FORMATS, Format, Recipe
from kernels.gpu.requirements import check_mlx, check_three_tiers
from kernels.gpu.selftest import self_test
from kernels.machines import choose
from kernels.quantized import Quantized

_LEAST_SQUARES = 1e-30
"""Sums of squares below this lose digits in float32 and are measured again by the reference."""


def gpu_backend(name: str) -> Backend:
    """The backend called "metal" or "cuda", self-tested. Raises ValueError, saying why, when it can not work here."""
    if name not in ("metal", "cuda"):
        raise ValueError(f"[gpu_backend] unknown backend, got {name!r}: choose metal or cuda")
    if util.find_spec("mlx") is None:
        raise ValueError(f"[gpu_backend] {name} needs mlx 0.32.1 or later, which is not installed")
    check_mlx(metadata.version("mlx"))
    import mlx.core as mx

    if not (mx.metal if name == "metal" else mx.cuda).is_available():
        raise ValueError(f"[gpu_backend] mlx finds no {'Metal' if name == 'metal' else 'CUDA'} device here")
    backend = GpuBackend(name)
    backend.prove()
    return backend


def _title(name: str) -> str:
    import mlx.core as mx

    return f"{mx.device_info().get('device_name', 'GPU')} ({'Metal' if name == 'metal' else 'CUDA'})"


class GpuBackend:
    """Metal or CUDA through mlx. The first call compares its bytes with the reference; ValueError when they differ.

    Calls take turns: mlx arrays belong to the thread that makes them, and there is one GPU.
    """

    def __init__(self, name: str) -> None:
        from kernels.gpu.library import library

        self.name = name
        self.title = _title(name)
        self._library = library("metal" if name == "metal" else "cuda")
        self._turn = threading.RLock()
        self._proved: set[str] = set()

    def prove(self, method: str = "max") -> None:
        """Run the self-test of a method once. Raises ValueError that names what differs from the reference."""
        with self._turn:
            if method in self._proved:
                return
            if difference := self_test(self._library, method):
                raise ValueError(f"[self-test] {self.title} does not agree with the reference, got {difference}")
            self._proved.add(method)

    def census(self, weight: Weight) -> Census:
        """See `Backend.census`."""
        from kernels.gpu.transfer import to_mlx

        reference_check(weight)
        self.prove()
        with self._turn:
            return _census(to_mlx(weight))

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
        """See `Backend.encode`. Sums are float32 for up to 32,768 weights, float64 above: 1e-5 of the reference's.

        The processor feeds errors forward, one column after the other, and encodes what MLX has not.
        """
        from kernels.gpu import coding
        from kernels.gpu.transfer import to_mlx, to_numpy

        row = recipe.format
        reference.check(weight, row)
        fed_forward = recipe.method == "feedback" and context is not None and context.factor is not None
        if fed_forward or not row.in_mlx:
            return choose("cpu").encode(weight, recipe, tensor_scale, context=context, measure=measure, blocks=blocks)
        g = _multiplier(row, tensor_scale)
        self.prove(coding.used_method(recipe, context, weight.shape[1]))
        with self._turn:
            coded = coding.encode(
                self._library,
                to_mlx(weight),
                recipe,
                to_mlx(g),
                context=context,
                measure=measure or blocks,
                blocks=blocks,
            )
            quantized = Quantized(
                row,
                to_numpy(coded.codes).view(np.uint8),
                to_numpy(coded.scales),
                None if coded.biases is None else to_numpy(coded.biases),
                g.reshape(()) if row.tensor_scale else None,
            )
            if coded.sums is None:
                return Encoded(quantized, None)
            block_error = to_numpy(coded.block_error) if blocks and coded.block_error is not None else None
            return Encoded(quantized, _fidelity(weight, quantized, to_numpy(coded.sums), block_error))

    def decode(self, quantized: Quantized, dtype: Any = np.float32) -> Weight:
        """See `Backend.decode`."""
        from kernels.gpu import coding
        from kernels.gpu.transfer import mlx_dtype, to_mlx, to_numpy

        if not quantized.format.in_mlx:
            return choose("cpu").decode(quantized, dtype)
        quantized = quantized.in_nibbles_or_bytes()
        row, out = quantized.format, mlx_dtype(dtype)
        g = _multiplier(row, 1.0 if quantized.tensor_scale is None else float(quantized.tensor_scale))
        self.prove()
        with self._turn:
            coded = coding.Coded(
                to_mlx(np.ascontiguousarray(quantized.codes).view(np.uint32)),
                to_mlx(np.ascontiguousarray(quantized.scales)),
                None if quantized.biases is None else to_mlx(np.ascontiguousarray(quantized.biases)),
            )
            return to_numpy(coding.decode(self._library, coded, row, out, to_mlx(g)))

    def squared_error(self, weight: Weight, quantized: Quantized) -> float:
        """See `Backend.squared_error`; the processor sums what the GPU decoded."""
        return squared_error(weight, self.decode(quantized))


def reference_check(weight: Weight) -> None:
    """Raise TypeError for a dtype that is no weight's."""
    reference.check(np.zeros((1, 16), weight.dtype), FORMATS["nvfp4-2t"])


def _multiplier(row: Format, tensor_scale: float) -> NDArray[np.float32]:
    if not row.tensor_scale:
        return np.ones(1, np.float32)
    check_three_tiers("encode")
    g = np.array([tensor_scale], np.float32)
    if not (np.isfinite(g[0]) and g[0] >= np.finfo(np.float32).tiny):
        raise ValueError(f"[encode] the tensor scale must be a positive normal number, got {tensor_scale}")
    return g


def _fidelity(
    weight: Weight, quantized: Quantized, sums: NDArray[np.float32], block_error: NDArray[np.float32] | None
) -> Fidelity:
    per_row = sums.astype(np.float64)
    squares, error = per_row[..., 0].sum(axis=1), per_row[..., 1].sum(axis=1)
    doubtful = ~np.isfinite(squares) | ((squares < _LEAST_SQUARES) & (per_row[..., 5].max(axis=1) > 0))
    if doubtful.any():
        return reference.fidelity(weight, quantized, blocks=block_error is not None)
    affine = quantized.format.affine
    counts = np.zeros(256, np.int64) if affine else np.bincount(quantized.scales.reshape(-1), minlength=256)
    return Fidelity(
        width=weight.shape[1],
        row_squares=squares,
        row_error=error,
        max_error=float(per_row[..., 2].max()),
        vanished=int(per_row[..., 3].sum()),
        scale_counts=counts.astype(np.uint64),
        block_error=block_error,
    )


def _census(weight: Any) -> Census:
    import mlx.core as mx

    wide = weight.reshape(-1).astype(mx.float32)
    bins = (wide.view(mx.uint32) >> 16) & 0x7FFF
    bins = mx.where(mx.isnan(wide), mx.array(MAGNITUDE_BINS - 1, mx.uint32), bins)
    counts = np.array(mx.zeros((MAGNITUDE_BINS,), mx.int32).at[bins].add(mx.array(1, mx.int32))).astype(np.uint64)
    if weight.dtype == mx.bfloat16:
        return Census.from_bfloat16_counts(counts)
    finite = mx.where(bins < INFINITY_BIN, mx.abs(wide), mx.array(0.0)).reshape(weight.shape)
    squares = finite * finite
    rows = [np.array(mx.sum(part, axis=1)).astype(np.float64).sum() for part in (squares, squares * squares)]
    return Census(counts, float(mx.max(finite)), float(rows[0]), float(rows[1]))
