"""Weights to try, made by seeded generators that reproduce the figures of the original work."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels import reference

Float32 = NDArray[np.float32]


def _normal(rows: int, width: int, seed: int) -> tuple[np.random.Generator, Float32]:
    rng = np.random.default_rng(seed)
    return rng, rng.standard_normal((rows, width), np.float32) * np.float32(0.02)


def small_weight(rows: int = 128, width: int = 256, seed: int = 0) -> Float32:
    """Normal numbers of deviation 0.02."""
    return _normal(rows, width, seed)[1]


def decode_weight(rows: int = 14336, width: int = 4096, seed: int = 0) -> Float32:
    """The same, one element in 200 times 20."""
    rng, weight = _normal(rows, width, seed)
    weight[rng.random((rows, width), np.float32) < 1 / 200] *= 20
    return weight


def outproj_weight(rows: int = 4096, width: int = 8192, seed: int = 0) -> Float32:
    """The same, 2 % of the columns times 15."""
    rng, weight = _normal(rows, width, seed)
    weight[:, rng.random(width) < 0.02] *= 15
    return weight


def extreme_weight(rows: int = 512, width: int = 2048, seed: int = 0) -> Float32:
    """The same, one element in 1,000 times 50."""
    rng, weight = _normal(rows, width, seed)
    weight[rng.random((rows, width), np.float32) < 1 / 1000] *= 50
    return weight


@dataclass(frozen=True, slots=True)
class Case:
    """A weight to try, with relative errors: of two tiers, three tiers, and two with the lane bug."""

    name: str
    make: Callable[..., Float32]
    shape: tuple[int, int]
    original: tuple[float, float, float | None]
    expected: tuple[float, float, float | None]


CASES = (
    Case("small", small_weight, (128, 256), (0.1029, 0.0942, None), (0.1029, 0.0942, None)),
    Case("decode", decode_weight, (14336, 4096), (0.0940, 0.0913, 0.1175), (0.0936, 0.0909, 0.1177)),
    Case("outproj", outproj_weight, (4096, 8192), (0.0946, 0.0930, 0.1235), (0.0943, 0.0931, 0.1228)),
    Case("extreme", extreme_weight, (512, 2048), (0.0767, 0.0738, 0.1021), (0.0769, 0.0739, None)),
)


def with_lane_bug(weight: Float32) -> Float32:
    """Weights decoded after two-tier NVFP4 with the lane bug: one maximum for 32 weights. For comparison only."""
    blocks = weight.reshape(len(weight), -1, 32)
    scale = reference.e4m3_decode(reference.e4m3_encode(np.abs(blocks).max(axis=-1) / np.float32(6)))[..., None]
    codes = reference.e2m1_encode(np.divide(blocks, scale, out=np.zeros_like(blocks), where=scale > 0))
    return (reference.e2m1_decode(codes) * scale).astype(np.float32).reshape(weight.shape)
