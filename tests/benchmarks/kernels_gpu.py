"""Speed of the GPU kernels in bytes read plus written: `python -m tests.benchmarks.kernels_gpu [rows] [--sweep]`.

Needs a GPU that mlx can use; prints one line per operation, as Markdown, and with --sweep the launch sizes too.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import mlx.core as mx

from kernels import ops, recipe, stock_mlx
from kernels.gpu import coding, source
from kernels.gpu.library import Library
from kernels.gpu.selftest import adversarial_context, self_test

LAUNCHES, REPEATS = 20, 7
MULTIPLIER = 0.12 / 2688


def seconds(operation: Callable[[], Any]) -> float:
    """Median time of one launch, from batches of launches with nothing between them."""
    mx.eval(operation())
    times = []
    for _ in range(REPEATS):
        mx.synchronize()
        start = time.perf_counter()
        mx.eval([operation() for _ in range(LAUNCHES)])
        mx.synchronize()
        times.append((time.perf_counter() - start) / LAUNCHES)
    return statistics.median(times)


def methods(lib: Library, weight: mx.array, name: str, g: mx.array | None = None) -> dict[str, Callable[[], Any]]:
    """Encoding by every method of a format beside max, and with the error summed."""
    context = adversarial_context(weight.shape[1])
    made: dict[str, Callable[[], Any]] = {}
    for method in coding.METHODS:
        chosen = recipe(name, method=method)
        if method == "max" or chosen.method != method:
            continue
        made[method] = lambda c=chosen: coding.encode(lib, weight, c, g, context=context).codes
        if chosen.format.scale == "e4m3":
            made[f"{method}, error and outliers"] = lambda c=chosen: (
                coding.encode(lib, weight, c, g, context=context, measure=True).codes
            )
    return made


def operations(lib: Library, weight: mx.array) -> dict[str, tuple[Callable[[], Any], float]]:
    """Every operation with the bytes it must move."""
    three, g = recipe("nvfp4-3t"), mx.array([MULTIPLIER])
    amax = mx.array([MULTIPLIER * 2688])
    coded = coding.encode(lib, weight, three, g)
    mx.eval(coded.codes, coded.scales)
    plain, packed = weight.size * 2, weight.size * 0.5625
    made: dict[str, tuple[Callable[[], Any], float]] = {
        "copy": (lambda: -weight, 2 * plain),
        "nvfp4-3t encode": (lambda: coding.encode(lib, weight, three, g).codes, plain + packed),
        "nvfp4-3t encode, error summed": (
            lambda: coding.encode(lib, weight, three, g, measure=True, outliers=False).codes,
            plain + packed,
        ),
        "nvfp4-3t encode, error and outliers": (
            lambda: coding.encode(lib, weight, three, g, measure=True).codes,
            plain + packed,
        ),
        "nvfp4-3t decode": (lambda: coding.decode(lib, coded, three.format, mx.bfloat16, g), plain + packed),
        "nvfp4-3t round trip": (lambda: coding.round_trip(lib, weight, three, g, g), 2 * plain),
        **{f"nvfp4-3t encode, {m}": (call, plain + packed) for m, call in methods(lib, weight, "nvfp4-3t", g).items()},
        **{f"nvfp4-2t encode, {m}": (call, plain + packed) for m, call in methods(lib, weight, "nvfp4-2t").items()},
        "mlx quantize nvfp4": (lambda: mx.quantize(weight, mode="nvfp4", global_scale=amax)[0], plain + packed),
    }
    for name in ("nvfp4-2t", "mxfp4", "mxfp8", "int4-g64", "int8-g64"):
        chosen = recipe(name)
        size = plain + chosen.format.nbytes(weight.shape)
        parts = coding.encode(lib, weight, chosen)
        mx.eval(parts.codes)
        made[f"{name} encode"] = (lambda c=chosen: coding.encode(lib, weight, c).codes, size)
        if not name.startswith("nvfp4"):
            made |= {f"{name} encode, {m}": (call, size) for m, call in methods(lib, weight, name).items()}
        made[f"{name} decode"] = (
            lambda c=chosen, p=parts: coding.decode(lib, p, c.format, mx.bfloat16, mx.ones((1,))),
            size,
        )
    return made


def products(lib: Library) -> None:
    """Print the time of products with a 14336 x 4096 weight: dense, stock mlx, ours, and what `ops` chooses."""
    dense = (mx.random.normal((14336, 4096)) * 0.02).astype(mx.bfloat16)
    two, three = (ops.quantize(dense, name) for name in ("nvfp4-2t", "nvfp4-3t"))
    first, coded = mx.zeros((1,), mx.uint32), coding.Coded(three.codes, three.scales)
    columns = ("bfloat16", "stock 2t", "ops 2t", "stock 3t", "ops 3t", "kernel 3t", "decode 3t + dense")
    print(f"| rows | {' us | '.join(columns)} us |\n| --- |{' --- |' * len(columns)}")
    for rows in (1, 2, 4, 8, 16, 32, 64, 512):
        x = mx.random.normal((rows, 4096)).astype(mx.bfloat16)
        mx.eval(x, dense)
        calls: list[Callable[[], Any]] = [
            lambda x=x: x @ dense.T,
            lambda x=x: stock_mlx.quantized_matmul(x, two, True),
            lambda x=x: ops.quantized_matmul(x, two),
            lambda x=x: stock_mlx.gather_qmm(x[None], three.stacked(), first, None, True, sorted_indices=False),
            lambda x=x: ops.quantized_matmul(x, three),
            lambda x=x: coding.product(lib, x, coded, three.format, three.tensor_scale),
            lambda x=x: x @ ops.dequantize(three).T,
        ]
        shown = [seconds(call) * 1e6 for call in calls[:5]]
        shown += [seconds(calls[5]) * 1e6 if rows <= ops.FEW_ROWS else float("nan"), seconds(calls[6]) * 1e6]
        print(f"| {rows} | " + " | ".join(f"{took:.1f}" for took in shown) + " |", flush=True)


def expert_products() -> None:
    """Print the time of one token through 8 of 64 experts of 1408 x 2048, dense and packed, and of 512 tokens."""
    dense = (mx.random.normal((64, 1408, 2048)) * 0.02).astype(mx.bfloat16)
    packed = {name: ops.quantize(dense, name) for name in ("nvfp4-2t", "nvfp4-3t")}
    print("| tokens | bfloat16 us | nvfp4-2t us | nvfp4-3t us |\n| --- | --- | --- | --- |")
    for tokens in (1, 8, 512):
        x = mx.random.normal((tokens, 1, 1, 2048)).astype(mx.bfloat16)
        chosen = mx.random.randint(0, 64, (tokens, 8)).astype(mx.uint32)
        mx.eval(x, chosen, dense)
        calls: list[Callable[[], Any]] = [lambda x=x, i=chosen: mx.gather_mm(x, dense.swapaxes(-1, -2), rhs_indices=i)]
        calls += [lambda x=x, i=chosen, w=weight: ops.gather_qmm(x, w, i) for weight in packed.values()]
        print(f"| {tokens} | " + " | ".join(f"{seconds(call) * 1e6:.1f}" for call in calls) + " |", flush=True)


def sweep(device: Any, weight: mx.array, name: str, operation: str) -> None:
    """Print the speed of one operation over launch sizes."""
    usual = source.KERNELS[name]
    for threads in (128, 256, 512):
        for groups in (132 * 4, 132 * 8, 132 * 16, 132 * 32, 1 << 23):
            source.KERNELS[name] = dataclasses.replace(usual, threads=threads, groups=groups)
            call, size = operations(Library(device), weight)[operation]
            print(f"{name} {threads} x {groups}: {size / seconds(call) / 1e12:.2f} TB/s", flush=True)
    source.KERNELS[name] = usual


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="?", type=int, default=32768)
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--products", action="store_true", help="the products alone")
    wanted = parser.parse_args()
    device: Any = "metal" if mx.metal.is_available() else "cuda"
    lib = Library(device)
    for method in coding.METHODS:
        print(f"self-test of {method}: {self_test(lib, method) or 'all bytes equal the reference'}")
    if wanted.products:
        products(lib)
        expert_products()
        return
    weight = (mx.random.normal((wanted.rows, wanted.rows)) * 0.02).astype(mx.bfloat16)
    mx.eval(weight)
    print(f"mlx {mx.__version__}, {mx.device_info()}, {wanted.rows} x {wanted.rows} bfloat16")
    print("| operation | ms | TB/s |\n| --- | --- | --- |")
    for name, (operation, size) in operations(lib, weight).items():
        took = seconds(operation)
        print(f"| {name} | {took * 1e3:.3f} | {size / took / 1e12:.2f} |", flush=True)
    products(lib)
    expert_products()
    if wanted.sweep:
        sweep(device, weight, "nvfp4_encode", "nvfp4-3t encode")
        sweep(device, weight, "nvfp4_measure", "nvfp4-3t encode, error summed")
        sweep(device, weight, "nvfp4_decode", "nvfp4-3t decode")


if __name__ == "__main__":
    main()
