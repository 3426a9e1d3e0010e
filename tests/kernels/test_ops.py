"""Operations with a tensor scale: right on the processor, safe in float16, clear about what is wrong."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core", reason="mlx is not installed: the operations are not tested")

from kernels import MLX_FORMATS, factor_of, ops, recipe, reference  # noqa: E402
from kernels.gpu.library import Library  # noqa: E402
from kernels.gpu.selftest import adversarial_context  # noqa: E402
from kernels.gpu.transfer import to_mlx, to_numpy  # noqa: E402
from kernels.methods import METHODS  # noqa: E402

NAMES = list(MLX_FORMATS)


def weight(rows: int = 24, width: int = 256, scale: float = 0.02, seed: int = 1) -> "mx.array":
    return mx.array((np.random.default_rng(seed).standard_t(4, (rows, width)) * scale).astype(np.float32))


def exact(x: "mx.array", matrix: np.ndarray) -> np.ndarray:
    return to_numpy(x.astype(mx.float32)).astype(np.float64) @ matrix.astype(np.float64).T


def error(got: "mx.array", want: np.ndarray) -> float:
    missed = to_numpy(got.astype(mx.float32)).astype(np.float64) - want
    return float(np.linalg.norm(missed) / np.linalg.norm(want))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_quantize_and_dequantize_give_the_bytes_of_the_reference(name: str, dtype: str) -> None:
    w = weight().astype(getattr(mx, dtype))
    packed = ops.quantize(w, name)
    g = 1.0 if packed.tensor_scale is None else packed.tensor_scale.item()
    right = reference.encode(to_numpy(w), recipe(name), g)
    np.testing.assert_array_equal(packed.quantized().codes, right.codes)
    assert packed.quantized().scales.tobytes() == right.scales.tobytes()
    np.testing.assert_array_equal(to_numpy(ops.dequantize(packed, mx.float32)), reference.decode(right))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["nvfp4-2t", "nvfp4-3t", "mxfp4", "int4-g64"])
def test_quantize_by_a_method_gives_the_bytes_of_the_reference(name: str, method: str) -> None:
    context = replace(adversarial_context(256), factor=factor_of(np.eye(256, dtype=np.float32) + 0.5))
    packed, chosen = ops.quantize(weight(), name, method=method, context=context), recipe(name, method=method)
    largest = float(mx.max(mx.abs(weight())).item())
    g = float(reference.tensor_scale(largest, chosen.divisor)) if chosen.format.tensor_scale else 1.0
    right = reference.encode(to_numpy(weight()), chosen, g, context)
    assert packed.quantized().codes.tobytes() == right.codes.tobytes()
    assert packed.quantized().scales.tobytes() == right.scales.tobytes()


def test_what_is_known_of_other_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="importance must be uint16"):
        ops.quantize(weight(), method="importance", context=adversarial_context(128))


def test_the_tensor_scale_is_that_of_the_reference() -> None:
    w = weight()
    assert ops.tensor_scale(w).item() == float(reference.tensor_scale(float(mx.max(mx.abs(w)).item())))
    assert ops.tensor_scale(mx.zeros((2, 16))).item() == 1.0
    assert ops.tensor_scale(mx.full((2, 16), 1e-38)).item() == float(np.finfo(np.float32).tiny)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_quantized_matmul_is_the_product_with_the_decoded_weight(name: str, rows: int) -> None:
    packed, x = ops.quantize(weight(), name), weight(rows, 256, 1.0, 2)
    matrix = reference.decode(packed.quantized())
    assert error(ops.quantized_matmul(x, packed), exact(x, matrix)) < 1e-5
    back = weight(rows, 24, 1.0, 3)
    assert error(ops.quantized_matmul(back, packed.quantized(), transpose=False), exact(back, matrix.T)) < 1e-5


def test_rows_that_stock_mlx_can_not_take_at_once_on_cuda_go_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    packed, x = ops.quantize(weight(), "int8-g128"), weight(20, 256, 1.0, 2).reshape(4, 5, 256)
    want = exact(x, reference.decode(packed.quantized()))
    stock, taken = ops.stock_mlx.quantized_matmul, []
    monkeypatch.setattr(ops.stock_mlx, "quantized_matmul", lambda x, *rest: taken.append(x.shape[0]) or stock(x, *rest))
    monkeypatch.setattr(ops, "_kernels", lambda: Library("cuda"))
    assert error(ops.quantized_matmul(x, packed), want) < 1e-5
    assert taken == [7, 7, 6]


PATHS = {
    ("nvfp4-3t", "bfloat16", True): {1: "own", 7: "own", 8: "stock", 64: "stock", 65: "dense"},
    ("nvfp4-3t", "float16", True): {1: "own", 8: "own", 9: "stock", 65: "stock"},
    ("nvfp4-3t", "bfloat16", False): {1: "stock", 64: "stock", 65: "dense"},
    ("nvfp4-2t", "bfloat16", True): {1: "stock", 2: "own", 7: "own", 8: "stock", 64: "stock", 65: "dense"},
    ("nvfp4-2t", "float32", True): {1: "stock", 2: "own", 8: "stock", 65: "stock"},
    ("int4-g64", "bfloat16", True): {1: "stock", 65: "stock"},
}


@pytest.mark.parametrize(("name", "dtype", "transpose"), PATHS)
def test_a_product_on_cuda_takes_the_path_whose_calls_cost_least(
    monkeypatch: pytest.MonkeyPatch, name: str, dtype: str, transpose: bool
) -> None:
    packed, taken = ops.quantize(weight(), name), []
    for path in ("own", "stock", "dense"):
        monkeypatch.setattr(ops, f"_{path}_product", lambda *_, path=path: taken.append(path))
    monkeypatch.setattr(ops, "_kernels", lambda: Library("cuda"))
    wanted = PATHS[name, dtype, transpose]
    for rows in wanted:
        ops.quantized_matmul(mx.zeros((rows, 256 if transpose else 24), getattr(mx, dtype)), packed, transpose)
    assert taken == list(wanted.values())


def test_one_row_meets_our_kernel_where_a_weight_without_tensor_scale_is_large() -> None:
    large = replace(ops.quantize(weight(), "nvfp4-2t"), codes=mx.zeros((1 << 14, 1 << 10), mx.uint32))
    assert ops._own_is_cheapest(1, large, mx.bfloat16)


def test_the_kept_index_serves_other_threads_and_traces() -> None:
    ops._first_matrix.cache_clear()
    assert mx.compile(lambda x: x + ops._first_matrix())(mx.ones((1,))).item() == 1
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: (ops._first_matrix() + 2).item()).result() == 2


@pytest.mark.parametrize("g", [1e-5, 1e-7])
def test_float16_neither_overflows_nor_goes_subnormal(g: float) -> None:
    packed = ops.quantize(weight(64, 4096) * mx.array(g / 1e-5), "nvfp4-3t", mx.array([g]))
    x = (weight(4, 4096, 1.0, 5) * 8).astype(mx.float16)
    want = exact(x, reference.decode(packed.quantized()))
    got = ops.quantized_matmul(x, packed)
    assert got.dtype == mx.float16
    assert error(got, want) < (1e-3 if g == 1e-5 else 2e-2)  # 1e-7: the output itself is near float16's smallest
    plain = replace(packed, format=MLX_FORMATS["nvfp4-2t"], tensor_scale=None)
    after = (x @ ops.dequantize(plain, mx.float16).T) * mx.array(g, mx.float16)
    assert not np.isfinite(error(after, want))
    before = x * mx.array(g, mx.float16)
    assert error(before, to_numpy(x.astype(mx.float32)).astype(np.float64) * g) > 1e-3  # lost before any product


def test_gather_qmm_takes_one_scale_per_expert() -> None:
    stack = mx.stack([weight(16, 64, scale, seed) for seed, scale in enumerate((0.02, 3.0, 1e-4))])
    packed = ops.quantize(stack, "nvfp4-3t")
    assert packed.tensor_scale.shape == (3,)
    x, chosen = weight(5, 64, 1.0, 9).reshape(5, 1, 1, 64), mx.array([[0, 2], [1, 0], [2, 2], [1, 1], [0, 1]])
    got = to_numpy(ops.gather_qmm(x, packed, chosen))
    for row in range(5):
        for slot in range(2):
            matrix = reference.decode(packed.expert(int(chosen[row, slot].item())).quantized())
            np.testing.assert_allclose(got[row, slot], exact(x[row, 0], matrix), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_round_trip_in_plain_operations_equals_the_reference(dtype: str) -> None:
    from kernels.gpu.selftest import adversarial
    from tests.metal.test_bytes import DTYPES

    x = adversarial(DTYPES[dtype])[[0, 1, 2, 4, 5, 9, 10, 11, 13, 14, 15]]
    for g, name in ((None, "nvfp4-2t"), (np.float32(0.02 / 2688), "nvfp4-3t")):
        right = reference.encode(x, recipe(name), 1.0 if g is None else float(g))
        with np.errstate(over="ignore"):
            want = reference.decode(right).astype(x.dtype)
        got = ops.quantize_dequantize(to_mlx(x), None if g is None else mx.array([float(g)]))
        np.testing.assert_array_equal(to_numpy(got).astype(np.float32), want.astype(np.float32))


@pytest.mark.parametrize("rows", [1, 5, 40])
def test_qqmm_costs_fp4_noise_and_nothing_more(rows: int) -> None:
    w, x = weight(64, 512), weight(rows, 512, 1.0, 4)
    packed = ops.quantize(w)
    g = ops.tensor_scale(x)
    back = to_numpy(ops.quantize_dequantize(x, g)).astype(np.float64)
    want = back @ reference.decode(packed.quantized()).astype(np.float64).T
    assert error(ops.qqmm(x, packed, g), want) < 1e-5
    assert 0.08 < error(ops.qqmm(x, packed, g), exact(x, to_numpy(w))) < 0.2


def test_three_tiers_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ops.quantize(weight(), "nvfp4-2t").quantized()
    three = ops.quantize(weight())
    monkeypatch.setenv("MLX_METAL_NVFP4_3TIER", "0")
    with pytest.raises(ValueError, match="switched off, got MLX_METAL_NVFP4_3TIER=0"):
        ops.quantize(weight())
    with pytest.raises(ValueError, match="switched off"):
        ops.quantized_matmul(weight(), three)
    after = ops.quantize(weight(), "nvfp4-2t").quantized()
    assert after.codes.tobytes() == before.codes.tobytes()
    assert after.scales.tobytes() == before.scales.tobytes()


def test_errors_say_what_was_wrong() -> None:
    x, packed = weight(2), ops.quantize(weight())
    g = packed.tensor_scale
    wrong = {
        "tensor scale must be float32": replace(packed, tensor_scale=g.astype(mx.float16)),
        "must have 1 elements": replace(packed, tensor_scale=mx.ones((2,))),
        "needs a tensor scale, got None": replace(packed, tensor_scale=None),
        "has no tensor scale": replace(packed, format=MLX_FORMATS["nvfp4-2t"]),
        "codes must be uint32": replace(packed, codes=packed.codes.astype(mx.int32)),
        "scales must be uint8": replace(packed, scales=packed.scales.astype(mx.float32)),
        "scales must have shape": replace(packed, scales=packed.scales[:, :3]),
    }
    for message, broken in wrong.items():
        with pytest.raises((TypeError, ValueError), match=message):
            ops.quantized_matmul(x, broken)
    with pytest.raises(ValueError, match="x must end in 256"):
        ops.quantized_matmul(x[:, :16], packed)
    with pytest.raises(TypeError, match="x must be float32"):
        ops.quantized_matmul(x.astype(mx.int32), packed)
    with pytest.raises(ValueError, match="unknown format"):
        ops.quantize(weight(), "fp4")
    with pytest.raises(ValueError, match="must be one NVFP4 matrix"):
        ops.qqmm(x, ops.quantize(weight(), "mxfp4"))
    with pytest.raises(ValueError, match="a stack of matrices"):
        ops.gather_qmm(x, packed, mx.array([0]))
