"""Every instruction-set variant that runs here, and the numpy fallback, against the reference."""

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hard_weights import DTYPES, RECIPES, difference, same_bits, tensor_scales, wanted, weights
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import FORMATS, STORED_FORMATS, Fidelity, Quantized, reference
from kernels.cpu import library
from kernels.cpu.backend import CpuBackend, encode_parallel
from kernels.cpu.vectorized import NumpyBackend

VARIANTS = list(library.variants())
NAMES = [*VARIANTS, "numpy"]
HARD = ("ties", "small ties", "e4m3 ties", "odd blocks")


def backend_called(name: str) -> CpuBackend | NumpyBackend:
    return NumpyBackend() if name == "numpy" else CpuBackend(name)


def assert_measured(got: Fidelity, expected: Fidelity) -> None:
    """Counts and the largest error must be equal; sums agree to 1e-6, as those of a strip of weights are float32."""
    np.testing.assert_allclose(got.row_squares, expected.row_squares, rtol=1e-6, atol=0)
    np.testing.assert_allclose(got.row_error, expected.row_error, rtol=1e-6, atol=0)
    np.testing.assert_allclose(got.max_error, expected.max_error, rtol=1e-15, atol=0)
    assert got.vanished == expected.vanished
    np.testing.assert_array_equal(got.scale_counts, expected.scale_counts)
    assert got.block_error is not None
    assert expected.block_error is not None
    np.testing.assert_allclose(got.block_error, expected.block_error, rtol=1e-6, atol=1e-44)


@pytest.mark.parametrize("magnitude", [1e-37, 1e-25, 2.0**-39, 2.0**-37, 2.0**59, 2.0**61])
@pytest.mark.parametrize("recipe_name", RECIPES)
@pytest.mark.parametrize("dtype", ["bf16", "f32"])
def test_squares_that_leave_the_range_of_float32_are_measured_all_the_same(
    dtype: str, recipe_name: str, magnitude: float
) -> None:
    rng = np.random.default_rng(6)
    weight = rng.normal(size=(3, 1152))
    weight[:, 600:900] *= magnitude
    weight[1, ::5] = 0
    weight[2, 1::64] *= 1e-21
    weight = weight.astype(DTYPES[dtype])
    for g in (magnitude / 3000, 4e-4) if RECIPES[recipe_name].format.tensor_scale else (1.0,):
        expected = reference.encode(weight, RECIPES[recipe_name], max(g, 1e-36))
        measured = reference.fidelity(weight, expected, blocks=True)
        for name in NAMES:
            got = backend_called(name).encode(weight, RECIPES[recipe_name], max(g, 1e-36), blocks=True)
            assert got.fidelity is not None
            assert_measured(got.fidelity, measured)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("recipe_name", RECIPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_are_those_of_the_reference(dtype: str, recipe_name: str) -> None:
    for g in tensor_scales(RECIPES[recipe_name]):
        for weight_name, weight in weights(dtype).items():
            expected = wanted(dtype, weight_name, recipe_name, g)
            for name in NAMES:
                got = backend_called(name).encode(weight, RECIPES[recipe_name], g, measure=False).quantized
                reason = difference(got, expected)
                assert reason is None, f"{name}, {weight_name}, g = {g}: {reason}"


@pytest.mark.parametrize("recipe_name", RECIPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_measuring_changes_no_byte_and_agrees_with_the_reference(dtype: str, recipe_name: str) -> None:
    for g in tensor_scales(RECIPES[recipe_name]):
        for weight_name in HARD:
            weight = weights(dtype)[weight_name]
            expected = wanted(dtype, weight_name, recipe_name, g)
            measured = reference.fidelity(weight, expected, blocks=True)
            for name in NAMES:
                got = backend_called(name).encode(weight, RECIPES[recipe_name], g, blocks=True)
                assert difference(got.quantized, expected) is None
                assert got.fidelity is not None
                assert_measured(got.fidelity, measured)


@pytest.mark.parametrize("row", [*FORMATS.values(), STORED_FORMATS["int5-g32"]], ids=lambda row: row.name)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_every_code_under_every_scale_decodes_as_in_the_reference(row: Any, name: str, dtype: Any) -> None:
    codes = np.resize(np.arange(256, dtype=np.uint8), (256, 4 * row.block * row.bits // 8 * (256 // row.block)))
    shape = (256, codes.shape[1] * 8 // row.bits // row.block)
    scales: Any = np.repeat(np.arange(256, dtype=np.uint8)[:, None], shape[1], axis=1)
    biases = None
    if row.affine:
        scales = np.linspace(-0.3, 0.4, shape[0] * shape[1]).reshape(shape).astype(dtype)
        biases = np.linspace(2, -2, shape[0] * shape[1]).reshape(shape).astype(dtype)
    if row.scale == "float32":
        scales = np.geomspace(1e-40, 1e36, shape[0] * shape[1]).reshape(shape).astype(np.float32)
    for g in (0.00731, 1e-36) if row.tensor_scale else (1.0,):
        scale = np.array(g, np.float32) if row.tensor_scale else None
        quantized = Quantized(row, codes, scales, biases, scale)
        with np.errstate(all="ignore"):
            expected = reference.decode(quantized).astype(dtype)
        assert same_bits(backend_called(name).decode(quantized, dtype), expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_census_counts_every_magnitude_and_what_is_not_finite(name: str, dtype: str) -> None:
    kind = DTYPES[dtype]
    bits = np.arange(65536, dtype=np.uint16)
    everything = np.resize(bits.view(ml_dtypes.bfloat16 if dtype == "f32" else kind), 65536 * 3 + 11).astype(kind)
    if dtype == "f32":
        everything[:2] = np.array([0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)  # NaN in the low bits alone
    for weight in (everything, weights(dtype)["ties"], weights(dtype)["odd blocks"][:, :17]):
        got, expected = backend_called(name).census(weight), reference.census(weight)
        np.testing.assert_array_equal(got.counts, expected.counts)
        assert got.max_abs == expected.max_abs
        assert got.sum2 == pytest.approx(expected.sum2, rel=1e-12)
        assert got.sum4 == pytest.approx(expected.sum4, rel=1e-12)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_max_abs_is_that_of_the_census_and_shows_what_is_not_finite(name: str, dtype: str) -> None:
    backend = CpuBackend(name)
    for weight in weights(dtype).values():
        for part in (weight, weight[:1, :7], weight[:3, :300]):
            assert backend.max_abs(part) == reference.census(part).max_abs
    assert backend.max_abs(np.array([[1, -np.inf, 3]], DTYPES[dtype])) == np.inf
    assert np.isnan(backend.max_abs(np.array([[1, np.nan, -np.inf]], DTYPES[dtype])))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 7),
    blocks=st.integers(1, 40),
    recipe_name=st.sampled_from(list(RECIPES)),
    dtype=st.sampled_from(list(DTYPES)),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape(rows: int, blocks: int, recipe_name: str, dtype: str, seed: int) -> None:
    chosen = RECIPES[recipe_name]
    weight = np.random.default_rng(seed).standard_t(3, (rows, blocks * chosen.format.block)) * 0.02
    weight = weight.astype(DTYPES[dtype])
    g = 3.1e-5 if chosen.format.tensor_scale else 1.0
    expected = reference.encode(weight, chosen, g)
    measured = reference.fidelity(weight, expected, blocks=True)
    for name in NAMES:
        got = backend_called(name).encode(weight, chosen, g, blocks=True)
        plain = backend_called(name).encode(weight, chosen, g, measure=False)
        assert plain.fidelity is None
        assert difference(got.quantized, expected) is None
        assert difference(plain.quantized, expected) is None
        assert got.fidelity is not None
        assert_measured(got.fidelity, measured)
        decoded = backend_called(name).decode(got.quantized, DTYPES[dtype])
        assert same_bits(decoded, reference.decode(expected).astype(DTYPES[dtype]))


@pytest.mark.parametrize("recipe_name", ["nvfp4-3t", "int4-g64"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("threads", [1, 3, 8])
def test_number_of_threads_changes_nothing(recipe_name: str, name: str, threads: int) -> None:
    weight = np.random.default_rng(2).normal(size=(13, 1600)).astype(ml_dtypes.bfloat16)
    chosen = RECIPES[recipe_name]
    backend = backend_called(name)
    whole = backend.encode(weight, chosen, 0.002, blocks=True)
    split = encode_parallel(backend, weight, chosen, 0.002, threads=threads, blocks=True)
    assert difference(split.quantized, whole.quantized) is None
    assert split.fidelity is not None
    assert whole.fidelity is not None
    for part in ("row_squares", "row_error", "block_error", "scale_counts"):
        np.testing.assert_array_equal(getattr(split.fidelity, part), getattr(whole.fidelity, part))
    assert split.fidelity.max_error == whole.fidelity.max_error
    assert split.fidelity.vanished == whole.fidelity.vanished


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("recipe_name", RECIPES)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_every_variant_gives_the_same_sums_to_the_last_bit(recipe_name: str, dtype: str) -> None:
    random = np.random.default_rng(3).standard_t(4, (5, 2944)) * 2.0 ** np.arange(0, -100, -20)[:, None]
    for weight in (random.astype(DTYPES[dtype]), *weights(dtype).values()):
        measured = []
        for name in VARIANTS:
            whole = CpuBackend(name).encode(weight, RECIPES[recipe_name], 0.002, blocks=True).fidelity
            without_blocks = CpuBackend(name).encode(weight, RECIPES[recipe_name], 0.002).fidelity
            assert whole is not None
            assert without_blocks is not None
            measured += [whole, replace(without_blocks, block_error=whole.block_error)]
        for other in measured[1:]:
            for part in ("row_squares", "row_error", "block_error"):
                np.testing.assert_array_equal(getattr(other, part), getattr(measured[0], part))
            assert (other.max_error, other.vanished) == (measured[0].max_error, measured[0].vanished)


@pytest.mark.parametrize("name", NAMES)
def test_a_stack_decodes_with_one_tensor_scale_per_matrix(name: str) -> None:
    weight = np.random.default_rng(4).normal(size=(3, 6, 96)).astype(np.float32)
    parts = [
        reference.encode(matrix, RECIPES["nvfp4-3t"], g) for matrix, g in zip(weight, (1e-3, 2e-3, 5e-4), strict=True)
    ]
    stack = Quantized(
        FORMATS["nvfp4-3t"],
        np.stack([part.codes for part in parts]),
        np.stack([part.scales for part in parts]),
        tensor_scale=np.array([1e-3, 2e-3, 5e-4], np.float32),
    )
    assert same_bits(backend_called(name).decode(stack), reference.decode(stack))


@pytest.mark.parametrize("name", NAMES)
def test_refuses_what_it_can_not_encode(name: str) -> None:
    backend = backend_called(name)
    chosen = RECIPES["nvfp4-3t"]
    with pytest.raises(TypeError, match="float64"):
        backend.encode(np.zeros((4, 32)), chosen)
    with pytest.raises(ValueError, match="multiple"):
        backend.encode(np.zeros((4, 33), np.float32), chosen)
    with pytest.raises(ValueError, match="no elements"):
        backend.encode(np.zeros((0, 32), np.float32), chosen)
    with pytest.raises(ValueError, match="matrix"):
        backend.encode(np.zeros((2, 2, 32), np.float32), chosen)


def test_a_variant_that_does_not_run_here_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="riscv"):
        CpuBackend("riscv")
