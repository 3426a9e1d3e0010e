"""Weights that are hard to quantize, the recipes to quantize them with, and what the reference makes of them."""

import functools
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from kernels import FORMATS, Context, Quantized, Recipe, importance_of, moments_of, recipe, reference

DTYPES: dict[str, Any] = {"bf16": ml_dtypes.bfloat16, "f16": np.float16, "f32": np.float32}
RECIPES: dict[str, Recipe] = {name: recipe(name) for name in FORMATS} | {
    "mxfp4-floor": recipe("mxfp4", "floor"),
    "mxfp8-floor": recipe("mxfp8", "floor"),
    "nvfp4-3t-any-scale": Recipe(FORMATS["nvfp4-3t"]),
}
SEARCHES: dict[str, Recipe] = {
    f"{name}-{method}": recipe(name, "ceil", method)
    for name in ("nvfp4-2t", "nvfp4-3t")
    for method in ("four-six", "search", "importance", "hessian")
} | {
    "nvfp4-3t-any-scale-search": Recipe(FORMATS["nvfp4-3t"], method="search"),
    "mxfp4-search": recipe("mxfp4", "ceil", "search"),
    "mxfp4-floor-search": recipe("mxfp4", "floor", "search"),
    "int4-g32-search": recipe("int4-g32", "ceil", "search"),
    "int4-g64-search": recipe("int4-g64", "ceil", "search"),
    "int8-g64-search": recipe("int8-g64", "ceil", "search"),
    "int8-g128-search": recipe("int8-g128", "ceil", "search"),
    "int4-sym-g32-search": recipe("int4-sym-g32", "ceil", "search"),
    "int4-sym-g128-search": recipe("int4-sym-g128", "ceil", "search"),
    "int8-sym-g128-search": recipe("int8-sym-g128", "ceil", "search"),
}
TENSOR_SCALES = (1.0, 1.7e-4, 3e-2, 2.0**-13, 7.1e3, 1e-10, 3.3e-27, 1e-30, 1.2e-35, 1e-36)
MIDPOINTS = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)
SCALES = (2.0 ** np.arange(-6, 9)[:, None] * (1 + np.arange(8) / 8)).astype(np.float32).reshape(-1)[:120]


def finite(weight: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """The weight in `dtype`, what overflows there replaced by its largest number."""
    with np.errstate(over="ignore"):
        wide = weight.astype(dtype).astype(np.float32)
    limit = np.float32(ml_dtypes.finfo(dtype).max)
    return np.clip(wide, -limit, limit).astype(dtype)


def every_magnitude(dtype: Any) -> NDArray[Any]:
    """A weight [rows, 1024]: every finite magnitude of a 16-bit dtype (for float32: of bfloat16) leads one block."""
    narrow = ml_dtypes.bfloat16 if np.dtype(dtype).itemsize == 4 else dtype
    count = int(np.array(ml_dtypes.finfo(narrow).max, narrow).view(np.uint16)) + 1
    bits = np.minimum(np.arange(count + -count % 32), count - 1).astype(np.uint16)
    shares = np.concatenate([np.array([6.0, *MIDPOINTS]) / 6, np.linspace(0, 1, 24)]).astype(np.float32)
    shares *= np.where(np.arange(32) % 3 == 1, -1, 1)
    return (bits.view(narrow).astype(np.float32)[:, None] * shares).reshape(-1, 1024).astype(dtype)


def ties(dtype: Any, unit: float = 1.0) -> NDArray[Any]:
    """A weight [60, 512]: midpoints of E2M1 times every E4M3 scale times `unit`, and their neighbours of one ulp."""
    base = np.array([*MIDPOINTS, 6.0], np.float32)
    lower, upper = np.nextafter(base, np.float32(0)), np.nextafter(base[:-1], np.float32(9))
    others = np.array([-0.0, 0.0, 0.5, -1, 2, -3, 4, -6, 6], np.float32)
    blocks = np.concatenate([base, lower, others[:8], upper, others[8:]])
    weight = (blocks * SCALES[:, None] * np.float32(unit)).reshape(60, 64)
    return finite(np.concatenate([weight, -weight] * 4, axis=1), dtype)


def e4m3_ties(dtype: Any) -> NDArray[Any]:
    """A weight [8, 1024] of the midpoints between E4M3 numbers and their neighbours, in blocks that 448 leads."""
    numbers = np.append(reference.E4M3_VALUES, np.float32(448))
    middle = ((numbers[1:] + numbers[:-1]) / 2).astype(np.float32)
    points = np.concatenate([middle, np.nextafter(middle, np.float32(0)), np.nextafter(middle, np.float32(999))])
    blocks = np.resize(points, (256, 32))
    blocks[:, 0] = 448
    return finite((blocks * np.where(np.arange(32) % 2, -1, 1)).reshape(8, 1024), dtype)


def odd_blocks(dtype: Any) -> NDArray[Any]:
    """A weight [24, 256] of zeros of both signs, subnormals, constants, outliers and extreme numbers."""
    rng = np.random.default_rng(5)
    limits = ml_dtypes.finfo(dtype)
    weight = rng.normal(size=(24, 256))
    weight[0], weight[1], weight[2, ::2] = 0, -0.0, -0.0
    weight[3], weight[4] = float(limits.smallest_subnormal), 1
    weight[5] = float(limits.smallest_subnormal) * rng.integers(-9, 9, 256)
    weight[6] *= float(limits.tiny)
    weight[7, ::17] *= 1000
    weight[8, ::64] *= 1e4
    weight[9], weight[10] = np.abs(weight[9]), -np.abs(weight[10])
    weight[11], weight[12], weight[13] = 5, -0.37, 5 + weight[13] / 100
    weight[14, :128] = 0
    weight[15] *= float(limits.max) / 1e7
    weight[16:] *= 10.0 ** np.arange(-6, 2)[:, None]
    return finite(weight.astype(np.float32), dtype)


def searched(dtype: Any) -> NDArray[Any]:
    """A weight [48, 1152], two strips and a tail: blocks of every size, that many scales fit, or far from zero."""
    rng = np.random.default_rng(11)
    weight = rng.standard_t(4, (48, 1152))
    weight[:20] *= 2.0 ** np.arange(-12, 8)[:, None]
    weight[20] *= np.repeat(2.0 ** np.linspace(-66, 66, 36), 32)
    weight[21] = np.where(np.arange(1152) % 16 == 3, 6.0 * 2.0 ** (np.arange(1152) // 16 % 9), 0)
    weight[22] = rng.choice([0.5, -1, 1.5, -2, 3, -4, 6, 0], 1152) * np.repeat(1 + np.arange(72) / 8, 16)
    weight[23, ::32] *= 1000
    weight[24:28] = 1 + weight[24:28] * np.array([1e-1, 1e-2, 1e-3, 1e-6])[:, None]
    weight[28:32] = np.linspace(7, 40, 1152) + rng.random((4, 1152)) * np.array([1, 8, 50, 300])[:, None]
    weight[32:36] *= -1
    weight[36], weight[37] = np.abs(weight[36]), 0.3
    weight[38:44] *= np.repeat(rng.choice([0, 1e-3, 1, 60], (6, 72)), 16, axis=1)
    weight[44:] *= np.exp(rng.normal(size=1152))
    return finite(weight.astype(np.float32), dtype)


@functools.cache
def contexts(width: int) -> dict[str, Context]:
    """What may be known of `width` columns: of some inputs, of inputs that are all alike, and the largest numbers."""
    rng = np.random.default_rng(12)
    inputs = rng.normal(size=(64, width)) * np.exp(rng.normal(size=width)) + rng.normal(size=(64, 1))
    inputs[:, ::7] = 0
    blocks = inputs.reshape(64, -1, 16)
    rows, columns = np.triu_indices(16)
    moments = (np.einsum("nbi,nbj->bij", blocks, blocks) / 64)[:, rows, columns]
    together = np.ones((width // 16, 136), np.float32)
    signs = np.where(rng.random((width // 16, 136)) < 0.5, -1, 1)
    largest = signs * np.where(rows == columns, 16383, 32766)
    return {
        "inputs": Context(importance_of((inputs**2).mean(axis=0).astype(np.float32)), moments_of(moments)),
        "together": Context(importance_of(np.ones(width, np.float32)), moments_of(together)),
        "largest": Context(np.full(width, 32767, np.uint16), largest.astype(np.int16)),
    }


@functools.cache
def weights(dtype: str) -> dict[str, NDArray[Any]]:
    """All hard weights of a dtype by name."""
    kind = DTYPES[dtype]
    return {
        "every magnitude": every_magnitude(kind),
        "ties": ties(kind),
        "small ties": ties(kind, 0.0017),
        "e4m3 ties": e4m3_ties(kind),
        "odd blocks": odd_blocks(kind),
    }


def tensor_scales(chosen: Recipe) -> tuple[float, ...]:
    """The multipliers to try with a recipe."""
    return TENSOR_SCALES if chosen.format.tensor_scale else (1.0,)


@functools.cache
def wanted(dtype: str, name: str, recipe_name: str, g: float) -> Quantized:
    """What the reference makes of a hard weight."""
    with np.errstate(all="ignore"):
        return reference.encode(weights(dtype)[name], RECIPES[recipe_name], g)


def same_bits(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Equal dtype, shape and bits, where every NaN is like every other."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.tobytes() == other.tobytes():
        return True
    first, second = one.astype(np.float64), other.astype(np.float64)
    equal = (first == second) & (np.signbit(first) == np.signbit(second))
    return bool(np.all(equal | (np.isnan(first) & np.isnan(second))))


def difference(got: Quantized, expected: Quantized) -> str | None:
    """Where stored bytes differ, and the bytes around the first such place; None when they do not."""
    for part in ("codes", "scales", "biases"):
        one, other = getattr(got, part), getattr(expected, part)
        if one is None and other is None:
            continue
        one, other = one.reshape(-1).view(np.uint8), other.reshape(-1).view(np.uint8)
        if not np.array_equal(one, other):
            at = np.flatnonzero(one != other)
            near = slice(max(0, int(at[0]) - 8), int(at[0]) + 8)
            return f"{len(at)} bytes of {part} differ, first at {at[0]}: {one[near]} is not {other[near]}"
    return None
