"""The GPU as a Backend: numpy in and out, the bytes of the reference, refused when it is not here or not right."""

from pathlib import Path
from typing import Any

import ml_dtypes
import mlx.core as mx
import numpy as np
import pytest

from kernels import MLX_FORMATS, Context, factor_of, recipe, reference
from kernels.gpu import backend as module
from kernels.gpu.backend import GpuBackend, gpu_backend
from kernels.gpu.library import Library
from kernels.gpu.selftest import adversarial_context


@pytest.fixture
def gpu(metal: Library, monkeypatch: pytest.MonkeyPatch) -> GpuBackend:
    monkeypatch.setattr(module, "_title", lambda name: name)
    made = GpuBackend("metal")
    made._library = metal
    return made


def weight(dtype: Any = ml_dtypes.bfloat16) -> np.ndarray:
    return (np.random.default_rng(0).standard_t(3, (6, 256)) * 0.02).astype(dtype)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", MLX_FORMATS)
def test_encode_decode_and_fidelity_are_the_references(gpu: GpuBackend, name: str) -> None:
    g = 1e-4 if MLX_FORMATS[name].tensor_scale else 1.0
    right = reference.ReferenceBackend().encode(weight(), recipe(name), g, blocks=True)
    got = gpu.encode(weight(), recipe(name), g, blocks=True)
    assert got.quantized.codes.tobytes() == right.quantized.codes.tobytes()
    assert got.quantized.scales.tobytes() == right.quantized.scales.tobytes()
    assert gpu.decode(got.quantized).tobytes() == reference.decode(right.quantized).tobytes()
    assert got.fidelity is not None
    assert right.fidelity is not None
    assert got.fidelity.rel_err == pytest.approx(right.fidelity.rel_err, rel=1e-4)
    assert got.fidelity.vanished == right.fidelity.vanished
    np.testing.assert_array_equal(got.fidelity.scale_counts, right.fidelity.scale_counts)
    assert got.fidelity.block_error is not None
    assert gpu.encode(weight(), recipe(name), g, measure=False).fidelity is None


def test_a_method_is_done_by_the_kernels_and_proved_once(gpu: GpuBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    proved: list[str] = []
    monkeypatch.setattr(module, "self_test", lambda _, method: proved.append(method))
    chosen, context = recipe("nvfp4-3t", method="hessian"), Context(adversarial_context().importance)
    right = reference.encode(weight(), chosen, 1e-4, context)
    for _ in range(2):
        got = gpu.encode(weight(), chosen, 1e-4, context=context).quantized
        assert got.codes.tobytes() == right.codes.tobytes()
        assert got.scales.tobytes() == right.scales.tobytes()
    assert proved == ["importance"]


def test_errors_are_fed_forward_to_the_bytes_of_the_reference(gpu: GpuBackend) -> None:
    known, chosen = (
        Context(factor=factor_of(np.eye(256, dtype=np.float32) + 0.5)),
        recipe("nvfp4-3t", method="feedback"),
    )
    right = reference.encode(weight(), chosen, 1e-4, known)
    got = gpu.encode(weight(), chosen, 1e-4, context=known).quantized
    assert got.codes.tobytes() == right.codes.tobytes()
    assert got.scales.tobytes() == right.scales.tobytes()


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float32])
def test_the_census_counts_what_the_reference_counts(gpu: GpuBackend, dtype: Any) -> None:
    w = weight(dtype)
    w[0, :3] = [np.inf, np.nan, 0]
    got, right = gpu.census(w), reference.census(w)
    np.testing.assert_array_equal(got.counts, right.counts)
    assert got.max_abs == right.max_abs
    assert got.sum2 == pytest.approx(right.sum2, rel=1e-5)
    assert got.sum4 == pytest.approx(right.sum4, rel=1e-4)


def test_weights_whose_squares_leave_float32_are_measured_by_the_reference(gpu: GpuBackend) -> None:
    for size in (1e25, 1e-25):
        w = weight(np.float32) * np.float32(size)
        got = gpu.encode(w, recipe("nvfp4-3t"), float(reference.tensor_scale(float(np.abs(w).max()))))
        assert got.fidelity is not None
        assert 0.05 < got.fidelity.rel_err < 0.2


def test_a_tensor_scale_that_is_no_normal_number_is_refused(gpu: GpuBackend) -> None:
    for g in (0.0, -1.0, float("inf"), float("nan"), 1e-40):
        with pytest.raises(ValueError, match="positive normal number"):
            gpu.encode(weight(), recipe("nvfp4-3t"), g)


def test_three_tiers_switched_off_are_refused(gpu: GpuBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_METAL_NVFP4_3TIER", "0")
    with pytest.raises(ValueError, match="switched off"):
        gpu.encode(weight(), recipe("nvfp4-3t"), 1e-4)


def test_a_backend_that_is_wrong_says_so(gpu: GpuBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "self_test", lambda *_: "nvfp4-2t of bfloat16: 3 wrong codes")
    with pytest.raises(ValueError, match="does not agree with the reference, got nvfp4-2t of bfloat16: 3 wrong codes"):
        gpu.encode(weight(), recipe("nvfp4-2t"))


def test_a_backend_that_is_not_here_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="choose metal or cuda"):
        gpu_backend("vulkan")
    if not mx.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device here"):
            gpu_backend("cuda")
    monkeypatch.setattr(module.metadata, "version", lambda _: "0.32.0")
    with pytest.raises(ValueError, match="lane bug"):
        gpu_backend("metal")


def test_the_text_is_part_of_the_package() -> None:
    texts = Path(module.__file__).parent / "text"
    assert {path.suffix for path in texts.iterdir()} == {".h"}
