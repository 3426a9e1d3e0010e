"""Compares a GPU's bytes with the reference on vectors made to go wrong."""

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from kernels import reference
from kernels.context import BLOCK, Context, importance_of, moments_of
from kernels.formats import MLX_FORMATS, Recipe, recipe

if TYPE_CHECKING:
    from kernels.gpu.library import Library

WIDTH = 256


def adversarial(dtype: Any, width: int = WIDTH) -> NDArray[Any]:
    """Weights [16, width] that tell kernels apart: ties, zeros, neighbours of opposite size, tiny and huge ones."""
    rng = np.random.default_rng(16)
    lattice = np.array([0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 5, 6, -0.0, 0], np.float32)
    sizes = np.where(np.arange(width) // 16 % 2 == 0, 1e-3, 4.0).astype(np.float32)
    normal = rng.standard_normal((16, width)).astype(np.float32)
    tiny = np.float32(np.finfo(np.float32).tiny if np.dtype(dtype) != np.float16 else 6e-5)
    rows = [
        np.resize(lattice, width),
        np.resize(-lattice, width) * np.float32(2**-7),
        np.zeros(width, np.float32),
        -np.zeros(width, np.float32),
        normal[4] * sizes,
        normal[5] * sizes[::-1],
        normal[6] * tiny,
        normal[7] * tiny / 64,
        normal[8] * np.float32(1e38 if np.dtype(dtype) != np.float16 else 1e4),
        np.where(np.arange(width) % 16 == 5, np.float32(2688), normal[9]),
        np.where(np.arange(width) % 32 == 31, np.float32(100), normal[10] * np.float32(0.02)),
        normal[11] * np.float32(2.0**-9),
        np.exp2(normal[12] * 12).astype(np.float32) * np.sign(normal[12]),
        np.resize(np.array([7, -7, 3.5, 0.875], np.float32), width),
        normal[14] * np.float32(0.02),
        rng.standard_t(3, width).astype(np.float32) * np.float32(0.02),
    ]
    limit = np.float32(3e38 if np.dtype(dtype) != np.float16 else 6e4)
    weight: NDArray[Any] = np.clip(np.stack(rows), -limit, limit).astype(dtype)
    return weight


def adversarial_context(width: int = WIDTH) -> Context:
    """What inputs of every size, of either sign and in columns never active come to, for weights [rows, width]."""
    rng = np.random.default_rng(17)
    x = rng.standard_normal((64, width)) * np.exp2(rng.integers(-8, 9, width)) + rng.standard_normal((64, 1))
    x[:, ::37] = 0
    blocks = x.reshape(64, -1, BLOCK)
    upper = np.triu_indices(BLOCK)
    moments = (np.einsum("nbi,nbj->bij", blocks, blocks) / 64)[:, *upper]
    return Context(importance_of((x * x).mean(axis=0).astype(np.float32)), moments_of(moments.astype(np.float32)))


def self_test(library: "Library", method: str = "max") -> str | None:
    """What differs from the reference with a method, in words; None when nothing does."""
    for chosen in (recipe(name, method=method) for name in MLX_FORMATS):
        wide = chosen.format.scale == "e4m3" and method in ("max", "search")
        for dtype in (ml_dtypes.bfloat16, np.float32) if wide else (ml_dtypes.bfloat16,):
            if chosen.method == method and (difference := _difference(library, chosen, adversarial(dtype))):
                return f"{chosen.format.name} of {np.dtype(dtype).name} by {method}: {difference}"
    return None


def _difference(library: "Library", chosen: Recipe, weight: NDArray[Any]) -> str | None:
    from kernels.gpu import coding
    from kernels.gpu.transfer import mlx_dtype, to_mlx, to_numpy

    g = np.float32(0.02 / 2688) if chosen.format.tensor_scale else np.float32(1)
    context = adversarial_context()
    with np.errstate(over="ignore", invalid="ignore"):
        right = reference.encode(weight, chosen, float(g), context)
        decoded = reference.decode(right).astype(weight.dtype)
    multiplier = to_mlx(np.array([g]))
    coded = coding.encode(library, to_mlx(weight), chosen, multiplier, context=context)
    back = to_numpy(coding.decode(library, coded, chosen.format, mlx_dtype(weight.dtype), multiplier))
    pairs = [("codes", to_numpy(coded.codes), right.codes), ("scales", to_numpy(coded.scales), right.scales)]
    if coded.biases is not None and right.biases is not None:
        pairs.append(("biases", to_numpy(coded.biases), right.biases))
    pairs.append(("decoded weights", back, decoded))
    for what, got, want in pairs:
        if wrong := int((_bits(got.view(want.dtype)) != _bits(want)).sum()):
            return f"{wrong} wrong {what}"
    return None


def _bits(array: NDArray[Any]) -> NDArray[Any]:
    """The bits of an array, with one pattern for every NaN: its sign and payload are the machine's own."""
    whole = np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").copy()
    if array.dtype.kind != "u":
        whole[np.isnan(array)] = np.iinfo(whole.dtype).max
    return whole
