"""What the GPU kernels need of the machine: a version of mlx without the lane bug, and three tiers switched on."""

import os
import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

FIRST_SOUND_MLX = (0, 32, 1)
SWITCH = "MLX_METAL_NVFP4_3TIER"

_FEWEST_PAIRS = 32
_SHARE_OF_BUG, _SHARE_OF_CHANCE = 0.98, 0.9


def check_mlx(version: str) -> None:
    """Raise ValueError for an mlx that has the lane bug: its Metal quantize takes one scale for 32 weights."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    if numbers < FIRST_SOUND_MLX:
        raise ValueError(f"[mlx] needs 0.32.1 or later, older ones have the lane bug in NVFP4, got {version}")


def three_tiers_on(environment: Mapping[str, str] | None = None) -> bool:
    """False when the environment switches the three-tier path off with MLX_METAL_NVFP4_3TIER=0."""
    return (os.environ if environment is None else environment).get(SWITCH, "1") != "0"


def check_three_tiers(op: str) -> None:
    """Raise ValueError when three tiers are asked for and switched off."""
    if not three_tiers_on():
        raise ValueError(f"[{op}] three tiers are switched off, got {SWITCH}=0: unset it, or use nvfp4-2t")


def has_lane_bug(scales: NDArray[np.uint8]) -> bool:
    """Whether NVFP4 block scales [rows, K / 16] come from a quantizer with the lane bug.

    The bug takes the maximum over 32 weights, so both blocks of each pair carry the same scale, all over the
    tensor, while blocks that are neighbours across pairs differ as usual.
    """
    rows = np.ascontiguousarray(scales).reshape(-1, scales.shape[-1])
    if rows.shape[-1] % 2 or rows.shape[-1] < 4:
        rows = rows.reshape(1, -1)[:, : rows.size // 2 * 2]
    pairs = rows.reshape(len(rows), -1, 2)
    if pairs[:, 1:].size < 2 * _FEWEST_PAIRS:
        return False
    within = float(np.mean(pairs[:, 1:, 0] == pairs[:, 1:, 1]))  # the first 32 threads of a launch are not hit
    across = float(np.mean(pairs[:, :-1, 1] == pairs[:, 1:, 0]))
    return within > _SHARE_OF_BUG and across < _SHARE_OF_CHANCE
