"""What must hold on every backend: bytes, errors and products, with the original figures beside them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from kernels import reference
from kernels.formats import FORMATS, recipe
from kernels.gpu.requirements import SWITCH
from kernels.quantized import Quantized
from kernels.validation.bench import Bench
from kernels.validation.report import Row, Table
from kernels.validation.weights import CASES, Case, Float32, extreme_weight, small_weight, with_lane_bug

TOLERANCE = 0.03
"""Share by which an error may differ from the one that the generator gives."""

_SAMPLE_ROWS = 512


def relative_error(got: NDArray[Any], want: NDArray[Any]) -> float:
    """||got - want|| / ||want||, in float64."""
    wide = want.astype(np.float64)
    return float(np.linalg.norm(got.astype(np.float64) - wide) / np.linalg.norm(wide))


@contextmanager
def _three_tiers(on: bool) -> Iterator[None]:
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "1" if on else "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before


def _same(a: Quantized, b: Quantized) -> bool:
    pairs = ((a.codes, b.codes), (a.scales, b.scales), (a.biases, b.biases))
    return all(
        (x is None and y is None) or (x is not None and y is not None and x.tobytes() == y.tobytes()) for x, y in pairs
    )


def pack_invariance(bench: Bench) -> Table:
    """Codes and scales of every format with one scale per block do not depend on the switch for three tiers."""
    rows: list[Row] = []
    weight = extreme_weight(128, 512)
    for name in (n for n, row in FORMATS.items() if not row.tensor_scale):
        packed = []
        for on in (True, False):
            with _three_tiers(on):
                packed.append(bench.encode(weight, name))
        rows.append((name, packed[0].nbytes, _same(*packed)))
    return Table("1. Packing does not depend on the switch", ("format", "bytes", "identical"), tuple(rows))


def matmul_invariance(bench: Bench) -> Table:
    """Products with formats without a tensor scale do not depend on the switch for three tiers."""
    rows: list[Row] = []
    weight, x = extreme_weight(128, 512), small_weight(4, 512, 1)
    for name in ("int4-g32", "int4-g64", "int8-g64", "mxfp4", "mxfp8", "nvfp4-2t"):
        packed, products = bench.encode(weight, name), []
        for on in (True, False):
            with _three_tiers(on):
                products.append(bench.product(x, packed)())
        rows.append((name, products[0].tobytes() == products[1].tobytes()))
    return Table("2. Products do not depend on the switch", ("format", "identical"), tuple(rows))


def smoke_test(bench: Bench) -> Table:
    """Every operation runs and gives finite numbers of the right shape."""
    weight, x = small_weight(64, 256), small_weight(3, 256, 1)
    rows: list[Row] = []
    for name in FORMATS:
        packed = bench.encode(weight, name)
        back, product = bench.backend.decode(packed), bench.product(x, packed)()
        sound = back.shape == weight.shape and product.shape == (3, 64)
        rows.append((name, bool(sound and np.isfinite(back).all() and np.isfinite(product).all())))
    rows += [(name, bool(np.isfinite(call()).all())) for name, call in _mlx_operations(weight, x)]
    return Table("3. Every operation runs", ("operation", "finite"), tuple(rows))


def _mlx_operations(weight: Float32, x: Float32) -> Iterator[tuple[str, Callable[[], NDArray[Any]]]]:
    try:
        from kernels import ops
        from kernels.gpu.transfer import to_mlx, to_numpy
    except ImportError:
        return
    a, w = to_mlx(x), to_mlx(weight)
    packed, stack = ops.quantize(w), ops.quantize(w.reshape(2, 32, 256))
    g, index = ops.tensor_scale(a), to_mlx(np.array([0, 1, 1], np.uint32))
    yield "ops.dequantize", lambda: to_numpy(ops.dequantize(packed)).astype(np.float32)
    yield "ops.quantize_dequantize", lambda: to_numpy(ops.quantize_dequantize(a, g))
    yield "ops.quantized_matmul", lambda: to_numpy(ops.quantized_matmul(a, packed))
    yield "ops.gather_qmm", lambda: to_numpy(ops.gather_qmm(a[:, None, :], stack, index))
    yield "ops.qqmm", lambda: to_numpy(ops.qqmm(a, packed, g))


def _near(value: float, expected: float | None, tolerance: float = TOLERANCE) -> bool | None:
    return None if expected is None else abs(value / expected - 1) <= tolerance


def shape_of(case: Case, quick: bool) -> tuple[int, int]:
    """[rows, width] of the weight of a case; `quick` takes a sixteenth of the rows, 128 at least."""
    return (max(128, case.shape[0] // 16) if quick else case.shape[0], case.shape[1])


def round_trip(bench: Bench, quick: bool) -> Table:
    """Errors of decode(encode(W)); the first rows are also compared with the reference, byte for byte."""
    rows: list[Row] = []
    for case in CASES:
        weight = case.make(*shape_of(case, quick))
        for tier, name in enumerate(("nvfp4-2t", "nvfp4-3t")):
            packed = bench.encode(weight, name)
            error = relative_error(bench.backend.decode(packed), weight)
            g = 1.0 if packed.tensor_scale is None else float(packed.tensor_scale)
            right = reference.encode(weight[:64], recipe(name), g)
            equal = right.codes.tobytes() == packed.codes[:64].tobytes()
            equal = equal and right.scales.tobytes() == packed.scales[:64].tobytes()
            near = _near(error, case.expected[tier]) is not False
            rows.append((case.name, "x".join(map(str, weight.shape)), name, case.original[tier], error, equal and near))
    columns = ("weight", "shape", "format", "original", "rel_err", "passed")
    return Table("4. Round trip, bytes as in the reference", columns, tuple(rows))


def matmul_quality(bench: Bench, quick: bool) -> Table:
    """Errors of the product against the dense weight; the lane bug, planted, on the first rows."""
    rows: list[Row] = []
    for case in CASES:
        weight = case.make(*shape_of(case, quick))
        x = np.random.default_rng(1).standard_normal((64, case.shape[1]), np.float32)
        x = x.astype(ml_dtypes.bfloat16).astype(np.float32)
        want = x @ weight.T
        errors = [relative_error(bench.product(x, bench.encode(weight, n))(), want) for n in ("nvfp4-2t", "nvfp4-3t")]
        part = weight[:_SAMPLE_ROWS]
        bug = relative_error(x @ with_lane_bug(part).T, want[:, :_SAMPLE_ROWS])
        close = all(_near(e, w) is not False for e, w in zip((*errors, bug), case.expected, strict=True))
        rows.append((case.name, *case.original, *errors, bug, close))
    columns = ("weight", "original 2t", "3t", "bug", "2 tiers", "3 tiers", "lane bug", "passed")
    return Table("5. Products against the dense weight", columns, tuple(rows))


def layers(bench: Bench) -> Table:
    """Errors of what a model does with a three-tier weight besides a plain product; empty where mlx is missing."""
    rows: list[Row] = []
    for name, original, call, want in _layer_calls(bench):
        error = relative_error(call(), want)
        rows.append((name, original, error, _near(error, original, 0.1)))
    return Table("6. Layers with a tensor scale", ("layer", "original", "rel_err", "passed"), tuple(rows))


def _layer_calls(bench: Bench) -> Iterator[tuple[str, float, Callable[[], NDArray[Any]], Float32]]:
    try:
        from kernels import ops
        from kernels.gpu.transfer import to_mlx, to_numpy
        from kernels.packed import Packed
    except ImportError:
        return
    table = small_weight(512, 256)
    lookup = np.array([3, 500, 0, 3, 77, 250])
    yield (
        "embedding lookup",
        0.097,
        lambda: bench.backend.decode(bench.encode(table, "nvfp4-3t"))[lookup],
        table[lookup],
    )
    weight = small_weight(4096, 4096, 1)
    packed = Packed.of(bench.encode(weight, "nvfp4-3t"))
    for rows in (1, 64):
        x = np.random.default_rng(100 + rows).standard_normal((rows, 4096), np.float32)
        a = to_mlx(x)
        call = lambda a=a: to_numpy(ops.qqmm(a, packed, ops.tensor_scale(a)))  # noqa: E731
        yield f"W4A4, {rows} row{'s' if rows > 1 else ''}", 0.136, call, x @ weight.T
