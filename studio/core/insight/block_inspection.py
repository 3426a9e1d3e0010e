"""One block of one row under the microscope: each weight, its code, the scale, and what each weight became."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kernels import Quantized
from kernels.fidelity import relative_error
from kernels.reference import decode, e2m1_decode, multiplier, scale_values
from kernels.streams import unpack_stream
from studio.core.errors import PlanError
from studio.core.insight.inspection import Steps, all_of, looked_at, matrix_census
from studio.core.names import printable
from studio.core.planning.plan import Choice, choice_text
from studio.core.results import LayerResult
from studio.core.running.encoding import encode, rows_of
from studio.core.running.engine import Engine
from studio.core.running.reading import Slab, read_slab
from studio.core.running.tasks import Tasks


@dataclass(frozen=True, slots=True)
class BlockDetail:
    """One block of one row: each weight, its code, and what it became.

    scale_code: the byte of the scale, None for integer formats. scale: its value, g: the multiplier of the matrix.
    levels: every value that a weight of this block can become, ascending; empty for 8 bits.
    """

    layer: str
    matrix: int
    row: int
    block: int
    column: int
    format: str
    method: str
    source: tuple[float, ...]
    codes: tuple[int, ...]
    decoded: tuple[float, ...]
    scale: float
    scale_code: int | None
    bias: float | None
    g: float
    levels: tuple[float, ...]

    @property
    def title(self) -> str:
        """Format and method."""
        return choice_text(self.format, self.method)

    @property
    def rel_err(self) -> float:
        """Relative error of the block."""
        errors = math.fsum((w - q) ** 2 for w, q in zip(self.source, self.decoded, strict=True))
        return relative_error(errors, math.fsum(w * w for w in self.source))


def inspect_block(
    engine: Engine, choice: Choice, matrix: int, row: int, block: int, result: LayerResult | None = None
) -> BlockDetail:
    """All of `block_steps` at once."""
    return all_of(block_steps(engine, choice, matrix, row, block, result))


def block_steps(
    engine: Engine, choice: Choice, matrix: int, row: int, block: int, result: LayerResult | None = None
) -> Steps[BlockDetail]:
    """One block of the chosen format: block `block` of row `row` of a matrix.

    The tensor scale is that of `result`, otherwise the matrix is read for its maximum. Raises PlanError when the layer
    is kept, IndexError for a block that is not there.
    """
    layer, recipe = choice.layer, looked_at(choice.recipe)
    if recipe is None:
        raise PlanError(f"{printable(layer.name)} is kept as it is: it has no blocks")
    shape, size = layer.matrices[matrix], recipe.format.block
    if not (0 <= row < shape.rows and 0 <= block < shape.columns // size):
        raise IndexError(f"[block_steps] row {row}, block {block} is outside of {shape.rows} x {shape.columns}")
    g = (yield from _multiplier_steps(engine, choice, matrix, result)) if recipe.format.tensor_scale else 1.0
    first = row // recipe.format.height * recipe.format.height
    whole = np.ascontiguousarray(read_slab(Slab(layer, shape, first, min(first + recipe.format.height, shape.rows))))
    quantized, _ = encode(engine.backend, layer, shape, whole, recipe, g)
    whole, quantized = whole[row - first :][:1], rows_of(quantized, slice(row - first, row - first + 1))
    weight = whole[:, block * size : (block + 1) * size].astype(np.float32)
    place = matrix, row, block
    return _block_detail(layer.name, recipe.method, place, weight, _one_block(quantized, block), g)


def _one_block(row: Quantized, block: int) -> Quantized:
    """A block of a quantized row: a block alone could not be quantized as it is among the others."""
    step = row.format.block * row.format.bits // 8
    scales, biases = (part if part is None else part[:, block : block + 1] for part in (row.scales, row.biases))
    assert scales is not None
    return replace(row, codes=row.codes[:, block * step : (block + 1) * step], scales=scales, biases=biases)


def _multiplier_steps(engine: Engine, choice: Choice, matrix: int, result: LayerResult | None) -> Steps[float]:
    if result and len(result.tensor_scales) == len(choice.layer.matrices):
        return result.tensor_scales[matrix]
    with Tasks(engine.pool) as tasks:
        census = yield from matrix_census(engine, tasks, choice, matrix)
    assert choice.recipe is not None
    return float(multiplier(census.max_abs, choice.recipe))


def _block_detail(
    name: str, method: str, place: tuple[int, int, int], weight: NDArray[np.float32], quantized: Quantized, g: float
) -> BlockDetail:
    row = quantized.format
    codes = unpack_stream(quantized.codes, row.bits, len(weight[0]))[0]
    scale = float(scale_values(quantized)[0, 0])
    bias = None if quantized.biases is None else float(quantized.biases[0, 0])
    return BlockDetail(
        name,
        *place,
        column=place[2] * row.block,
        format=row.name,
        method=method,
        source=tuple(float(w) for w in weight[0]),
        codes=tuple(int(code) for code in codes),
        decoded=tuple(float(q) for q in decode(quantized)[0]),
        scale=scale,
        scale_code=int(quantized.scales[0, 0]) if row.byte_scales else None,
        bias=bias,
        g=g,
        levels=_block_levels(quantized, scale * g, bias),
    )


def _block_levels(quantized: Quantized, scale: float, bias: float | None) -> tuple[float, ...]:
    if quantized.format.bits != 4:
        return ()
    codes = np.arange(16, dtype=np.uint8)
    values = codes * scale + bias if bias is not None else e2m1_decode(codes) * scale
    return tuple(sorted({float(value) + 0.0 for value in values}))
