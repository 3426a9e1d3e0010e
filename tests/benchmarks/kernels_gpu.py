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

from kernels import ops, recipe
from kernels.gpu import coding, source
from kernels.gpu.library import Library
from kernels.gpu.selftest import self_test

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
        "mlx quantize nvfp4": (lambda: mx.quantize(weight, mode="nvfp4", global_scale=amax)[0], plain + packed),
    }
    for name in ("nvfp4-2t", "mxfp4", "mxfp8", "int4-g64", "int8-g64"):
        chosen = recipe(name)
        size = plain + chosen.format.nbytes(weight.shape)
        parts = coding.encode(lib, weight, chosen)
        mx.eval(parts.codes)
        made[f"{name} encode"] = (lambda c=chosen: coding.encode(lib, weight, c).codes, size)
        made[f"{name} decode"] = (
            lambda c=chosen, p=parts: coding.decode(lib, p, c.format, mx.bfloat16, mx.ones((1,))),
            size,
        )
    return made


def products() -> None:
    """Print the time of a product with a 14336 x 4096 weight, dense and packed, for one row and for many."""
    dense = (mx.random.normal((14336, 4096)) * 0.02).astype(mx.bfloat16)
    packed = {name: ops.quantize(dense, name) for name in ("nvfp4-2t", "nvfp4-3t")}
    print("| rows | bfloat16 us | nvfp4-2t us | nvfp4-3t us |\n| --- | --- | --- | --- |")
    for rows in (1, 8, 64, 512):
        x = mx.random.normal((rows, 4096)).astype(mx.bfloat16)
        mx.eval(x, dense)
        calls: list[Callable[[], Any]] = [lambda x=x: x @ dense.T]
        calls += [lambda x=x, weight=weight: ops.quantized_matmul(x, weight) for weight in packed.values()]
        print(f"| {rows} | " + " | ".join(f"{seconds(call) * 1e6:.1f}" for call in calls) + " |", flush=True)


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
    wanted = parser.parse_args()
    device: Any = "metal" if mx.metal.is_available() else "cuda"
    lib = Library(device)
    print(f"self-test: {self_test(lib) or 'all bytes equal the reference'}")
    weight = (mx.random.normal((wanted.rows, wanted.rows)) * 0.02).astype(mx.bfloat16)
    mx.eval(weight)
    print(f"mlx {mx.__version__}, {mx.device_info()}, {wanted.rows} x {wanted.rows} bfloat16")
    print("| operation | ms | TB/s |\n| --- | --- | --- |")
    for name, (operation, size) in operations(lib, weight).items():
        took = seconds(operation)
        print(f"| {name} | {took * 1e3:.3f} | {size / took / 1e12:.2f} |", flush=True)
    products()
    if wanted.sweep:
        sweep(device, weight, "nvfp4_encode", "nvfp4-3t encode")
        sweep(device, weight, "nvfp4_measure", "nvfp4-3t encode, error summed")
        sweep(device, weight, "nvfp4_decode", "nvfp4-3t decode")


if __name__ == "__main__":
    main()
