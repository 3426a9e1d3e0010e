"""The operations give the same on the kernels as on the processor, where stock MLX can do the product that follows."""

import mlx.core as mx
import numpy as np
import pytest

from kernels import ops
from kernels.gpu.library import Library
from kernels.gpu.transfer import to_numpy


@pytest.fixture
def on_kernels(metal: Library, monkeypatch: pytest.MonkeyPatch) -> Library:
    monkeypatch.setattr(ops, "_kernels", lambda *_method: metal)
    return metal


def weight(rows: int = 8, seed: int = 1) -> mx.array:
    return mx.array((np.random.default_rng(seed).standard_t(4, (rows, 128)) * 0.02).astype(np.float32))


@pytest.mark.parametrize("name", ["nvfp4-2t", "nvfp4-3t", "mxfp8", "int4-g32"])
def test_quantize_and_dequantize_are_the_processors(metal: Library, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    here = ops.quantize(weight(), name)
    back = to_numpy(ops.dequantize(here, mx.float32))
    monkeypatch.setattr(ops, "_kernels", lambda *_method: metal)
    there = ops.quantize(weight(), name)
    assert there.quantized().codes.tobytes() == here.quantized().codes.tobytes()
    assert there.quantized().scales.tobytes() == here.quantized().scales.tobytes()
    np.testing.assert_array_equal(to_numpy(ops.dequantize(there, mx.float32)), back)


def test_stacks_keep_a_scale_per_expert(on_kernels: Library) -> None:  # noqa: ARG001
    stack = mx.stack([weight(), weight(seed=2) * 50])
    packed = ops.quantize(stack)
    back = ops.dequantize(packed, mx.float32)
    assert back.shape == stack.shape
    for index in range(2):
        alone = ops.dequantize(packed.expert(index), mx.float32)
        np.testing.assert_array_equal(to_numpy(back[index]), to_numpy(alone))


def test_w4a4_runs_on_stored_codes(metal: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    packed, x = ops.quantize(weight()), weight(3, 5)
    here = to_numpy(ops.qqmm(x, packed, ops.tensor_scale(x)))
    monkeypatch.setattr(ops, "_kernels", lambda *_method: metal)
    np.testing.assert_allclose(to_numpy(ops.qqmm(x, packed, ops.tensor_scale(x))), here, rtol=1e-4, atol=1e-6)
