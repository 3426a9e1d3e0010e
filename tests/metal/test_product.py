"""The product with few rows of activations: right for both tiers, any shape and dtype, and the checks can fail."""

import mlx.core as mx
import numpy as np
import pytest

from kernels import ops, reference
from kernels.gpu import coding, source
from kernels.gpu.library import Library
from kernels.gpu.transfer import to_numpy
from tests.metal.compiling import Compiler, HarnessError
from tests.metal.harness import Machine, metal_on

ROUNDING = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}


def weight(rows: int, width: int, size: float = 0.02) -> mx.array:
    return mx.array((np.random.default_rng(rows).standard_t(4, (rows, width)) * size).astype(np.float32))


def missed(lib: Library, name: str, dtype: str, rows: int, outputs: int, width: int, size: float = 0.02) -> float:
    packed = ops.quantize(weight(outputs, width, size), name)
    x = weight(rows, width, 3.0).astype(getattr(mx, dtype))
    coded = coding.Coded(packed.codes, packed.scales)
    got = to_numpy(coding.product(lib, x, coded, packed.format, packed.tensor_scale).astype(mx.float32))
    exact = to_numpy(x.astype(mx.float32)).astype(np.float64)
    want = exact @ reference.decode(packed.quantized()).astype(np.float64).T
    assert got.shape == want.shape
    return float(np.abs(got - want).max() / np.abs(want).max())


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("name", ["nvfp4-2t", "nvfp4-3t"])
@pytest.mark.parametrize(("rows", "outputs", "width"), [(1, 16, 1024), (3, 5, 80), (8, 33, 528), (1, 1, 16)])
def test_products_are_those_of_the_decoded_weight(
    metal: Library, name: str, dtype: str, rows: int, outputs: int, width: int
) -> None:
    assert missed(metal, name, dtype, rows, outputs, width) < ROUNDING[dtype]


@pytest.mark.parametrize("size", [1e-7, 1e-3, 1e3])
def test_a_tensor_scale_of_any_size_neither_overflows_nor_vanishes(metal: Library, size: float) -> None:
    assert missed(metal, "nvfp4-3t", "float32", 2, 9, 256, size) < ROUNDING["float32"]


@pytest.mark.parametrize(("rows", "transpose"), [(1, True), (7, True), (65, True), (65, False)])
def test_few_rows_and_many_are_served_without_stock_products(
    metal: Library, monkeypatch: pytest.MonkeyPatch, rows: int, transpose: bool
) -> None:
    packed = ops.quantize(weight(32, 48))
    x = weight(rows, 48 if transpose else 32, 1.0).astype(mx.bfloat16)
    want = to_numpy(ops.quantized_matmul(x, packed, transpose).astype(mx.float32))
    monkeypatch.setattr(ops, "_kernels", lambda: metal)
    monkeypatch.setattr(ops, "_own_is_faster", lambda _lib: True)
    got = to_numpy(ops.quantized_matmul(x, packed, transpose).astype(mx.float32))
    assert np.abs(got - want).max() < 2 * ROUNDING["bfloat16"] * np.abs(want).max()


MISTAKES = {
    "scale of the next block": ("nvfp4_product", "uint(scales[i])", "uint(scales[i ^ 1])"),
    "halves of a block swapped": ("nvfp4_product", "low[k] = both.x;", "low[k] = both.y;"),
    "tensor scale forgotten": ("nvfp4_product", "THREE ? g[0] : 1.0f", "1.0f"),
    "only the first row": ("nvfp4_product", "size_t(m) * size_t(per_row) + size_t(at)", "size_t(at)"),
    "last rows past the end": ("nvfp4_product", "outputs - 1u", "0x7fffffffu"),
    "last blocks past the end": ("nvfp4_product", "per_row - 1u", "0x7fffffffu"),
    "last blocks twice": ("nvfp4_product", "if (at >= per_row) break;", ""),
    "a bit of the scale set": ("numbers", "((byte & 0x7fu) << 7)", "((byte & 0x7fu) << 7 | 0x400u)"),
    "written past the end": ("nvfp4_product", " && output < outputs", ""),
    "sum of one lane": ("nvfp4_product", "simd_sum(sum[k]) * multiplier", "sum[k] * multiplier"),
    "nibbles swapped": ("nvfp4", "out.w[k + 4] = as_type<uint>(p.high)", "out.w[k + 4] = as_type<uint>(p.low)"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_seen(mistake: str, compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    if mx.metal.is_available():
        pytest.skip("mistakes are planted on the harness, not on a device")
    real, (name, old, new) = source._text, MISTAKES[mistake]
    assert old in real(name)
    monkeypatch.setattr(source, "_text", lambda asked: real(asked).replace(old, new) if asked == name else real(asked))
    with metal_on(Machine(compiler, order=5)):
        try:
            error = missed(Library("metal"), "nvfp4-3t", "float32", 3, 33, 512)
        except HarnessError:
            return
    assert not error < ROUNDING["float32"]
