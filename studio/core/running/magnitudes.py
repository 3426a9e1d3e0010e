"""Magnitudes: how large the weights of layers are, and their blocks of 16, in powers of two; reads each weight once."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.core.model import Layer, Matrix
from studio.core.planning.lifting import Magnitudes
from studio.core.running.engine import Engine
from studio.core.running.reading import Slab, read_slab, slabs
from studio.core.running.tasks import bundles

_BIAS = 127
_BLOCK = 16


def magnitudes(engine: Engine, layers: Sequence[Layer], blocked: frozenset[str]) -> Iterator[tuple[Layer, Magnitudes]]:
    """The magnitudes of layers in BF16 or F32, in their order; blocks are counted of those named in `blocked`."""
    steps = (step for layer in layers for step in _steps(engine, layer, blocks=layer.name in blocked))
    with engine.tasks() as tasks:
        found = (part for parts in tasks.in_order(partial(_run, bundle) for bundle in bundles(steps)) for part in parts)
        for layer in layers:
            total = Magnitudes()
            for part in found:
                if part is None:
                    break
                total = total.merged(part)
            yield layer, total


@dataclass(frozen=True, slots=True)
class _Step:
    """A slab to look at; None is the end of its layer."""

    nbytes: int
    job: Callable[[], Magnitudes] | None


def _run(bundle: list[_Step]) -> list[Magnitudes | None]:
    return [step.job() if step.job else None for step in bundle]


def _steps(engine: Engine, layer: Layer, *, blocks: bool) -> Iterator[_Step]:
    for matrix in layer.matrices or [layer.whole]:
        for slab in slabs(layer, matrix, engine.slab_nbytes):
            yield _Step(slab.nbytes, partial(_of_slab, engine, slab, _block(matrix) if blocks else 0))
    yield _Step(0, None)


def _block(matrix: Matrix) -> int:
    return 0 if matrix.columns % _BLOCK else _BLOCK


def _of_slab(engine: Engine, slab: Slab, block: int) -> Magnitudes:
    return of_weights(read_slab(slab, engine.scratch), block)


def of_weights(weights: NDArray[Any], block: int = 0) -> Magnitudes:
    """The magnitudes of weights in bf16 or fp32; `block` of them are counted together, 0 for none.

    They are compared as whole numbers: without the sign their bits are in the order of what they mean.
    """
    kind, shift = (np.dtype(np.uint16), 7) if weights.dtype.itemsize == 2 else (np.dtype(np.uint32), 23)
    bits: NDArray[Any] = weights.reshape(-1).view(kind) & kind.type(np.iinfo(kind).max >> 1)
    largest = int(bits.max(initial=0))
    if largest >> shift == 2 * _BIAS + 1:
        return Magnitudes(finite=False)
    if not largest:
        return Magnitudes()
    smallest = int((bits - kind.type(1)).min()) + 1  # zero becomes the largest of all
    octaves = _octaves(bits, block, shift) if block else {}
    peak = float(np.array([largest], kind).view(weights.dtype)[0])
    return Magnitudes((smallest >> shift) - _BIAS, (largest >> shift) - _BIAS, peak, octaves)


def _octaves(bits: NDArray[Any], block: int, shift: int) -> Counter[int]:
    """Exponent -> blocks whose largest weight has it; blocks of zeros are left out."""
    largest = bits
    while block > 1:
        largest = np.maximum(largest[0::2], largest[1::2])
        block //= 2
    counts = np.bincount(largest >> shift)
    counts[0] -= np.count_nonzero(largest == 0)
    return Counter({int(e) - _BIAS: int(counts[e]) for e in np.flatnonzero(counts)})
