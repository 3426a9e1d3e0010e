"""mlx's own Metal kernels, cut out of the headers in its wheel: oracles beside the reference."""

import re
from pathlib import Path

import mlx.core as mx
import numpy as np

from tests.metal.compiling import compile_kernel
from tests.metal.harness import Machine

HEADERS = Path(mx.__file__).parent / "include" / "mlx" / "backend" / "metal" / "kernels"


def _without_includes(text: str) -> str:
    return re.sub(r"^\s*#(include|pragma once).*$", "", text, flags=re.M)


def peer_text() -> str:
    """fp_quantize, fp_dequantize and what they need, as shipped."""
    quantized = (HEADERS / "fp_quantized.h").read_text()
    codecs = quantized[quantized.index("template <int bits>\nstruct Quantize") :]
    codecs = codecs[: codecs.index("template <typename T, typename U, int values_per_thread>")]
    kernels = quantized[quantized.rindex("template <", 0, quantized.index("[[kernel]] void fp_quantize(")) :]
    kernels = kernels[: kernels.index("[[kernel]] void fp_quantize_dequantize(")].rsplit("template <", 1)[0]
    formats = "\n".join((HEADERS / name).read_text() for name in ("fp4.h", "fp8.h"))
    return _without_includes("\n".join([formats, codecs, kernels]))


def quantize(
    machine: Machine, weight: np.ndarray, group: int, bits: int, amax: float | None = None, text: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Codes and scales of float32 weights [rows, K] by mlx's fp_quantize."""
    arguments = f"<float, {group}, {bits}, {'true' if amax else 'false'}>"
    program = compile_kernel(text or peer_text(), "fp_quantize", arguments, machine.compiler)
    rows, width = weight.shape
    codes = np.full((rows, width * bits // 8), 0xA5, np.uint8)
    scales = np.full((rows, width // group), 0xA5, np.uint8)
    buffers = [weight.copy(), codes, scales, np.array([amax or 1.0], np.float32)]
    machine.run(program, buffers, (width, rows, 1), (min(width, 1024), 1, 1))
    return codes, scales


def dequantize(
    machine: Machine, codes: np.ndarray, scales: np.ndarray, group: int, bits: int, amax: float | None = None
) -> np.ndarray:
    """Float32 weights by mlx's fp_dequantize."""
    arguments = f"<float, {group}, {bits}, {'true' if amax else 'false'}>"
    program = compile_kernel(peer_text(), "fp_dequantize", arguments, machine.compiler)
    rows, width = codes.shape[0], codes.shape[1] * 8 // bits
    out = np.full((rows, width), np.nan, np.float32)
    buffers = [codes.copy(), scales.copy(), np.array([amax or 1.0], np.float32), out]
    machine.run(program, buffers, (width * bits // 8, rows, 1), (min(width * bits // 8, 1024), 1, 1))
    return out


def affine_text() -> str:
    """affine_quantize and what it needs, as shipped."""
    quantized = (HEADERS / "quantized.h").read_text()
    limits = "template <typename U> struct Limits { static constexpr U max = INFINITY; };  // as in utils.h"
    sizes = quantized[quantized.index("template <int bits, int wsize = 8>") :]
    sizes = sizes[: sizes.index("template <typename T, typename U, int values_per_thread, int bits>")]
    kernel = quantized[quantized.rindex("template <", 0, quantized.index("[[kernel]] void affine_quantize(")) :]
    kernel = kernel[: kernel.index("[[kernel]] void affine_dequantize(")].rsplit("template <", 1)[0]
    return _without_includes("\n".join([limits, sizes, kernel]))


def affine_quantize(
    machine: Machine, weight: np.ndarray, group: int, bits: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, scales and biases of float32 weights [rows, K] by mlx's affine_quantize."""
    program = compile_kernel(affine_text(), "affine_quantize", f"<float, {group}, {bits}, false>", machine.compiler)
    rows, width = weight.shape
    codes = np.full((rows, width * bits // 8), 0xA5, np.uint8)
    scales, biases = (np.full((rows, width // group), np.nan, np.float32) for _ in range(2))
    threads = width * 32 // group
    machine.run(program, [weight.copy(), codes, scales, biases], (threads, rows, 1), (min(threads, 1024), 1, 1))
    return codes, scales, biases
