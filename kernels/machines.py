"""Machines: which backends work here, and whether one gives the bytes of the reference."""

import importlib
import platform
import sys
from collections.abc import Iterator

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from kernels.backend import Backend, Weight
from kernels.context import Context, Factor, importance_of, moments_of
from kernels.formats import FORMATS, ExponentRule, Recipe, recipe
from kernels.methods import METHODS

NAMES = ("auto", "metal", "cuda", "cpu", "numpy", "reference")
"""What `choose` takes."""


def choose(name: str = "auto") -> Backend:
    """The backend called `name`; "auto" is the fastest that works here without asking.

    "auto" and "cpu" fall back to numpy, whose title then says so. "auto" never looks for CUDA: that would import mlx on
    machines that can not use it. Raises ValueError that names what is missing.
    """
    if name not in NAMES:
        raise ValueError(f"[choose] unknown backend {name!r}, choose one of {', '.join(NAMES)}")
    if name in ("metal", "cuda"):
        return _gpu(name)
    if name == "reference":
        backend: Backend = importlib.import_module("kernels.reference").ReferenceBackend()
        return backend
    if name == "numpy":
        return _numpy()
    return next(_automatic()) if name == "auto" else _cpu()


def backends() -> list[Backend]:
    """The backends that work here without asking, fastest first; the reference is the last."""
    found = list(_automatic())
    if found[-1].name != "numpy":
        found.append(_numpy())
    return [*found, choose("reference")]


def _automatic() -> Iterator[Backend]:
    """Metal where it can exist, then the processor."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        try:
            metal = _gpu("metal")
        except ValueError:
            pass  # the processor does it, and the title says what is used
        else:
            yield metal
    yield _cpu()


def _gpu(name: str) -> Backend:
    try:
        backend: Backend = importlib.import_module("kernels.gpu.backend").gpu_backend(name)
    except ImportError as error:
        raise ValueError(f"[choose] backend {name} needs mlx: pip install 'nvfp4-studio[gpu]' ({error})") from error
    except (RuntimeError, OSError) as error:
        raise ValueError(f"[choose] backend {name} does not work here: {error}") from error
    return backend


def _cpu() -> Backend:
    try:
        backend: Backend = importlib.import_module("kernels.cpu.backend").CpuBackend()
    except (OSError, ValueError) as error:
        return _numpy(f"numpy, as the C++ library does not load: {error}")
    return backend


def _numpy(title: str = "numpy") -> Backend:
    backend: Backend = importlib.import_module("kernels.cpu.vectorized").NumpyBackend(title)
    return backend


def self_test(backend: Backend) -> str | None:
    """What `backend` gets wrong on blocks made to be hard, or None when its bytes are the reference's; about 0.1 s.

    Every format and method; errors are fed forward over the first columns alone, one step each.
    """
    for dtype in (ml_dtypes.bfloat16, np.float16, np.float32):
        weight = _hard_weight().astype(dtype)
        for chosen in _recipes():
            part = np.ascontiguousarray(weight[:, :80]) if METHODS[chosen.method].needs == "factor" else weight
            if reason := _difference(backend, part, chosen, _context(part.shape[1])):
                return f"{backend.title}: {reason}"
    return None


def _recipes() -> list[Recipe]:
    """Every format with every method that it has."""
    exponents: tuple[ExponentRule, ...] = ("ceil", "floor")
    found = (recipe(name, exponent, method) for name in FORMATS for method in METHODS for exponent in exponents)
    return list(dict.fromkeys(one for one in found if one.format.scale == "e8m0" or one.exponent == "ceil"))


def _difference(backend: Backend, weight: Weight, chosen: Recipe, context: Context) -> str | None:
    reference, row = choose("reference"), chosen.format
    g = 0.0017 if row.tensor_scale else 1.0
    wanted = reference.encode(weight, chosen, g, context=context, measure=False).quantized
    got = backend.encode(weight, chosen, g, context=context, measure=False).quantized
    for part in ("codes", "scales") + (("biases",) if row.affine else ()):
        if getattr(wanted, part).tobytes() != getattr(got, part).tobytes():
            return f"{part} of {row.name} from {weight.dtype} by {chosen.method} differ from the reference"
    if backend.decode(got).tobytes() != reference.decode(wanted).tobytes():
        return f"{row.name} does not decode as in the reference"
    return None


def _context(width: int) -> Context:
    """Statistics of inputs whose columns differ and go together."""
    column = np.arange(16)
    shared = np.float32(0.5) ** np.abs(column[:, None] - column) * np.where((column[:, None] + column) % 3, 1, -1)
    sizes = np.float32(1.5) ** (np.arange(width).reshape(-1, 16) % 11 - 5)
    moments = sizes[:, :, None] * sizes[:, None, :] * np.where(np.eye(16) == 1, 1, shared)
    rows, columns = np.triu_indices(16)
    importance = importance_of((sizes * sizes).reshape(-1))
    return Context(importance, moments_of(moments[:, rows, columns]), _factor(width))


def _factor(width: int) -> Factor:
    """Columns from the last to the first, each with a share in the error of every other."""
    column = np.arange(width, dtype=np.int32)
    shares = (((column[:, None] * 7 + column * 3) % 11 - 5) / 16).astype(np.float32)
    np.fill_diagonal(shares, 0)
    return Factor(column[::-1].copy(), np.triu(shares), shares)


def _hard_weight() -> NDArray[np.float32]:
    """A weight [12, 384] of ties and their neighbours, zeros of both signs, small and large blocks."""
    ties = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 6, 0, -0.0, 0.5, 1, 1.5, 2, 3, 4], np.float32)
    steps = np.arange(12, dtype=np.float32)[:, None, None] / 1024
    blocks = ties * (1 + steps) * np.where(np.arange(16) % 3 == 1, np.float32(-1), np.float32(1))
    sizes = np.float32(2) ** (np.arange(24, dtype=np.float32) - 16)[:, None]
    weight = (blocks * sizes).reshape(12, 384)
    weight[3, :32] = 0
    return weight
