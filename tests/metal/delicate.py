"""Weights made for one rounding each, with the multiplier that goes with them: three tiers of NVFP4."""

from typing import Any

import numpy as np

THRESHOLDS = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5], np.float32)
ALL_ONES = float(np.float32(2 - 2**-23) * np.float32(2**-10))

Weights = list[tuple[np.ndarray, float]]


def delicate(dtype: Any) -> Weights:
    """Each a weight [rows, K] with its multiplier."""
    made = [_scale_ties(), _all_ones(), _near_flush(), _below_least_scale()]
    if np.dtype(dtype) == np.float32:
        made += [_subnormal_factor(), *(_code_ties(g) for g in (1e-5, 3e-7, 0.0123, 1.7))]
    return [(weight.astype(dtype), g) for weight, g in made]


def near_candidates(dtype: Any, width: int) -> np.ndarray:
    """A weight [6, width] for the choice of scales: costs that tie, costs near each other, peaks of all sizes."""
    rng = np.random.default_rng(3)
    halves = rng.choice(np.array([0, 2, 3, 4, 6, -2, -3, -4, -6], np.float32), (2, width))
    halves[:, ::16] = 6
    peaks = np.repeat(np.linspace(1, 2, width // 16, endpoint=False, dtype=np.float32), 16)
    normal = rng.standard_normal((3, width)).astype(np.float32)
    normal[0, 3::16] = np.float32(2 - 2**-23) * np.exp2(rng.integers(0, 3, width // 16))
    normal[1] = np.where(np.arange(width) % 16 == 5, peaks * 4, normal[1])
    ramp = np.resize(np.linspace(-1, 1, 33, dtype=np.float32), width) * peaks
    return (np.concatenate([halves, normal, ramp[None]]) * np.float32(2.0**-8)).astype(dtype)


def _blocks(peaks: np.ndarray, rest: np.ndarray | float) -> np.ndarray:
    blocks = np.full((len(peaks), 16), rest, np.float32)
    blocks[:, 3] = peaks
    return blocks.reshape(1, -1)


def _scale_ties() -> tuple[np.ndarray, float]:
    """Block scales half way between two of E4M3's."""
    peaks = np.array([6 * (1 + j / 16) * 2.0**e for e in (-5, 0, 3) for j in range(16)], np.float32)
    return _blocks(peaks * np.float32(2**-10), 2**-11), 2**-10


def _all_ones() -> tuple[np.ndarray, float]:
    """A divisor whose mantissa is all ones, and the one weight that the quick division gets wrong with it."""
    return _blocks(np.full(4, 6 * ALL_ONES, np.float32), 0.5 * 2**-10), ALL_ONES


def _near_flush() -> tuple[np.ndarray, float]:
    """Subnormal weights that have codes other than zero."""
    return (np.random.default_rng(1).standard_normal((4, 64)) * 2e-38).astype(np.float32), 1.2e-38


def _below_least_scale() -> tuple[np.ndarray, float]:
    """Ordinary weights so small beside the tensor's largest that the least scale holds."""
    return (np.random.default_rng(2).standard_normal((4, 64)) * 1e-7).astype(np.float32), 7e-6


def _subnormal_factor() -> tuple[np.ndarray, float]:
    """Scale times multiplier is subnormal and rounded; weights lie on ties of the rounded product."""
    unit, steps = np.float32(2.0**-149), 4 * 40_000
    g = np.float32((64 * steps + 20) * 2.0**-149)
    ties = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 6] * 2, np.float64) * steps
    return (ties.astype(np.float32) * unit).reshape(1, 16), float(g)


def _code_ties(g: float) -> tuple[np.ndarray, float]:
    """Weights at, and one and two last places beside, the ties of codes."""
    factor = np.float32(g)
    middle = (THRESHOLDS * factor).view(np.int32)
    near = np.stack([middle + d for d in (-2, -1, 0, 1, 2)]).astype(np.int32).view(np.float32).reshape(-1)
    blocks = np.zeros((3, 16), np.float32)
    blocks[:, :12] = np.append(near, np.float32(0)).reshape(3, 12)
    blocks[:, 15] = np.float32(6) * factor
    return blocks.reshape(1, -1), float(factor)
