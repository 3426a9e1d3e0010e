"""Order of the two codes of a byte, told without a source from what matrices of one neuron have in common.

A neuron of a feed-forward block is a row of `up_proj` and a column of `down_proj`, and the sizes of both go together,
likely or contrarily (AWQ divides the one by what it multiplies the other with). Rows keep their places whatever is
done to bytes. So of neighbours j and j + 1 that share bytes, differences of the sizes of rows and of columns must go
together in the sense in which those of whole pairs of columns do, which swapping does not change. In trained models
(demo-llama, demo-moe, SmolLM2: 82 matrices) both scores are 3 to 15 and agree; without any relation they are normal
numbers, and nothing is said.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from studio.core.findings.finding import Observation, Reading, Seen
from studio.core.findings.folder import Folder
from studio.core.findings.modules import Module
from studio.core.findings.scales import VALUES, slabs

_DOWN, _UP = ".down_proj", ".up_proj"
_SURE = 4.0
"""Both scores of a matrix by chance: less than once in 10**8."""

_SQUARES = np.square(np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32))
_TINY = 1e-12


def readings(folder: Folder) -> Iterator[Reading]:
    """Pairs of matrices of NVFP4, of which some are to be read."""
    for name, module in folder.modules.items():
        up = folder.modules.get(name.removesuffix(_DOWN) + _UP) if name.endswith(_DOWN) else None
        if up and up.is_nvfp4 and module.is_nvfp4 and _fit(module, up):
            yield Reading(name, 0, partial(_examine, module, up))


def _fit(down: Module, up: Module) -> bool:
    alike = len(down.codes.tensor.shape) == len(up.codes.tensor.shape) and down.stack == up.stack
    return alike and up.height == _width(down) and up.height % 4 == 0


def _width(module: Module) -> int:
    return 16 * module.scales.tensor.shape[-1] if module.scales else 0


def _examine(down: Module, up: Module) -> Iterator[Seen]:
    """Of stacks of experts the first is looked at."""
    rows, first = _first_rows(up), next(slabs(down), None)
    if first is None or len(rows) != _width(down):
        return
    scales, codes = first
    inside, between = scores(rows, _column_sizes(scales[: down.height], codes[: down.height]))
    if abs(between) > _SURE and inside * np.sign(between) < -_SURE:
        evidence = f"neighbours follow {up.name} with a score of {inside:.1f}, pairs of them with {between:.1f}"
        yield Observation("nibbles-swapped", down.name, evidence)


def _first_rows(up: Module) -> NDArray[np.float64]:
    """The sizes of the rows of the first matrix."""
    sizes: list[NDArray[np.float64]] = []
    for scales, _ in slabs(up):
        sizes.append(_row_sizes(scales))
        if sum(map(len, sizes)) >= up.height:
            break
    return np.concatenate(sizes)[: up.height] if sizes else np.empty(0)


def scores(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> tuple[float, float]:
    """How differences of sizes go together: of neighbours that share a byte, and of neighbouring pairs of these."""
    a, b = np.log(rows + _TINY), np.log(columns + _TINY)
    pairs = a[::2] + a[1::2], b[::2] + b[1::2]
    inside = _score(a[::2] - a[1::2], b[::2] - b[1::2])
    return inside, _score(pairs[0][::2] - pairs[0][1::2], pairs[1][::2] - pairs[1][1::2])


def _score(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The sum of products by its standard deviation when signs are random: normal when nothing goes together."""
    products = a * b
    return float(products.sum() / np.sqrt(np.square(products).sum() + _TINY))


def _row_sizes(scales: NDArray[np.uint8]) -> NDArray[np.float64]:
    values = np.nan_to_num(VALUES[scales & 0x7F]).astype(np.float64)
    sizes: NDArray[np.float64] = np.sqrt(np.square(values).mean(axis=1))
    return sizes


def _column_sizes(scales: NDArray[np.uint8], codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    values = np.square(np.nan_to_num(VALUES[scales & 0x7F])).repeat(8, axis=1)
    squares = np.stack([_SQUARES[codes & 7] * values, _SQUARES[codes >> 4 & 7] * values], axis=-1)
    sizes: NDArray[np.float64] = np.sqrt(squares.astype(np.float64).mean(axis=0)).reshape(-1)
    return sizes
