"""A backend on the bench: encode there, multiply there as a runtime would, and time both."""

import time
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from kernels import reference
from kernels.backend import Backend
from kernels.formats import recipe
from kernels.machines import choose
from kernels.quantized import Quantized
from kernels.validation.weights import Float32

_LAUNCHES = 32


class Bench:
    """A backend, with the product of activations and a quantized weight as it would run there."""

    def __init__(self, name: str) -> None:
        self.backend: Backend = choose(name)
        self.on_gpu = self.backend.name in ("metal", "cuda")

    def encode(self, weight: NDArray[Any], name: str) -> Quantized:
        """Quantize with the default recipe and max|W| / 2688 where there is a tensor scale."""
        chosen = recipe(name)
        g = float(reference.tensor_scale(float(np.abs(weight).max()))) if chosen.format.tensor_scale else 1.0
        return self.backend.encode(weight, chosen, g, measure=False).quantized

    def product(self, x: Float32, weight: Quantized) -> Callable[[], NDArray[Any]]:
        """A call that multiplies x [M, K] by the transpose of the weight, and waits for the result."""
        if not self.on_gpu:
            return lambda: x @ self.backend.decode(weight).T
        from kernels.gpu.transfer import to_numpy

        launch = self._launch(x, weight)
        return lambda: to_numpy(launch()).astype(np.float32)

    def _launch(self, x: Float32, weight: Quantized | Float32) -> Callable[[], Any]:
        """A call that starts the product on the GPU in bfloat16; of two dense matrices when the weight is dense."""
        from kernels import ops
        from kernels.gpu.transfer import to_mlx
        from kernels.packed import Packed

        activations = to_mlx(x.astype(ml_dtypes.bfloat16))
        if isinstance(weight, Quantized):
            packed = Packed.of(weight)
            return lambda: ops.quantized_matmul(activations, packed)
        matrix = to_mlx(weight.astype(ml_dtypes.bfloat16))
        return lambda: activations @ matrix.T

    def productseconds(self, x: Float32, weight: Quantized | Float32) -> float:
        """Time of one product: alone on a processor, in a row of launches on a GPU."""
        if self.on_gpu:
            import mlx.core as mx

            launch = self._launch(x, weight)
            return seconds(lambda: mx.eval([launch() for _ in range(_LAUNCHES)])) / _LAUNCHES
        dense = (lambda: x @ weight.T) if not isinstance(weight, Quantized) else self.product(x, weight)
        return seconds(dense)


def seconds(call: Callable[[], object], repeats: int = 3) -> float:
    """Wall time of the fastest of `repeats` calls in seconds, after one to warm up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
