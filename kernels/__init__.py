"""Numerics of 4-bit and 8-bit weight formats: arrays in, arrays out; knows no models, files or windows."""

from kernels.context import Context, Factor, importance_of, moments_of
from kernels.feedback import factor_of
from kernels.fidelity import Census, Fidelity
from kernels.formats import FORMATS, MLX_FORMATS, STORED_FORMATS, Format, Recipe, recipe
from kernels.methods import METHODS, STORED, Method, available, method_of
from kernels.quantized import Quantized

__version__ = "0.1.0"

__all__ = [
    "FORMATS",
    "METHODS",
    "MLX_FORMATS",
    "STORED",
    "STORED_FORMATS",
    "Census",
    "Context",
    "Factor",
    "Fidelity",
    "Format",
    "Method",
    "Quantized",
    "Recipe",
    "__version__",
    "available",
    "factor_of",
    "importance_of",
    "method_of",
    "moments_of",
    "recipe",
]
