"""What decoders of ggml's blocks have in common: numbers and fields of bits in rows of bytes."""

import numpy as np
from numpy.typing import NDArray

Blocks = NDArray[np.uint8]
Values = NDArray[np.float32]


def f16(raw: Blocks) -> Values:
    """[n, 2] -> [n, 1]."""
    wide: Values = np.ascontiguousarray(raw).view(np.float16).astype(np.float32)
    return wide


def fields(raw: Blocks, bits: int, width: int) -> Blocks:
    """Fields of `bits` in bytes, as ggml packs them: the lowest of `width` bytes, the next of those, the next bytes."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    found: Blocks = raw.reshape(len(raw), -1, 1, width) >> shifts & np.uint8((1 << bits) - 1)
    return found.reshape(len(raw), -1)


def bits_of(raw: Blocks) -> Blocks:
    """[n, bytes] -> [n, 8 x bytes], the lowest bit of each byte first."""
    return np.unpackbits(raw, axis=-1, bitorder="little")


def scaled(scales: Values, codes: NDArray[np.uint8] | NDArray[np.int8] | Values) -> Values:
    """[n, groups] x [n, values] -> [n, groups, values of a group]."""
    grouped = codes.reshape(*scales.shape, -1).astype(np.float32)
    grouped *= scales[..., None]
    return grouped
