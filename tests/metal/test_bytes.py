"""Every kernel gives the bytes of the reference, whatever the order of lanes and with subnormals flushed or not."""

from dataclasses import replace
from typing import Any

import ml_dtypes
import mlx.core as mx
import numpy as np
import pytest

from kernels import MLX_FORMATS, Context, recipe, reference
from kernels.formats import Recipe
from kernels.gpu import coding, source
from kernels.gpu.library import Library
from kernels.gpu.selftest import adversarial, adversarial_context, self_test
from kernels.gpu.transfer import mlx_dtype, to_mlx, to_numpy
from kernels.methods import METHODS
from kernels.search import GUIDED_WINDOW, WINDOW
from tests.metal.delicate import delicate, near_candidates

DTYPES = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float32": np.float32}
MULTIPLIERS = (1e-5, 1.2e-38, 3e-30, 0.75, 2.0**40, 3e38)


def bits(array: np.ndarray) -> np.ndarray:
    whole = np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").copy()
    if array.dtype.kind != "u":
        whole[np.isnan(array)] = np.iinfo(whole.dtype).max
    return whole


def assert_same(
    metal: Library,
    weight: np.ndarray,
    chosen: Recipe,
    g: float = 1.0,
    context: Context | None = None,
    ways: tuple[bool, ...] = (False, True),
) -> None:
    with np.errstate(all="ignore"):
        right = reference.encode(weight, chosen, g, context)
        decoded = reference.decode(right).astype(weight.dtype)
    multiplier = to_mlx(np.array([g], np.float32))
    for measure in ways:
        coded = coding.encode(metal, to_mlx(weight), chosen, multiplier, context=context, measure=measure, blocks=True)
        np.testing.assert_array_equal(to_numpy(coded.codes).view(np.uint8), right.codes)
        np.testing.assert_array_equal(bits(to_numpy(coded.scales)), bits(right.scales))
        if right.biases is not None:
            np.testing.assert_array_equal(bits(to_numpy(coded.biases)), bits(right.biases))
    back = coding.decode(metal, coded, chosen.format, mlx_dtype(weight.dtype), multiplier)
    np.testing.assert_array_equal(bits(to_numpy(back)), bits(decoded))


def any_bits(dtype: Any, shape: tuple[int, int], seed: int) -> np.ndarray:
    """Finite weights with every exponent equally likely, subnormals too."""
    rng = np.random.default_rng(seed)
    item = np.dtype(dtype).itemsize
    raw = rng.integers(0, 2 ** (8 * item), shape, dtype=f"u{item}").view(dtype)
    return np.where(np.isfinite(raw.astype(np.float32)), raw, np.ones((), dtype)).astype(dtype)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MLX_FORMATS)
def test_adversarial_weights(metal: Library, name: str, dtype: str) -> None:
    g = float(np.float32(0.02 / 2688)) if MLX_FORMATS[name].tensor_scale else 1.0
    assert_same(metal, adversarial(DTYPES[dtype]), recipe(name), g)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MLX_FORMATS)
def test_weights_of_every_size(metal: Library, name: str, dtype: str) -> None:
    weight = any_bits(DTYPES[dtype], (3, 1152 if MLX_FORMATS[name].block == 128 else 1088), 5)
    if MLX_FORMATS[name].affine:  # beyond, the range of a group overflows float32 and its scale is not a number
        weight = np.clip(weight.astype(np.float32), -1e4, 1e4).astype(weight.dtype)
    assert_same(metal, weight, recipe(name), 1e-5 if MLX_FORMATS[name].tensor_scale else 1.0)


CHOICES = [
    *(("bfloat16", name, method) for name in ("nvfp4-2t", "nvfp4-3t") for method in METHODS if method != "max"),
    *((dtype, "nvfp4-3t", method) for dtype in ("float16", "float32") for method in ("search", "hessian")),
    *(("bfloat16", name, "search") for name in MLX_FORMATS if recipe(name, method="search").method == "search"),
    *(("float32", name, "search") for name in ("mxfp4", "int4-g32", "int8-g64")),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("dtype", "name", "method"), sorted(set(CHOICES)))
def test_methods_choose_the_scales_of_the_reference(metal: Library, dtype: str, name: str, method: str) -> None:
    kind, chosen, context = DTYPES[dtype], recipe(name, method=method), adversarial_context()
    rng = np.random.default_rng(14)
    heavy = (rng.standard_t(3, (9, 256)) * 0.02 * np.exp2(rng.integers(-9, 4, (9, 1)))).astype(kind)
    g = float(np.float32(0.02 / 2688)) if MLX_FORMATS[name].tensor_scale else 1.0
    for weight in (heavy, adversarial(kind), near_candidates(kind, 256, g)):
        assert_same(metal, weight, chosen, g, context, (False,))


@pytest.mark.parametrize(
    ("method", "g"), [("search", 1e-5), ("importance", 1e-5), ("hessian", 3e-30), ("four-six", 2.0**40)]
)
def test_methods_whatever_the_multiplier(metal: Library, method: str, g: float) -> None:
    weight = any_bits(ml_dtypes.bfloat16, (2, 256), 15)
    near = (np.random.default_rng(16).standard_normal((2, 256)) * 448 * g).astype(weight.dtype)
    chosen = recipe("nvfp4-3t", method=method)
    for ragged in (np.concatenate([weight, near]), near[:1, :16], near[:, :48]):
        context = adversarial_context(ragged.shape[1])
        assert_same(metal, ragged, chosen, float(np.float32(g)), context, (False, True) if g == 1e-5 else (False,))


@pytest.mark.parametrize("shape", [(300, 48), (3, 4800)])
def test_what_is_known_belongs_to_the_column(
    metal: Library, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
) -> None:
    """One threadgroup for all: its threads go on in their columns, or change them where there are more columns."""
    monkeypatch.setitem(source.KERNELS, "nvfp4_encode", replace(source.KERNELS["nvfp4_encode"], groups=1))
    weight = (np.random.default_rng(19).standard_normal(shape) * 0.02).astype(ml_dtypes.bfloat16)
    chosen, context = recipe("nvfp4-3t", method="importance"), adversarial_context(shape[1])
    assert_same(metal, weight, chosen, float(reference.tensor_scale(0.1)), context, (False,))


def test_what_is_known_of_other_columns_is_refused(metal: Library) -> None:
    weight, chosen = mx.zeros((2, 32)), recipe("nvfp4-2t", method="hessian")
    with pytest.raises(ValueError, match="moments must be int16"):
        coding.encode(metal, weight, chosen, context=Context(moments=adversarial_context(48).moments))
    with pytest.raises(ValueError, match="importance must be uint16"):
        coding.encode(metal, weight, chosen, context=Context(importance=adversarial_context(16).importance))


@pytest.mark.parametrize("g", MULTIPLIERS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_multipliers_of_every_size(metal: Library, dtype: str, g: float) -> None:
    g = float(np.float32(g))
    weight = any_bits(DTYPES[dtype], (2, 1088), 6)
    near = (np.random.default_rng(7).standard_normal((2, 1088)) * 448 * g).clip(-3e38, 3e38).astype(weight.dtype)
    assert_same(metal, np.concatenate([weight, near]), recipe("nvfp4-3t"), g)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_delicate_weights(metal: Library, dtype: str) -> None:
    for weight, g in delicate(DTYPES[dtype]):
        assert_same(metal, weight, recipe("nvfp4-3t"), g)


@pytest.mark.parametrize("shape", [(1, 16), (3, 48), (2, 16 * 513), (65, 16)])
@pytest.mark.parametrize("name", ["nvfp4-2t", "nvfp4-3t"])
def test_ragged_shapes(metal: Library, name: str, shape: tuple[int, int]) -> None:
    weight = (np.random.default_rng(8).standard_t(3, shape) * 0.02).astype(ml_dtypes.bfloat16)
    assert_same(metal, weight, recipe(name), float(reference.tensor_scale(0.3)) if name == "nvfp4-3t" else 1.0)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name, row in MLX_FORMATS.items() if row.affine])
def test_integer_groups_of_either_sign_in_ragged_shapes(metal: Library, name: str, dtype: str) -> None:
    rng, block = np.random.default_rng(13), MLX_FORMATS[name].block
    for groups in (1, 3, 33):
        for center in (-9, 0, 9):
            weight = (rng.standard_normal((groups, 3 * block)) + center) * np.exp2(rng.integers(-9, 9, (groups, 1)))
            assert_same(metal, weight.astype(DTYPES[dtype]), recipe(name))


@pytest.mark.parametrize("name", ["nvfp4-2t", "nvfp4-3t"])
def test_every_finite_bfloat16(metal: Library, name: str) -> None:
    weight = np.arange(65536, dtype=np.uint16).view(ml_dtypes.bfloat16)
    weight = np.where(np.isfinite(weight.astype(np.float32)), weight, np.ones((), weight.dtype)).astype(weight.dtype)
    assert_same(metal, weight.reshape(64, 1024), recipe(name), 1e-5 if name == "nvfp4-3t" else 1.0)


def test_floor_exponents(metal: Library) -> None:
    for name in ("mxfp4", "mxfp8"):
        assert_same(metal, adversarial(ml_dtypes.bfloat16), recipe(name, exponent="floor"))
    half_steps = np.where(np.arange(256) % 32 == 3, np.float32(2 - 2**-23), np.float32(2**-4)).reshape(1, 256)
    for weight in (adversarial(np.float32), near_candidates(np.float32, 256), half_steps):
        assert_same(metal, weight, recipe("mxfp4", exponent="floor", method="search"), ways=(False,))


def test_no_least_scale_with_three_tiers(metal: Library) -> None:
    chosen = Recipe(MLX_FORMATS["nvfp4-3t"])
    assert_same(metal, adversarial(ml_dtypes.bfloat16), chosen, float(np.float32(1e-4)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_codes_and_scales_decode(metal: Library, dtype: str) -> None:
    rng = np.random.default_rng(9)
    for name, row in MLX_FORMATS.items():
        codes = rng.integers(0, 256, (2, 256 * row.bits // 8), dtype=np.uint8)
        if row.affine:
            continue
        scales = rng.integers(0, 256, (2, 256 // row.block), dtype=np.uint8)
        for g in (1e-5, 1.2e-38) if row.tensor_scale else (1.0,):
            scale = np.array(g, np.float32) if row.tensor_scale else None
            stored = reference.Quantized(row, codes, scales, None, scale)
            with np.errstate(all="ignore"):
                want = reference.decode(stored).astype(DTYPES[dtype])
            coded = coding.Coded(to_mlx(codes.view(np.uint32)), to_mlx(scales))
            got = coding.decode(metal, coded, row, mlx_dtype(DTYPES[dtype]), to_mlx(np.array([g], np.float32)))
            np.testing.assert_array_equal(bits(to_numpy(got)), bits(want), err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_round_trip_absorbs_both_scales(metal: Library, dtype: str) -> None:
    x = (np.random.default_rng(10).standard_normal((3, 64)) * 3).astype(DTYPES[dtype])
    gx, gw = np.float32(0.004), np.float32(0.03)
    coded = reference.encode(x, recipe("nvfp4-3t"), float(gx))
    factor = (reference.e4m3_decode(coded.scales) * gx) * gw
    codes = reference.e2m1_decode(reference.unpack(coded.codes)).reshape(3, -1, 16)
    want = (codes * factor[..., None]).reshape(3, 64).astype(np.float32)
    got = coding.round_trip(metal, to_mlx(x), recipe("nvfp4-3t"), to_mlx(np.array([gx])), to_mlx(np.array([gw])))
    np.testing.assert_array_equal(bits(to_numpy(got)), bits(want.astype(x.dtype)))
    plain = coding.round_trip(metal, to_mlx(x), recipe("nvfp4-3t"), to_mlx(np.array([gx])))
    np.testing.assert_array_equal(bits(to_numpy(plain)), bits(reference.decode(coded).astype(x.dtype)))


@pytest.mark.parametrize("name", MLX_FORMATS)
def test_sums_are_those_of_the_reference(metal: Library, name: str) -> None:
    weight = (np.random.default_rng(11).standard_t(3, (3, 16 * 640)) * 0.02).astype(ml_dtypes.bfloat16)
    weight[:, ::7] = 0
    peak = float(np.abs(weight.astype(np.float32)).max())
    g = float(reference.tensor_scale(peak)) if MLX_FORMATS[name].tensor_scale else 1.0
    right = reference.encode(weight, recipe(name), g)
    want = reference.fidelity(weight, right, blocks=True)
    coded = coding.encode(
        metal, to_mlx(weight), recipe(name), to_mlx(np.array([g], np.float32)), measure=True, blocks=True
    )
    sums = to_numpy(coded.sums).astype(np.float64)
    wide = weight.astype(np.float64)
    np.testing.assert_allclose(sums[..., 0].sum(axis=1), want.row_squares, rtol=1e-5)
    np.testing.assert_allclose(sums[..., 1].sum(axis=1), want.row_error, rtol=1e-4)
    np.testing.assert_allclose(sums[..., 2].max(), want.max_error, rtol=1e-5)
    assert sums[..., 3].sum() == want.vanished
    np.testing.assert_allclose(sums[..., 4].sum(axis=1), (wide**4).sum(axis=1), rtol=1e-4)
    np.testing.assert_array_equal(sums[..., 5].max(axis=1), np.abs(wide).max(axis=1))
    np.testing.assert_allclose(to_numpy(coded.block_error), want.block_error, rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("name", ["nvfp4-2t", "nvfp4-3t"])
@pytest.mark.parametrize("method", ["importance", "hessian"])
def test_the_self_test_meets_scales_that_only_known_inputs_try(method: str, name: str) -> None:
    g = 0.02 / 2688 if name == "nvfp4-3t" else 1.0
    with np.errstate(over="ignore"):
        chosen, usual = (
            reference.encode(adversarial(ml_dtypes.bfloat16), recipe(name, method=m), g, adversarial_context()).scales
            for m in (method, "max")
        )
    steps = chosen.astype(int) - usual.astype(int)
    assert (steps < min(WINDOW)).sum() >= 3
    assert steps.min() >= min(GUIDED_WINDOW)


@pytest.mark.parametrize("method", ["max", "importance"])
def test_self_test_passes(metal: Library, method: str) -> None:
    assert self_test(metal, method) is None


def test_a_weight_that_does_not_fit_is_refused(metal: Library) -> None:
    with pytest.raises(TypeError, match="float32, float16 or bfloat16"):
        coding.encode(metal, mx.zeros((2, 16), mx.int32), recipe("nvfp4-2t"))
    with pytest.raises(ValueError, match="2 dimensions"):
        coding.encode(metal, mx.zeros((16,)), recipe("nvfp4-2t"))
    with pytest.raises(ValueError, match="multiple of the block"):
        coding.encode(metal, mx.zeros((2, 24)), recipe("nvfp4-2t"))


def test_the_error_alone_has_the_same_bytes_and_sums(metal: Library) -> None:
    weight, g = adversarial(ml_dtypes.bfloat16), to_mlx(np.array([0.02 / 2688], np.float32))
    whole = coding.encode(metal, to_mlx(weight), recipe("nvfp4-3t"), g, measure=True)
    alone = coding.encode(metal, to_mlx(weight), recipe("nvfp4-3t"), g, measure=True, outliers=False)
    np.testing.assert_array_equal(to_numpy(alone.codes), to_numpy(whole.codes))
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(to_numpy(alone.sums)[..., :2], to_numpy(whole.sums)[..., :2], rtol=1e-5)
    assert not to_numpy(alone.sums)[..., 2:].any()
