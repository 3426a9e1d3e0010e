"""Numerics of 4-bit and 8-bit weight formats: arrays in, arrays out; knows no models, files or windows."""

from kernels.fidelity import Census, Fidelity
from kernels.formats import FORMATS, Format, Recipe, recipe
from kernels.quantized import Quantized

__version__ = "0.1.0"

__all__ = ["FORMATS", "Census", "Fidelity", "Format", "Quantized", "Recipe", "__version__", "recipe"]
