"""What the GPU kernels ask of the machine, and how the lane bug is recognised in a checkpoint."""

import numpy as np
import pytest

from kernels import recipe, reference
from kernels.gpu.requirements import check_mlx, check_three_tiers, has_lane_bug, three_tiers_on
from kernels.validation import decode_weight


@pytest.mark.parametrize("version", ["0.31.2", "0.32.0", "0.9"])
def test_an_mlx_with_the_lane_bug_is_refused_by_name(version: str) -> None:
    with pytest.raises(ValueError, match=f"lane bug in NVFP4, got {version}"):
        check_mlx(version)


@pytest.mark.parametrize("version", ["0.32.1", "0.32.4", "0.33.0.dev20261101", "1.0"])
def test_a_sound_mlx_is_accepted(version: str) -> None:
    check_mlx(version)


def test_three_tiers_are_on_unless_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert three_tiers_on({})
    assert three_tiers_on({"MLX_METAL_NVFP4_3TIER": "1"})
    assert not three_tiers_on({"MLX_METAL_NVFP4_3TIER": "0"})
    monkeypatch.setenv("MLX_METAL_NVFP4_3TIER", "0")
    with pytest.raises(ValueError, match=r"\[encode\] three tiers are switched off"):
        check_three_tiers("encode")


@pytest.mark.parametrize("width", [4096, 4096 + 16])
def test_scales_of_pairs_give_the_lane_bug_away(width: int) -> None:
    weight = decode_weight(32, width)
    scales = reference.encode(weight, recipe("nvfp4-2t")).scales
    assert not has_lane_bug(scales)
    flat = scales.reshape(-1).copy()
    pairs = flat[: len(flat) // 2 * 2].reshape(-1, 2)
    pairs[:] = pairs.max(axis=1, keepdims=True)
    assert has_lane_bug(flat.reshape(scales.shape))


def test_constant_and_tiny_weights_are_not_suspected() -> None:
    assert not has_lane_bug(np.full((64, 64), 0x38, np.uint8))
    assert not has_lane_bug(np.zeros((1, 4), np.uint8))
