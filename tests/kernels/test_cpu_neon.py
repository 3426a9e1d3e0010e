"""The arm64 build, run under an emulator: its bytes, decoded weights, sums and counts are the reference's."""

import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hard_weights import DTYPES, RECIPES, SEARCHES, contexts, same_bits, searched, ties, weights

from kernels import Context, Recipe, factor_of, feedback, recipe, reference
from kernels.cpu import library
from kernels.cpu.build import SOURCES, arguments
from kernels.tiles import spread, tile_scales

EMULATOR = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
DRIVER = [Path(__file__).with_name(name) for name in ("neon_driver.cpp", "neon_feedback.cpp")]
pytestmark = pytest.mark.skipif(EMULATOR is None, reason="qemu-aarch64 is not installed (Debian: qemu-user)")


Task = tuple[np.ndarray[Any, Any], Recipe, float, Context]


def tasks() -> Iterator[Task]:
    """Weights with recipes and tensor scales; every recipe and dtype, and every bfloat16 magnitude once."""
    for dtype, kind in DTYPES.items():
        for chosen in RECIPES.values():
            tensor_scales = (0.0017, 1e-30, 1e-36) if chosen.format.tensor_scale else (1.0,)
            for g in tensor_scales:
                weight = np.concatenate([ties(kind, 0.0017)[:20, :256], weights(dtype)["odd blocks"]])
                yield weight, chosen, g, Context()
        yield weights(dtype)["odd blocks"][:, :128].copy(), RECIPES["int8-g128"], 1.0, Context()
        for chosen in SEARCHES.values():
            for context in contexts(1152).values():
                yield searched(kind), chosen, 0.0017 if chosen.format.tensor_scale else 1.0, context
    yield weights("bf16")["every magnitude"], RECIPES["nvfp4-3t"], 1.7e-4, Context()


def packed(weight: np.ndarray[Any, Any], chosen: Recipe, g: float, context: Context) -> bytes:
    """A task as the driver reads it."""
    known = context.used(chosen.method, weight.shape[1])
    layout = library.layout(chosen.format)
    numbers = (library.DTYPES[weight.dtype], weight.itemsize, layout.kind, layout.bits, layout.block)
    rules = (chosen.min_scale, chosen.zero_scale, int(chosen.exponent == "floor"))
    method = (library.METHODS.get(chosen.method, library.SEARCH), *(part is not None for part in known))
    header = struct.pack("<2q8if3i", *weight.shape, *numbers, *rules, g, *method)
    row = chosen.format
    scales = spread(tile_scales(weight, row), row, *weight.shape) if row.scale == "float32" else None
    return header + b"".join(part.tobytes() for part in (weight, *known, scales) if part is not None)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library and its driver as one static arm64 program."""
    pytest.importorskip("ziglang", reason="the compiler, ziglang, is not installed")
    program = tmp_path_factory.mktemp("neon") / "driver"
    sources = [str(SOURCES / "variant.cpp"), str(SOURCES / "dispatch.cpp"), *map(str, DRIVER)]
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        *arguments("aarch64-linux-musl", "neon"),
        *sources,
        "-o",
        str(program),
    ]
    subprocess.run(command, check=True)
    return program


def take(stream: memoryview, dtype: Any, count: int) -> tuple[np.ndarray[Any, Any], memoryview]:
    nbytes = np.dtype(dtype).itemsize * count
    return np.frombuffer(stream[:nbytes], np.uint8).view(dtype), stream[nbytes:]


def test_neon_agrees_with_the_reference(driver: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks").write_bytes(b"".join(packed(*task) for task in tasks()))
    assert EMULATOR is not None
    subprocess.run([EMULATOR, str(driver), str(tmp_path / "tasks"), str(tmp_path / "results")], check=True)
    stream = memoryview((tmp_path / "results").read_bytes())
    for weight, chosen, g, context in tasks():
        row = chosen.format
        with np.errstate(all="ignore"):
            expected = reference.encode(weight, chosen, g, context)
            measured = reference.fidelity(weight, expected, blocks=True)
            decoded = reference.decode(expected).astype(weight.dtype)
        where = f"{row.name}, {chosen.method}, {weight.dtype}, g = {g}"
        for part in (expected.codes, expected.scales, expected.biases, decoded):
            if part is not None:
                got, stream = take(stream, part.dtype, part.size)
                assert same_bits(got, part.reshape(-1)), where
        for sums in (measured.row_squares, measured.row_error):
            got, stream = take(stream, np.float64, len(weight))
            np.testing.assert_allclose(got, sums, rtol=1e-6, atol=0, err_msg=where)
        assert measured.block_error is not None
        got, stream = take(stream, np.float32, measured.block_error.size)
        np.testing.assert_allclose(got, measured.block_error.reshape(-1), rtol=1e-6, atol=1e-44, err_msg=where)
        (max_error,), stream = take(stream, np.float64, 1)
        (vanished,), stream = take(stream, np.int64, 1)
        assert max_error == pytest.approx(measured.max_error, rel=1e-15)
        assert vanished == measured.vanished
        counts, stream = take(stream, np.uint64, 32768)
        np.testing.assert_array_equal(counts, reference.census(weight).counts)
    assert not len(stream)


def test_neon_factors_and_feeds_errors_forward_as_the_reference_does(driver: Path, tmp_path: Path) -> None:
    rng, chosen, g = np.random.default_rng(4), recipe("nvfp4-3t", method="feedback"), 0.0017
    x = rng.standard_normal((300, 208)) * np.exp(rng.standard_normal(208)) + rng.standard_normal((300, 1))
    h = (x.T @ x).astype(np.float32)
    known = Context(factor=factor_of(h))
    assert known.factor is not None
    weights = [ties(kind, g)[:20, :208].copy() for kind in DTYPES.values()]
    weights.append((rng.standard_normal((70, 208)) * 0.1).astype(np.float32))
    expected = [reference.encode(weight, chosen, g, known) for weight in weights]
    with (tmp_path / "tasks").open("wb") as file:
        for weight, quantized in zip(weights, expected, strict=True):
            header = (*weight.shape, library.DTYPES[weight.dtype], weight.itemsize, g, feedback.SWEEPS)
            file.write(struct.pack("<2q2ifi", *header))
            found = known.factor
            parts = (h.astype(np.float64), weight, quantized.scales, found.order, found.feedback, found.coupling)
            file.writelines(part.tobytes() for part in parts)
    command = [str(EMULATOR), str(driver), str(tmp_path / "tasks"), str(tmp_path / "results"), "feedback"]
    subprocess.run(command, check=True)
    stream = memoryview((tmp_path / "results").read_bytes())
    triangle = h.astype(np.float64)
    feedback.cholesky(triangle)
    for weight, quantized in zip(weights, expected, strict=True):
        got, stream = take(stream, np.float64, h.size)
        assert np.triu(got.reshape(h.shape)).tobytes() == np.triu(triangle).tobytes()
        got, stream = take(stream, np.uint8, quantized.codes.size)
        np.testing.assert_array_equal(got, quantized.codes.reshape(-1))
        measured = reference.fidelity(weight, quantized)
        got, stream = take(stream, np.float64, len(weight))
        np.testing.assert_allclose(got, measured.row_error, rtol=1e-6)
        (max_error,), stream = take(stream, np.float64, 1)
        (vanished,), stream = take(stream, np.int64, 1)
        assert max_error == pytest.approx(measured.max_error, rel=1e-15)
        assert vanished == measured.vanished
    assert not len(stream)
