"""The processor's kernels against copying memory and against stock MLX, as ratios from one run.

Usage: python tests/benchmarks/kernels_cpu.py [REPEATS] [VARIANT]

The weight is 14336 x 4096 bf16, heavy-tailed with outlier channels. Every job reads it whole and writes to memory of
its own that was touched before, so that no page is mapped for the first time. Repeats are interleaved, so that other
programs disturb all jobs alike; the best of them counts. One thread: its processor time. Two threads: wall time.
"""

import ctypes
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from kernels import Context, Recipe, factor_of, importance_of, moments_of, recipe
from kernels.cpu import library
from kernels.cpu.backend import CpuBackend
from kernels.cpu.vectorized import NumpyBackend

ROWS, COLUMNS = 14336, 4096
MLX_ROWS, NUMPY_ROWS, FEEDBACK_ROWS = 256, 1024, 1024
FACTORS = (1024, 4096)
SLAB = 512

Job = Callable[[], Any]


class Ratio(NamedTuple):
    """A line of the result: a job's time over another's, with its goal and what a prototype reached elsewhere."""

    title: str
    job: str
    unit: str
    goal: str
    prototype: str


RATIOS = (
    Ratio("encode 3t, g given / memcpy", "encode", "memcpy", "<= 1.8", "1.75"),
    Ratio("max + encode 3t / memcpy", "max + encode", "memcpy", "<= 2.8", "2.8"),
    Ratio("encode + error / encode", "encode, error", "encode", "-", "1.12, sums in float32"),
    Ratio("encode + error per block / encode", "encode, block error", "encode", "<= 1.3", "1.32, sums in float32"),
    Ratio("census + encode + error per block / encode", "everything", "encode", "<= 2.6", "2.65, sums in float32"),
    Ratio("census / memcpy", "census", "memcpy", "-", "2.8"),
    Ratio("max / memcpy", "max", "memcpy", "-", "1.0"),
    Ratio("encode mxfp4 / memcpy", "mxfp4", "memcpy", "<= 1.9", "1.54"),
    Ratio("encode mxfp8 / memcpy", "mxfp8", "memcpy", "<= 1.9", "1.71"),
    Ratio("encode int4-g32 / memcpy", "int4-g32", "memcpy", "<= 1.9", "1.89"),
    Ratio("encode int4-g64 / memcpy", "int4-g64", "memcpy", "<= 1.9", "1.59"),
    Ratio("encode int8-g64 / memcpy", "int8-g64", "memcpy", "<= 1.9", "-"),
    Ratio("encode int8-g128 / memcpy", "int8-g128", "memcpy", "<= 1.9", "1.67"),
    Ratio("decode 3t to bf16 / memcpy", "decode nvfp4-3t", "memcpy", "<= 1.5", "1.47"),
    Ratio("decode mxfp8 to bf16 / memcpy", "decode mxfp8", "memcpy", "<= 1.5", "-"),
    Ratio("decode int4-g64 to bf16 / memcpy", "decode int4-g64", "memcpy", "<= 1.5", "-"),
    *(
        Ratio(f"{title} / {unit}", f"{job}{suffix}", f"{unit}{suffix}", goal, prototype)
        for suffix in ("", ", error")
        for title, job, unit, goal, prototype in (
            ("3t by four-six", "four-six", "encode", "<= 3", "3.3"),
            ("3t by search", "search", "encode", "<= 6", "7.4"),
            ("3t by importance", "importance", "encode", "-", "-"),
            ("3t by hessian", "hessian", "encode", "<= 12", "-"),
            ("mxfp4 by search", "mxfp4 search", "mxfp4", "<= 6", "-"),
            ("int4-g64 by search", "int4-g64 search", "int4-g64", "<= 6", "-"),
            ("int8-g64 by search", "int8-g64 search", "int8-g64", "<= 6", "-"),
        )
    ),
    Ratio("feedback on scales of search / encode", "feedback", "encode", "-", "-"),
    Ratio("CpuBackend.encode, slabs of 512 rows / memcpy", "slabs", "memcpy", "-", "-"),
)


def make_weight() -> NDArray[Any]:
    """Student-t with 4 degrees of freedom and 8 outlier channels."""
    rng = np.random.default_rng(0)
    weight = rng.standard_t(4, (ROWS, COLUMNS)).astype(np.float32) * 0.02
    weight[:, rng.choice(COLUMNS, 8, replace=False)] *= 15
    return weight.astype(ml_dtypes.bfloat16)


class Kernels:
    """Calls into the library with memory that is kept, to time the kernels and nothing else."""

    def __init__(self, weight: NDArray[Any], variant: str | None) -> None:
        self.weight = weight
        self.backend = CpuBackend(variant)
        self.tensor_scale = self.backend.max_abs(weight) / 2688
        self._number = library.variants()[self.backend.variant]
        self._library = library.load()
        self._kept: list[Any] = []

    def _touched(self, shape: tuple[int, ...], dtype: Any) -> int:
        array = np.ones(shape, dtype)
        self._kept.append(array)
        return array.ctypes.data

    def _scale(self, chosen: Recipe) -> float:
        return self.tensor_scale if chosen.format.tensor_scale else 1.0

    def encode(
        self,
        chosen: Recipe,
        *,
        measure: bool = False,
        blocks: bool = False,
        rows: slice = slice(None),
        context: Context | None = None,
    ) -> Job:
        """Encode some rows on the calling thread."""
        row, weight = chosen.format, self.weight[rows]
        count = len(weight)
        per_row = COLUMNS // row.block
        known = (context or Context()).used(chosen.method, COLUMNS)
        measured = library.Measure(
            self._touched((count,), np.float64),
            self._touched((count,), np.float64),
            self._touched((count, per_row), np.float32) if blocks else None,
            self._touched((256,), np.uint64),
        )
        task = library.EncodeTask(
            weight=weight.ctypes.data,
            codes=self._touched((count, COLUMNS * row.bits // 8), np.uint8),
            scales=self._touched((count, per_row), np.uint16),
            biases=self._touched((count, per_row), np.uint16),
            measure=ctypes.pointer(measured) if measure or blocks else None,
            importance=library.address(known[0]),
            moments=library.address(known[1]),
            rows=count,
            width=COLUMNS,
            layout=library.layout(row),
            dtype=library.DTYPES[weight.dtype],
            tensor_scale=self._scale(chosen),
            min_scale=chosen.min_scale,
            zero_scale=chosen.zero_scale,
            method=library.METHODS.get(chosen.method, library.SEARCH),
        )
        self._kept.append((weight, measured, known))
        return lambda: self._library.nvfp4_encode(self._number, ctypes.byref(task))

    def decode(self, chosen: Recipe) -> Job:
        """Decode all rows to bf16."""
        quantized = self.backend.encode(self.weight, chosen, self._scale(chosen), measure=False).quantized
        self._kept.append(quantized)
        task = library.DecodeTask(
            codes=quantized.codes.ctypes.data,
            scales=quantized.scales.ctypes.data,
            biases=library.address(quantized.biases),
            weight=self._touched(self.weight.shape, np.uint16),
            count=self.weight.size,
            layout=library.layout(chosen.format),
            tensor_scale=self._scale(chosen),
        )
        return lambda: self._library.nvfp4_decode(self._number, ctypes.byref(task))

    def copy(self) -> Job:
        """The unit: one thread copies the weight."""
        target = self._touched(self.weight.shape, np.uint16)
        return lambda: ctypes.memmove(target, self.weight.ctypes.data, self.weight.nbytes)

    def slabs(self, chosen: Recipe) -> Job:
        """Encode through the public interface, a slab of rows at a time, results dropped."""

        def job() -> None:
            for start in range(0, ROWS, SLAB):
                self.backend.encode(self.weight[start : start + SLAB], chosen, self.tensor_scale, measure=False)

        return job


def one_thread_jobs(kernels: Kernels) -> dict[str, Job]:
    """Jobs whose processor time is taken."""
    chosen = recipe("nvfp4-3t")
    encode, block_error = kernels.encode(chosen), kernels.encode(chosen, blocks=True)
    jobs: dict[str, Job] = {
        "memcpy": kernels.copy(),
        "encode": encode,
        "max": lambda: kernels.backend.max_abs(kernels.weight),
        "max + encode": lambda: (kernels.backend.max_abs(kernels.weight), encode()),
        "encode, error": kernels.encode(chosen, measure=True),
        "encode, block error": block_error,
        "census": lambda: kernels.backend.census(kernels.weight),
        "everything": lambda: (kernels.backend.census(kernels.weight), block_error()),
        "slabs": kernels.slabs(chosen),
    }
    for name in ("mxfp4", "mxfp8", "int4-g32", "int4-g64", "int8-g64", "int8-g128"):
        jobs[name] = kernels.encode(recipe(name))
        jobs[f"{name}, error"] = kernels.encode(recipe(name), measure=True)
    for name in ("nvfp4-3t", "mxfp8", "int4-g64"):
        jobs[f"decode {name}"] = kernels.decode(recipe(name))
    return jobs | method_jobs(kernels)


def method_jobs(kernels: Kernels) -> dict[str, Job]:
    """Each method, plain and measuring."""
    inputs = moments(COLUMNS)
    blocks, (rows, columns) = inputs.reshape(COLUMNS // 16, 16, COLUMNS // 16, 16), np.triu_indices(16)
    triangles = np.stack([blocks[b, :, b] for b in range(COLUMNS // 16)])[:, rows, columns]
    known = Context(importance_of(np.ascontiguousarray(inputs.diagonal())), moments_of(triangles))
    chosen = {name: recipe("nvfp4-3t", method=name) for name in ("four-six", "search", "importance", "hessian")}
    chosen |= {f"{name} search": recipe(name, method="search") for name in ("mxfp4", "int4-g64", "int8-g64")}
    return {
        f"{name}{', error' if measure else ''}": kernels.encode(one, measure=measure, context=known)
        for name, one in chosen.items()
        for measure in (False, True)
    }


def moments(width: int) -> NDArray[np.float32]:
    """Second moments of inputs that go together."""
    x = np.random.default_rng(1).standard_normal((width // 4, width), np.float32) + np.float32(1)
    return x.T @ x


def feedback_job(kernels: Kernels) -> Job:
    """Feed errors forward in the first rows, a slab at a time, on scales of search."""
    known = Context(factor=factor_of(moments(COLUMNS), threads=2))
    chosen = recipe("nvfp4-3t", method="feedback")

    def job() -> None:
        for start in range(0, FEEDBACK_ROWS, SLAB):
            slab = kernels.weight[start : start + SLAB]
            kernels.backend.encode(slab, chosen, kernels.tensor_scale, context=known)

    return job


def factor_job(width: int) -> Job:
    """Factor second moments on two threads."""
    made = moments(width)
    return lambda: factor_of(made, threads=2)


def on_two_threads(kernels: Kernels, pool: ThreadPoolExecutor) -> Job:
    """Encode the two halves of the rows at once."""
    halves = (slice(0, ROWS // 2), slice(ROWS // 2, ROWS))
    jobs = [kernels.encode(recipe("nvfp4-3t"), rows=half) for half in halves]
    return lambda: [waiting.result() for waiting in [pool.submit(job) for job in jobs]]


def mlx_job(weight: NDArray[Any]) -> Job | None:
    """`mx.quantize` in nvfp4 of the first rows on MLX's CPU backend; None when MLX is not here."""
    try:
        import mlx.core as mx
    except ImportError:
        return None
    mx.set_default_device(mx.cpu)
    array = mx.array(weight[:MLX_ROWS].view(np.uint16)).view(mx.bfloat16)
    mx.eval(array)
    return lambda: mx.eval(mx.quantize(array, mode="nvfp4", group_size=16, bits=4))


def best_of(repeats: int, jobs: dict[str, Job], wall: frozenset[str]) -> dict[str, float]:
    """Best seconds of each job; the jobs take turns."""
    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(repeats):
        for name, job in jobs.items():
            clock = time.perf_counter if name in wall else time.thread_time
            start = clock()
            job()
            best[name] = min(best[name], clock() - start)
    return best


def report(title: str, best: dict[str, float]) -> None:
    """Print what was measured, next to goals."""
    print(f"{title}; memcpy {best['memcpy'] * 1e3:.2f} ms, encode {best['encode'] * 1e3:.2f} ms")
    print(f"{'ratio':48} {'measured':>9} {'goal':>8}  prototype")
    for line in RATIOS:
        print(f"{line.title:48} {best[line.job] / best[line.unit]:9.2f} {line.goal:>8}  {line.prototype}")
    for width in FACTORS:
        print(f"{f'factor_of, K = {width}, 2 threads: seconds':48} {best[f'factor {width}']:9.2f}")
    print(f"{'encode, 1 thread over 2 threads':48} {best['encode'] / best['two threads']:9.2f} {'>= 1.85':>8}  1.85")
    if "mlx" in best:
        mlx = best["mlx"] * ROWS / MLX_ROWS
        lines = (("encode", "encode", ">= 250", "270"), ("encode on 2 threads", "two threads", ">= 450", "500"))
        for name, job, goal, prototype in lines:
            print(f"{f'mx.quantize nvfp4 / {name}':48} {mlx / best[job]:9.0f} {goal:>8}  {prototype}")
        ratio = mlx / (best["numpy"] * ROWS / NUMPY_ROWS)
        print(f"{'mx.quantize nvfp4 / numpy fallback':48} {ratio:9.1f} {'>= 8':>8}  14")
        print(f"mx.quantize: {MLX_ROWS} rows measured, numpy: {NUMPY_ROWS}, both scaled to {ROWS}")


def main() -> None:
    """Measure and print."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    weight = make_weight()
    kernels = Kernels(weight, sys.argv[2] if len(sys.argv) > 2 else None)
    jobs = one_thread_jobs(kernels)
    numpy_backend = NumpyBackend()
    part = weight[:NUMPY_ROWS]
    jobs |= {f"factor {width}": factor_job(width) for width in FACTORS}
    jobs["feedback"] = feedback_job(kernels)
    jobs["numpy"] = lambda: numpy_backend.encode(part, recipe("nvfp4-3t"), kernels.tensor_scale, measure=False)
    if mlx := mlx_job(weight):
        jobs["mlx"] = mlx
    with ThreadPoolExecutor(2) as pool:
        jobs["two threads"] = on_two_threads(kernels, pool)
        wall = frozenset({"two threads", "mlx", *(f"factor {width}" for width in FACTORS)})
        best = best_of(repeats, jobs, wall)
        best["feedback"] *= ROWS / FEEDBACK_ROWS
        report(kernels.backend.title, best)


if __name__ == "__main__":
    main()
