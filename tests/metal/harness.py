"""Stands in for `mx.fast.metal_kernel` where there is no Metal: traces the call, compiles the text, runs it here."""

import ctypes
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np

from tests.metal.compiling import Compiler, HarnessError, Program, compile_kernel

POISON = 0xA5


class Options(ctypes.Structure):
    """How the machine behaves where Metal promises nothing; mirrors shim/fibers.h."""

    _fields_ = [("order", ctypes.c_uint32), ("sum_order", ctypes.c_uint32), ("flush", ctypes.c_uint32)]


@dataclass
class Machine:
    """A compiler, the behaviour of the machine, and the texts that ran on it by kernel name."""

    compiler: Compiler
    order: int = 0
    sum_order: int = 0
    flush: bool = False
    texts: dict[str, str] = field(default_factory=dict)
    programs: dict[str, Program] = field(default_factory=dict)

    def program(self, name: str, text: str) -> Program:
        """The compiled kernel, kept."""
        if text not in self.programs:
            self.texts[name] = text
            instance = re.search(r"decltype\(" + re.escape(name) + r"(<.*?>)\)", text)
            self.programs[text] = compile_kernel(text, name, instance[1] if instance else "", self.compiler)
        return self.programs[text]

    def run(self, program: Program, buffers: Sequence[np.ndarray], grid: Sequence[int], group: Sequence[int]) -> None:
        """Run a kernel over buffers in the order of their indices, written in place. Raises HarnessError."""
        library = program.library
        held = [library.shim_allocate(array.nbytes, i) for i, array in enumerate(buffers)]
        for address, array in zip(held, buffers, strict=True):
            ctypes.memmove(address, array.ctypes.data, array.nbytes)
        error = ctypes.create_string_buffer(400)
        sizes = [(ctypes.c_uint32 * 3)(*size) for size in (grid, group)]
        options = Options(self.order, self.sum_order, int(self.flush))
        pointers = (ctypes.c_void_p * len(held))(*held)
        failed = library.shim_run(pointers, *sizes, ctypes.byref(options), error, ctypes.c_size_t(400))
        for address, array in zip(held, buffers, strict=True):
            if not failed and array.flags.writeable:
                ctypes.memmove(array.ctypes.data, address, array.nbytes)
            library.shim_free(address, array.nbytes)
        if failed:
            raise HarnessError(error.value.decode())


def to_numpy(array: mx.array) -> np.ndarray:
    """A contiguous copy of an mlx array; bfloat16 as uint16."""
    return np.ascontiguousarray(np.array(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array))


def from_numpy(array: np.ndarray, dtype: Any) -> mx.array:
    """An mlx array of the bits of a numpy array."""
    made = mx.array(array)
    return made.view(dtype) if dtype == mx.bfloat16 else made


def _traced(kernel: Any, inputs: list[mx.array], call: dict[str, Any]) -> list[Any]:
    seen: list[Any] = []

    def note(event: dict[str, Any]) -> None:
        if event.get("type") == "primitive" and event["name"] == "CustomKernel":
            seen.append(event["arguments"])

    mx.export_function(note, lambda *arrays: kernel(inputs=list(arrays), **call), *inputs)
    return list(seen[-1])


def _input_buffers(array: mx.array, wanted: Sequence[bool]) -> list[np.ndarray]:
    data = to_numpy(array).reshape(-1)
    shape = np.array(array.shape, np.int32)
    strides = np.array([int(np.prod(array.shape[d + 1 :])) for d in range(array.ndim)], np.int64)
    extra = (shape, strides, np.array(array.ndim, np.int32))
    buffers = [data, *(part for part, want in zip(extra, wanted, strict=True) if want)]
    for buffer in buffers:
        buffer.flags.writeable = False
    return buffers


class HarnessKernel:
    """What the patched `mx.fast.metal_kernel` returns: called like the real one, runs on the machine."""

    def __init__(self, machine: Machine, real: Any) -> None:
        self.machine = machine
        self.real = real

    def __call__(
        self, *, inputs: list[mx.array], output_shapes: Any, output_dtypes: Any, **call: Any
    ) -> list[mx.array]:
        call |= {"output_shapes": output_shapes, "output_dtypes": output_dtypes}
        name, text, *rest = _traced(self.real, inputs, call)
        grid, group, wanted = rest[:3], rest[3:6], rest[6]
        buffers = [b for array, want in zip(inputs, wanted, strict=True) for b in _input_buffers(array, want)]
        outputs = [self._poisoned(shape, dtype) for shape, dtype in zip(output_shapes, output_dtypes, strict=True)]
        self.machine.run(self.machine.program(name, text), [*buffers, *outputs], grid, group)
        return [from_numpy(o, dtype) for o, dtype in zip(outputs, output_dtypes, strict=True)]

    @staticmethod
    def _poisoned(shape: Any, dtype: Any) -> np.ndarray:
        made = to_numpy(mx.zeros(shape, dtype))
        made.reshape(-1).view(np.uint8)[:] = POISON
        return made


@contextmanager
def metal_on(machine: Machine) -> Iterator[Machine]:
    """Within this context `mx.fast.metal_kernel` makes kernels that run on `machine`."""
    real = mx.fast.metal_kernel
    mx.fast.metal_kernel = lambda **made: HarnessKernel(machine, real(**made))
    try:
        yield machine
    finally:
        mx.fast.metal_kernel = real
