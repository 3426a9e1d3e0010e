"""Encode and decode mlx arrays with the kernels: 2-D weights in, codes and scales out, every format of the studio."""

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from kernels.context import BLOCK, Context
from kernels.formats import Format, Recipe
from kernels.gpu.library import KINDS, Library, Parameters
from kernels.gpu.source import SEGMENT, SUMS
from kernels.gpu.transfer import to_mlx

METHODS = {"max": 0, "four-six": 1, "search": 2, "importance": 3, "hessian": 4}
"""METHOD of the kernels' text, see text/choice.h."""


@dataclass(frozen=True, slots=True)
class Coded:
    """The parts of a quantized weight [rows, K] as mlx arrays.

    codes: uint32 [rows, K * bits / 32]. scales: uint8 [rows, K / block], affine: like the weight. biases: affine only.
    sums: float32 [rows, segments, 6] and block_error: float32 [rows, K / block], when the error was measured.
    """

    codes: mx.array
    scales: mx.array
    biases: mx.array | None = None
    sums: mx.array | None = None
    block_error: mx.array | None = None


def check_weight(op: str, weight: mx.array, row: Format) -> None:
    """Raise TypeError or ValueError unless `weight` is 2-D, of a weight's dtype and of a width that fits `row`."""
    if weight.dtype not in KINDS:
        raise TypeError(f"[{op}] weight must be float32, float16 or bfloat16, got {weight.dtype}")
    if weight.ndim != 2:
        raise ValueError(f"[{op}] weight must have 2 dimensions, got {weight.ndim}")
    if reason := row.unfit(weight.shape):
        raise ValueError(f"[{op}] {reason}")


def encode(
    lib: Library,
    weight: mx.array,
    recipe: Recipe,
    g: mx.array | None = None,
    *,
    context: Context | None = None,
    measure: bool = False,
    outliers: bool = True,
    blocks: bool = False,
) -> Coded:
    """Quantize a weight [rows, K]; `g` is the multiplier, float32 [1], for formats with a tensor scale.

    `measure` sums the error in the same pass, with the statistics of outliers unless `outliers` is off; `blocks`
    also keeps the error per block. A method that needs more than `context` has does what `Method.otherwise` says.
    Raises TypeError for another dtype, ValueError for a shape or a context that does not fit.
    """
    row = recipe.format
    check_weight("encode", weight, row)
    if row.scale == "e4m3":
        inputs, parameters = _nvfp4_encoding(weight, recipe, g, context)
        return (
            _measure_nvfp4(lib, inputs, parameters, row, outliers, blocks)
            if measure
            else _encode_nvfp4(lib, inputs, parameters, row)
        )
    coded = (_encode_affine if row.affine else _encode_mx)(lib, weight, recipe)
    return _measured(lib, weight, row, coded) if measure else coded


def _units(rows: int, blocks: int) -> tuple[int, int, int]:
    return rows, -(-blocks // SEGMENT), SUMS


def _nvfp4_parameters(kind: int, recipe: Recipe) -> Parameters:
    three = recipe.format.tensor_scale
    return {"KIND": kind, "THREE": three, "MIN_SCALE": recipe.min_scale, "ZERO_SCALE": recipe.zero_scale}


def _multiplier(g: mx.array | None) -> mx.array:
    return mx.ones((1,)) if g is None else g


def _nvfp4_outputs(weight: mx.array, row: Format) -> list[tuple[tuple[int, ...], Any]]:
    rows, width = weight.shape
    return [((rows, width // 8), mx.uint32), ((rows, width // row.block), mx.uint8)]


def used_method(recipe: Recipe, context: Context | None, width: int) -> str:
    """The method that a kernel does for a recipe where `context` is what is known. Errors as for `Context.used`."""
    return _informed(recipe, context, width)[0]


def _informed(recipe: Recipe, context: Context | None, width: int) -> tuple[str, NDArray[np.uint32] | None]:
    """A method of `METHODS` and what its kernel reads: importance, two columns to a word [K / 2], or moments."""
    importance, moments = (context or Context()).used(recipe.method, width)
    if moments is not None:
        return "hessian", _moment_words(moments)
    if importance is not None:
        return "importance", importance.view(np.uint32)
    return recipe.method if recipe.method in ("max", "four-six") else "search", None


def _moment_words(triangles: NDArray[np.int16]) -> NDArray[np.uint32]:
    """Words [K / 16, 72] of two columns: each row of the triangle from the even column before the diagonal on."""
    whole = np.zeros((len(triangles), BLOCK, BLOCK), np.int16)
    whole[:, *np.triu_indices(BLOCK)] = triangles
    return np.concatenate([whole[:, i, i & ~1 :] for i in range(BLOCK)], axis=1).view(np.uint32)


def _nvfp4_encoding(
    weight: mx.array, recipe: Recipe, g: mx.array | None, context: Context | None
) -> tuple[list[mx.array], Parameters]:
    method, words = _informed(recipe, context, weight.shape[1])
    known = weight if words is None else to_mlx(words)  # a kernel that reads nothing of it gets what is there
    return [weight, _multiplier(g), known], _nvfp4_parameters(KINDS[weight.dtype], recipe) | {"METHOD": METHODS[method]}


def _encode_nvfp4(lib: Library, inputs: list[mx.array], parameters: Parameters, row: Format) -> Coded:
    outputs = _nvfp4_outputs(inputs[0], row)
    codes, scales = lib.launch("nvfp4_encode", inputs, parameters, outputs, inputs[0].size // row.block)
    return Coded(codes, scales)


def _measure_nvfp4(
    lib: Library, inputs: list[mx.array], parameters: Parameters, row: Format, outliers: bool, blocks: bool
) -> Coded:
    outputs = _nvfp4_outputs(inputs[0], row)
    units = _units(*outputs[1][0])
    outputs += [(units, mx.float32), (outputs[1][0] if blocks else (1,), mx.float32)]
    parameters = parameters | {"SEGMENT": SEGMENT, "OUTLIERS": outliers, "BLOCKS": blocks}
    items = 32 * units[0] * units[1]
    codes, scales, sums, error = lib.launch("nvfp4_measure", inputs, parameters, outputs, items)
    return Coded(codes, scales, None, sums, error if blocks else None)


def _encode_mx(lib: Library, weight: mx.array, recipe: Recipe) -> Coded:
    row, (rows, width) = recipe.format, weight.shape
    blocks = width // row.block
    parameters: Parameters = {"KIND": KINDS[weight.dtype], "BITS": row.bits, "CEIL": recipe.exponent == "ceil"}
    parameters["SEARCH"] = recipe.method == "search"
    outputs = [((rows, width * row.bits // 32), mx.uint32), ((rows, blocks), mx.uint8)]
    codes, scales = lib.launch("mx_encode", [weight], parameters, outputs, rows * blocks)
    return Coded(codes, scales)


def _bits_dtype(dtype: Any) -> Any:
    return mx.uint32 if dtype == mx.float32 else mx.uint16


def _encode_affine(lib: Library, weight: mx.array, recipe: Recipe) -> Coded:
    row, (rows, width) = recipe.format, weight.shape
    groups = width // row.block
    parameters: Parameters = {"KIND": KINDS[weight.dtype], "BITS": row.bits, "GROUP": row.block}
    parameters["SEARCH"] = recipe.method == "search"
    part = ((rows, groups), _bits_dtype(weight.dtype))
    outputs = [((rows, width * row.bits // 32), mx.uint32), part, part]
    lanes = weight.size // 16
    codes, scales, biases = lib.launch("affine_encode", [weight], parameters, outputs, lanes)
    return Coded(codes, scales.view(weight.dtype), biases.view(weight.dtype))


def _measured(lib: Library, weight: mx.array, row: Format, coded: Coded) -> Coded:
    decoded = decode(lib, coded, row, mx.float32)
    rows, blocks = weight.shape[0], weight.shape[1] // row.block
    units = _units(rows, blocks)
    outputs = [(units, mx.float32), ((rows, blocks), mx.float32)]
    parameters: Parameters = {"GROUP": row.block, "SEGMENT": SEGMENT}
    sums, error = lib.launch("compare", [weight, decoded], parameters, outputs, 32 * units[0] * units[1])
    return Coded(coded.codes, coded.scales, coded.biases, sums, error)


def decode(lib: Library, coded: Coded, row: Format, dtype: Any, g: mx.array | None = None) -> mx.array:
    """Weights [rows, K] of `dtype`, rounded to nearest even from float32; `g` as in `encode`."""
    rows, words = coded.codes.shape
    out = [((rows, words * 32 // row.bits), dtype)]
    packed = coded.codes.view(mx.uint8)
    parameters: Parameters = {"KIND": KINDS[dtype]}
    if row.scale == "e4m3":
        parameters["THREE"] = row.tensor_scale
        return lib.launch("nvfp4_decode", [packed, coded.scales, _multiplier(g)], parameters, out, rows * words)[0]
    parameters["BITS"] = row.bits
    if not row.affine:
        return lib.launch("mx_decode", [packed, coded.scales], parameters, out, rows * words)[0]
    assert coded.biases is not None
    bits = _bits_dtype(coded.scales.dtype)
    parameters |= {"GROUP": row.block, "STORED": KINDS[coded.scales.dtype]}
    inputs = [packed, coded.scales.view(bits), coded.biases.view(bits)]
    return lib.launch("affine_decode", inputs, parameters, out, rows * words)[0]


def round_trip(lib: Library, x: mx.array, recipe: Recipe, g: mx.array, extra: mx.array | None = None) -> mx.array:
    """What is left of activations [rows, K] after NVFP4: code * (scale * g * extra), in the dtype of `x`.

    `g`, `extra`: float32 [1]. With the weights stored as W / extra, a plain product then needs no scale.
    """
    check_weight("round_trip", x, recipe.format)
    parameters = _nvfp4_parameters(KINDS[x.dtype], recipe) | {"ABSORB": extra is not None}
    scales = mx.concatenate([g, _multiplier(extra)])
    items = x.shape[0] * x.shape[1] // recipe.format.block
    return lib.launch("nvfp4_round_trip", [x, scales], parameters, [(x.shape, x.dtype)], items)[0]


def product(lib: Library, x: mx.array, coded: Coded, row: Format, g: mx.array | None = None) -> mx.array:
    """X [M, K] times the transpose of an NVFP4 weight [O, K]: [M, O] in the dtype of x, sums in float32.

    For few rows: each weight is read once, and all M rows are held in registers. `g` as in `encode`.
    """
    outputs = coded.codes.shape[0]
    bits = _bits_dtype(x.dtype)
    parameters: Parameters = {"KIND": KINDS[x.dtype], "THREE": row.tensor_scale, "ROWS": x.shape[0]}
    inputs = [x, coded.codes.view(mx.uint8), coded.scales, _multiplier(g)]
    y = lib.launch("nvfp4_product", inputs, parameters, [((x.shape[0], outputs), bits)], 32 * -(-outputs // 4))[0]
    return y.view(x.dtype)
