"""Packed: a quantized weight as mlx arrays, and what must be true of it before an operation runs."""

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from kernels.formats import Format
from kernels.gpu.library import KINDS
from kernels.gpu.requirements import check_three_tiers
from kernels.gpu.transfer import to_mlx, to_numpy
from kernels.quantized import Quantized


@dataclass(frozen=True, slots=True)
class Packed:
    """A weight [..., K] in a `Format`, as mlx arrays: `Quantized` for a GPU.

    codes: uint32 [..., K * bits / 32]. scales: uint8 [..., K / block], affine: the weight's dtype. biases: affine only.
    tensor_scale: the multiplier g, float32 of size 1, or [E] for a stack [E, ..., K]; None in formats without.
    """

    format: Format
    codes: mx.array
    scales: mx.array
    biases: mx.array | None = None
    tensor_scale: mx.array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape [..., K] of the weight that this stands for."""
        return (*self.codes.shape[:-1], self.codes.shape[-1] * 32 // self.format.bits)

    @classmethod
    def of(cls, quantized: Quantized) -> "Packed":
        """The same bytes as mlx arrays."""
        parts = [
            None if p is None else to_mlx(np.ascontiguousarray(p)) for p in (quantized.biases, quantized.tensor_scale)
        ]
        codes = to_mlx(np.ascontiguousarray(quantized.codes).view(np.uint32))
        return cls(quantized.format, codes, to_mlx(np.ascontiguousarray(quantized.scales)), *parts)

    def quantized(self) -> Quantized:
        """The same bytes as numpy arrays."""
        biases, g = (None if p is None else to_numpy(p) for p in (self.biases, self.tensor_scale))
        if g is not None and g.size == 1 and self.codes.ndim == 2:
            g = g.reshape(())
        return Quantized(self.format, to_numpy(self.codes).view(np.uint8), to_numpy(self.scales), biases, g)

    def expert(self, index: int) -> "Packed":
        """Matrix `index` of a stack [E, O, K]."""
        biases = None if self.biases is None else self.biases[index]
        g = None if self.tensor_scale is None else self.tensor_scale[index : index + 1]
        return Packed(self.format, self.codes[index], self.scales[index], biases, g)

    def stacked(self) -> "Packed":
        """A matrix [O, K] as a stack [1, O, K]."""
        biases = None if self.biases is None else self.biases[None]
        g = None if self.tensor_scale is None else self.tensor_scale.reshape(1)
        return Packed(self.format, self.codes[None], self.scales[None], biases, g)


def check_tensor_scale(op: str, g: mx.array | None, row: Format, size: int = 1) -> None:
    """Raise TypeError or ValueError unless `g` is what `row` needs: float32 of `size` elements, or nothing."""
    if not row.tensor_scale:
        if g is not None:
            raise ValueError(f"[{op}] {row.name} has no tensor scale, got one of shape {g.shape}")
        return
    check_three_tiers(op)
    if g is None:
        raise ValueError(f"[{op}] {row.name} needs a tensor scale, got None")
    if g.dtype != mx.float32:
        raise TypeError(f"[{op}] the tensor scale must be float32, got {g.dtype}")
    if g.size != size:
        raise ValueError(f"[{op}] the tensor scale must have {size} elements, got shape {g.shape}")


def check_packed(op: str, weight: Packed, experts: int | None = None) -> None:
    """Raise TypeError or ValueError unless the parts of `weight` fit each other; `experts`: one scale for each."""
    row, codes = weight.format, weight.codes
    if codes.dtype != mx.uint32:
        raise TypeError(f"[{op}] codes must be uint32, got {codes.dtype}")
    if row.affine != (weight.biases is not None):
        raise ValueError(f"[{op}] {row.name} needs {'biases' if row.affine else 'no biases'}, got the contrary")
    if not row.affine and weight.scales.dtype != mx.uint8:
        raise TypeError(f"[{op}] scales must be uint8, got {weight.scales.dtype}")
    want = (*codes.shape[:-1], weight.shape[-1] // row.block)
    if tuple(weight.scales.shape) != want:
        raise ValueError(f"[{op}] scales must have shape {want} for codes of {codes.shape}, got {weight.scales.shape}")
    check_tensor_scale(op, weight.tensor_scale, row, experts or 1)


def check_input(op: str, x: mx.array, width: int) -> None:
    """Raise TypeError or ValueError unless `x` is float32, float16 or bfloat16 and ends in `width`."""
    if x.dtype not in KINDS:
        raise TypeError(f"[{op}] x must be float32, float16 or bfloat16, got {x.dtype}")
    if x.ndim < 1 or x.shape[-1] != width:
        raise ValueError(f"[{op}] x must end in {width}, got shape {x.shape}")
