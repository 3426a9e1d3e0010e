"""Integers as the world stores them, packed by the plainest code there is, and what they decode to."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
AWQ_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)


def stream(codes: Array, bits: int) -> Array:
    """Codes [..., K] one behind the other in int32 words [..., ceil(K * bits / 32)], from the lowest bit on."""
    each = (codes[..., None] >> np.arange(bits)) & 1
    flat = each.reshape(*codes.shape[:-1], -1).astype(np.uint8)
    padded = np.zeros((*flat.shape[:-1], -(-flat.shape[-1] // 32) * 32), np.uint8)
    padded[..., : flat.shape[-1]] = flat
    return np.packbits(padded, axis=-1, bitorder="little").view(np.int32)


def in_words(codes: Array, bits: int) -> Array:
    """Codes [..., K] as many to an int32 word as it holds whole."""
    each = 32 // bits
    padded = np.zeros((*codes.shape[:-1], -(-codes.shape[-1] // each) * each), np.uint32)
    padded[..., : codes.shape[-1]] = codes
    parts = padded.reshape(*codes.shape[:-1], -1, each) << (bits * np.arange(each)).astype(np.uint32)
    return np.bitwise_or.reduce(parts, axis=-1).view(np.int32)


def down(codes: Array, bits: int, pack: Any = stream) -> Array:
    """Codes [..., rows, columns] packed along their rows."""
    return np.ascontiguousarray(np.swapaxes(pack(np.ascontiguousarray(np.swapaxes(codes, -1, -2)), bits), -1, -2))


def reordered(codes: Array) -> Array:
    """Codes [rows, columns] of four bits in int32 words [rows, columns / 8], in AWQ's order."""
    parts = codes.reshape(len(codes), -1, 8).astype(np.uint32) << (4 * np.array(AWQ_PLACES, np.uint32))
    return np.bitwise_or.reduce(parts, axis=-1).view(np.int32)


def shuffled(codes: Array, bits: int) -> Array:
    """Codes [rows, columns] as a stream along the columns, in AWQ's order of each eight."""
    places = np.argsort(AWQ_PLACES)
    return stream(codes.reshape(len(codes), -1, 8)[..., places].reshape(codes.shape), bits)


def decoded(codes: Array, zeros: Array, scales: Array, groups: Array) -> NDArray[np.float32]:
    """(code - zero) x scale of [..., rows, columns] with zeros and scales [..., rows, groups]."""
    whole = codes.astype(np.int64) - zeros.astype(np.int64)[..., groups]
    found: NDArray[np.float32] = whole.astype(np.float32) * scales.astype(np.float32)[..., groups]
    return found


class Drawn:
    """Random codes, zeros and scales of [..., rows, columns] in groups, of which some columns may be in any."""

    def __init__(self, shape: tuple[int, ...], bits: int, group: int, dtype: Any = np.float16, *, mixed: bool = False):
        chance = np.random.default_rng([*shape, bits, group])
        *rows, columns = shape
        count = -(-columns // group)
        self.bits, self.shape, self.count = bits, shape, count
        self.codes = chance.integers(0, 1 << bits, shape)
        self.zeros = chance.integers(0, 1 << bits, (*rows, count))
        self.scales = (chance.random((*rows, count)) * 0.02 + 0.001).astype(dtype)
        self.groups = np.arange(columns) // group
        if mixed:
            self.groups = chance.permutation(self.groups)

    def weights(self, zeros: Array | None = None) -> NDArray[np.float32]:
        """What they decode to, symmetric unless there are zeros."""
        middle = np.full(self.zeros.shape, 1 << (self.bits - 1))
        return decoded(self.codes, middle if zeros is None else zeros, self.scales, self.groups)

    def gptq(self, path: str, less: int) -> Mapping[str, Array]:
        """As GPTQ stores them, zeros less `less`; for zeros above it."""
        return {
            f"{path}.qweight": down(self.codes.T, self.bits),
            f"{path}.qzeros": stream(self.zeros.T - less, self.bits),
            f"{path}.scales": np.ascontiguousarray(self.scales.T),
        }
