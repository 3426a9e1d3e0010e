"""Which weights share a scale: from the config where it says so, from the shapes where they leave no choice."""

import math

from studio.core.model import LONGEST_ROW, Stored
from studio.core.names import printable
from studio.core.sources.declared import COLUMN, MX, ROW, TENSOR, Claims, Granularity
from studio.core.sources.found import MisfitError, UnreadError
from studio.core.sources.scales import SCALE_DTYPES, Scales

_SQUARES = (Granularity(32, 32), Granularity(64, 64), Granularity(128, 128))
_USUAL = (TENSOR, ROW, MX, Granularity(1, 128), *_SQUARES)
"""Blocks in use. No two of them cut a matrix into equally many parts at different places."""

Shape = tuple[int, ...]
Pair = tuple[int, int]


def check_width(weight: Stored) -> None:
    """Raise UnreadError for rows that are longer than a slab may be."""
    if weight.tensor.shape and weight.tensor.shape[-1] > LONGEST_ROW:
        raise UnreadError(f"{weight.tensor.dtype} in rows of more than {LONGEST_ROW:,} weights")


def scales_of(weight: Stored, scale: Stored, claims: Claims, *, input_first: bool) -> Scales:
    """The scales of an FP8 weight of any shape, `input_first` for a stack [experts, in, out].

    Raises UnreadError for what can not be told for certain, or what the config contradicts.
    """
    check_width(weight)
    tensor, dtype = weight.tensor, scale.tensor.dtype
    if dtype not in SCALE_DTYPES:
        raise UnreadError(f"{tensor.dtype} with scales of {dtype}")
    grid = _grid(tensor.shape, scale.tensor.shape, input_first=input_first)
    part = _flat(tensor.shape if grid is None else tensor.shape[-2:])
    if grid is None and math.prod(scale.tensor.shape) == 1:
        grid = (1, 1)
    usual = (*_USUAL, COLUMN) if len(tensor.shape) == 3 else _USUAL
    blocks = {g.block(part) for g in claims.granularities or usual if grid and _parts(part, g) == grid}
    if grid is None or len(blocks) != 1:
        raise _contradiction(weight, scale, claims)
    block = blocks.pop()
    if dtype == "U8" and not claims.exponents and block != MX.block(part):
        what = f"{tensor.dtype} with U8 scales of {block[0]} x {block[1]}"
        raise UnreadError(f"{what}: exponents or numbers, it can not be told")
    return Scales(scale, part[0], block, grid)


def _grid(shape: Shape, scales: Shape, *, input_first: bool) -> Pair | None:
    """Scales down and across of a matrix, or of each matrix of a stack; None for what is neither."""
    if len(shape) == 2:
        return _matrix_grid(shape, scales)
    if len(shape) != 3 or not scales or scales[0] != shape[0]:
        return None
    _, rows, columns = shape
    if len(scales) < 3:
        of_output = {columns: (1, columns)} if input_first else {rows: (rows, 1)}
        return {**of_output, 1: (1, 1)}.get(math.prod(scales[1:]))
    down, across = scales[1], math.prod(scales[2:])
    if across == 1 and down == columns and (input_first or down != rows):
        return 1, columns
    return (down, across) if len(scales) == 3 else None


def _matrix_grid(shape: Shape, scales: Shape) -> Pair | None:
    if math.prod(scales) == 1:
        return 1, 1
    if scales == shape[:1]:
        return shape[0], 1
    if len(scales) == 4 and scales[1] == scales[3] == 1:
        return scales[0], scales[2]
    return (scales[0], scales[1]) if len(scales) == 2 else None


def _flat(shape: Shape) -> Pair:
    """All rows above one another."""
    columns = shape[-1] if shape else 1
    return math.prod(shape) // columns, columns


def _parts(shape: Pair, granularity: Granularity) -> Pair:
    """How many blocks there are down and across."""
    rows, columns = granularity.block(shape)
    return -(-shape[0] // rows), -(-shape[1] // columns)


def _contradiction(weight: Stored, scale: Stored, claims: Claims) -> UnreadError:
    shapes = f"{printable(list(weight.tensor.shape))} has scales {printable(list(scale.tensor.shape))}"
    says = (
        f"the config says {claims}" if claims.granularities else "they fit no blocks in use and the config names none"
    )
    return MisfitError(f"{weight.tensor.dtype} {shapes}, but {says}")
