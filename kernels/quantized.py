"""Quantized: the stored parts of a weight, and the one meaning of each."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.formats import Format
from kernels.streams import unpack_stream


@dataclass(frozen=True, slots=True)
class Quantized:
    """A weight of shape [..., K] in a `Format`.

    codes: uint8 [..., K * bits / 8], a dense little-endian stream, see `kernels.streams`: for 4 bits the even element
        is in the low nibble. An E2M1 code is sign << 3 | index into 0, 0.5, 1, 1.5, 2, 3, 4, 6.
    scales: block floats: uint8 [..., K / block], raw E4M3FN or E8M0 bytes; affine: the weight's dtype; those of tiles:
        float32, every block has that of its tile, and 1 where the tensor scale is all there is.
    biases: affine only, like scales; otherwise None.
    tensor_scale: the **multiplier** g, float32, of shape () or [E] for a stack [E, ..., K]; None in formats without.
        weight = code x block scale x g, and g = max|W| / 2688. Files use three conventions; layouts convert.
    """

    format: Format
    codes: NDArray[np.uint8]
    scales: NDArray[Any]
    biases: NDArray[Any] | None = None
    tensor_scale: NDArray[np.float32] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape [..., K] of the weight that this stands for."""
        return (*self.codes.shape[:-1], self.codes.shape[-1] * 8 // self.format.bits)

    def in_nibbles_or_bytes(self) -> "Quantized":
        """The same weights with codes of 4 or 8 bits, which kernels decode: other codes in a byte each."""
        row = self.format
        if row.bits in (4, 8):
            return self
        codes = unpack_stream(self.codes, row.bits, self.shape[-1])
        return replace(self, format=replace(row, bits=8), codes=codes)

    @property
    def nbytes(self) -> int:
        """Stored size in bytes."""
        parts = (self.codes, self.scales, self.biases, self.tensor_scale)
        return sum(part.nbytes for part in parts if part is not None)
