"""Checks against the checkpoint that a folder was made from: whether some rows of each layer decode to its weights."""

from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from studio.core.errors import CheckpointError
from studio.core.exporting.contents import MANIFEST
from studio.core.findings.finding import Observation
from studio.core.findings.folder import Folder
from studio.core.model import Layer, Model

_ROWS = 16
_SAMPLE = 1 << 20
"""Weights of a layer that are compared at most."""

_ALIKE, _UNLIKE = 0.95, 0.8
"""Cosines: four bits keep 0.995 of random weights and three bits 0.98; other weights have about 0."""

_RATIO = 1.5


def compared(folder: Folder, source: Model) -> Iterator[Observation]:
    """Packed layers that are not those of `source`; some rows of each are read, from both."""
    pairs = [(layer, source.by_name[layer.name]) for layer in folder.layers if layer.name in source.by_name]
    packed = [(mine, theirs) for mine, theirs in pairs if mine.name in folder.packed and _divided_alike(mine, theirs)]
    if folder.packed and not packed:
        yield Observation("source-unlike", "", "no packed layer has a name and shape of the source")
    lifted = (folder.place / MANIFEST).is_file()
    for mine, theirs in packed:
        with suppress(CheckpointError):  # what can not be read is found where it is read
            yield from _compared(mine, theirs, lifted=lifted)


def agrees(folder: Folder, source: Model) -> bool:
    """True when rows of some packed layer are those of `source`."""
    for layer in folder.layers:
        theirs = source.by_name.get(layer.name)
        if layer.name in folder.packed and theirs and _divided_alike(layer, theirs):
            with suppress(CheckpointError):
                if not any(_compared(layer, theirs, lifted=False)):
                    return True
    return False


def _divided_alike(mine: Layer, theirs: Layer) -> bool:
    sizes = [[(matrix.rows, matrix.columns) for matrix in layer.matrices] for layer in (mine, theirs)]
    return bool(sizes[0]) and sizes[0] == sizes[1]


def _compared(mine: Layer, theirs: Layer, *, lifted: bool) -> Iterator[Observation]:
    rows, columns = mine.matrices[0].rows, mine.matrices[0].columns
    count = min(rows, max(min(_ROWS, _SAMPLE // columns), 1))
    start = (rows - count) // 2
    a, b = (layer.source.rows(layer.matrices[0], start, start + count).astype(np.float64) for layer in (mine, theirs))
    like = cosine(a, b)
    if like < _UNLIKE:
        swapped = cosine(_swapped(a), b) if columns % 2 == 0 else 0.0
        kind = "nibbles-swapped" if swapped > _ALIKE else "differs-from-source"
        evidence = f"cosine {like:.3f} with the source" + (f", {swapped:.3f} when swapped" if swapped > _ALIKE else "")
        yield Observation(kind, mine.name, evidence)
        return
    ratio = float(np.linalg.norm(a) / np.linalg.norm(b)) if b.any() else 1.0
    if not lifted and not 1 / _RATIO < ratio < _RATIO:
        yield Observation("differs-from-source", mine.name, f"{ratio:.3g} times as large as in the source")


def cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The cosine of two arrays as vectors; 1 for two of zeros, 0 where one is."""
    lengths = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if not all(lengths):
        return float(lengths[0] == lengths[1])
    return float(np.vdot(a, b) / (lengths[0] * lengths[1]))


def _swapped(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows with the two weights of every pair swapped."""
    pairs: NDArray[np.float64] = rows.reshape(len(rows), -1, 2)[:, :, ::-1]
    return pairs.reshape(rows.shape)
