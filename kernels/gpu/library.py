"""Builds each kernel once per device and launches it."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx

from kernels.gpu.source import KERNELS, Device, Kernel, body, header

KINDS: dict[Any, int] = {mx.float32: 0, mx.float16: 1, mx.bfloat16: 2}
"""KIND of the kernels' text per dtype of weights."""

Parameters = dict[str, int | bool]


class Library:
    """The kernels of one device. A kernel is made on first use and kept; mlx keeps each compiled parameter set."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._built: dict[str, Callable[..., list[mx.array]]] = {}

    def _kernel(self, kernel: Kernel) -> Callable[..., list[mx.array]]:
        if kernel.name not in self._built:
            make: Any = mx.fast.metal_kernel if self.device == "metal" else mx.fast.cuda_kernel
            self._built[kernel.name] = make(
                name=f"nvfp4_studio_{kernel.name}",
                input_names=list(kernel.inputs),
                output_names=list(kernel.outputs),
                source=body(kernel),
                header=header(kernel, self.device),
            )
        return self._built[kernel.name]

    def launch(
        self,
        name: str,
        inputs: Sequence[mx.array],
        parameters: Parameters,
        outputs: Sequence[tuple[Sequence[int], Any]],
        items: int,
    ) -> list[mx.array]:
        """Run kernel `name` over `items` units of work (threads' or simdgroups' worth of threads).

        `parameters` are compile-time constants, `outputs` shapes and dtypes. Inputs must start on a block boundary
        of their buffer, as whole arrays and slices of rows do: they are read 16 bytes at a time.
        """
        kernel = KERNELS[name]
        groups = min(-(-items // kernel.threads), kernel.groups)
        return self._kernel(kernel)(
            inputs=list(inputs),
            template=list(parameters.items()),
            grid=(groups * kernel.threads, 1, 1),
            threadgroup=(kernel.threads, 1, 1),
            output_shapes=[tuple(shape) for shape, _ in outputs],
            output_dtypes=[dtype for _, dtype in outputs],
        )


@functools.cache
def library(device: Device) -> Library:
    """The one library of `device`."""
    return Library(device)
