"""The C++ library through ctypes: found, loaded once, its structures and functions declared. Calls release the GIL."""

import ctypes
import functools
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from kernels.formats import Format

NAMES = {"win32": "nvfp4.dll", "darwin": "libnvfp4.dylib"}
DTYPES = {np.dtype(ml_dtypes.bfloat16): 0, np.dtype(np.float16): 1, np.dtype(np.float32): 2}
METHODS, SEARCH = {"max": 0, "four-six": 1}, 2
"""How scales are chosen: what is not named searches, by what it is given of the columns."""
_KINDS = {("e2m1", "e4m3"): 0, ("e2m1", "e8m0"): 1, ("e4m3", "e8m0"): 2, ("uint", "weight"): 3, ("e4m3", "float32"): 4}
_SYMMETRIC = 5


class Layout(ctypes.Structure):
    """How codes and scales of a format lie in memory."""

    _fields_ = [("kind", ctypes.c_int32), ("bits", ctypes.c_int32), ("block", ctypes.c_int32)]


class Measure(ctypes.Structure):
    """Where an encoder puts what it measured."""

    _fields_ = [
        ("row_squares", ctypes.c_void_p),
        ("row_error", ctypes.c_void_p),
        ("block_error", ctypes.c_void_p),
        ("scale_counts", ctypes.c_void_p),
        ("max_error", ctypes.c_double),
        ("vanished", ctypes.c_int64),
    ]


class EncodeTask(ctypes.Structure):
    """One call of the encoder."""

    _fields_ = [
        ("weight", ctypes.c_void_p),
        ("codes", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("biases", ctypes.c_void_p),
        ("measure", ctypes.POINTER(Measure)),
        ("importance", ctypes.c_void_p),
        ("moments", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("layout", Layout),
        ("dtype", ctypes.c_int32),
        ("tensor_scale", ctypes.c_float),
        ("min_scale", ctypes.c_int32),
        ("zero_scale", ctypes.c_int32),
        ("floor_exponent", ctypes.c_int32),
        ("method", ctypes.c_int32),
    ]


class DecodeTask(ctypes.Structure):
    """One call of the decoder."""

    _fields_ = [
        ("codes", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("biases", ctypes.c_void_p),
        ("weight", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("layout", Layout),
        ("dtype", ctypes.c_int32),
        ("scale_dtype", ctypes.c_int32),
        ("tensor_scale", ctypes.c_float),
    ]


class CompareTask(ctypes.Structure):
    """One call of the comparison of codes with the weights that they stand for."""

    _fields_ = [
        ("coded", DecodeTask),
        ("weight", ctypes.c_void_p),
        ("dtype", ctypes.c_int32),
        ("squared_error", ctypes.c_double),
    ]


class CensusTask(ctypes.Structure):
    """One call of the counter."""

    _fields_ = [
        ("weight", ctypes.c_void_p),
        ("counts", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("dtype", ctypes.c_int32),
        ("max_abs", ctypes.c_double),
        ("sum2", ctypes.c_double),
        ("sum4", ctypes.c_double),
    ]


class FactorTask(ctypes.Structure):
    """One call of the factorization: a panel of columns, in some rows."""

    _fields_ = [
        ("matrix", ctypes.c_void_p),
        ("panel", ctypes.c_void_p),
        ("corner", ctypes.c_void_p),
        ("size", ctypes.c_int64),
        ("start", ctypes.c_int64),
        ("stop", ctypes.c_int64),
        ("first", ctypes.c_int64),
        ("last", ctypes.c_int64),
        ("failed", ctypes.c_int64),
    ]


class FeedbackTask(ctypes.Structure):
    """One call of the encoder that feeds errors forward under scales that are chosen."""

    _fields_ = [
        ("weight", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("order", ctypes.c_void_p),
        ("feedback", ctypes.c_void_p),
        ("coupling", ctypes.c_void_p),
        ("codes", ctypes.c_void_p),
        ("measure", ctypes.POINTER(Measure)),
        ("rows", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("dtype", ctypes.c_int32),
        ("tensor_scale", ctypes.c_float),
        ("sweeps", ctypes.c_int32),
    ]


_TASKS = {
    "encode": EncodeTask,
    "decode": DecodeTask,
    "compare": CompareTask,
    "census": CensusTask,
    "factor": FactorTask,
    "feedback": FeedbackTask,
}


@functools.cache
def layout(row: Format) -> Layout:
    """The structure that tells the library about the format `row`."""
    return Layout(_SYMMETRIC if row.symmetric else _KINDS[row.element, row.scale], row.bits, row.block)


def address(array: NDArray[Any] | None) -> int | None:
    """Where an array's data lies; None stays None."""
    return None if array is None else int(array.__array_interface__["data"][0])  # half the time of array.ctypes.data


def path() -> Path:
    """Where the build puts the library for this platform."""
    return Path(__file__).with_name(NAMES.get(sys.platform, "libnvfp4.so"))


@functools.cache
def load() -> ctypes.CDLL:
    """The library with its functions declared. Raises OSError when it is not there or can not be loaded."""
    library = ctypes.CDLL(str(path()))
    variant = ctypes.c_int32
    library.nvfp4_variant_name.argtypes, library.nvfp4_variant_name.restype = [variant], ctypes.c_char_p
    library.nvfp4_variant_runs.argtypes, library.nvfp4_variant_runs.restype = [variant], ctypes.c_int32
    for name, task in _TASKS.items():
        function = getattr(library, f"nvfp4_{name}")
        function.argtypes, function.restype = [variant, ctypes.POINTER(task)], ctypes.c_int32
    library.nvfp4_max_abs.argtypes = [variant, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32]
    library.nvfp4_max_abs.restype = ctypes.c_float
    return library


@functools.cache
def variants() -> dict[str, int]:
    """The library's instruction-set variants that this processor runs, fastest first, with their numbers.

    Raises OSError when the library can not be loaded.
    """
    library = load()
    found = {}
    number = 0
    while name := library.nvfp4_variant_name(number):
        if library.nvfp4_variant_runs(number):
            found[name.decode()] = number
        number += 1
    return found
