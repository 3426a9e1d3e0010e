"""Checks against the checkpoint that a folder was made from: whether some rows of each layer decode to its weights."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from studio.core.architectures import base_name
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.errors import CheckpointError
from studio.core.exporting.contents import MANIFEST
from studio.core.exporting.manifest import Manifest
from studio.core.findings.finding import Observation
from studio.core.findings.folder import Folder
from studio.core.model import Layer, Matrix, Model
from studio.core.opening.checkpoint import open_model

_ROWS = 16
_SAMPLE = 1 << 20
"""Weights of a layer that are compared at most."""

_ALIKE, _UNLIKE = 0.95, 0.8
"""Cosines: four bits keep 0.995 of random weights and three bits 0.98; other weights have about 0."""

_RATIO = 1.5

_RATIO_OF_FOUR_BITS, _ERROR_OF_FOUR_BITS = 1.05, 0.2
"""NVFP4 of weights that were not changed before has their size to a percent, and an error of 0.08 to 0.12."""

_FEWEST_BITS = 2
"""Fewer keep so little that nothing can be told."""

_EVEN = 0.1
"""Of columns that were not multiplied the factors that fit best differ by less."""


Owned = tuple[Layer, Matrix]


def compared(folder: Folder, source: Model) -> Iterator[Observation]:
    """Packed layers that are not those of `source`; some rows of each matrix are read, from both."""
    theirs = owners(source)
    lifted = _is_lifted(folder)
    readable = found = False
    with _layers(folder) as layers:
        for layer in layers:
            pairs = list(_pairs(folder, layer, theirs))
            readable = readable or (_is_packed(folder, layer) and bool(layer.matrices))
            found = found or bool(pairs)
            close = layer.source.format is not None and layer.source.format.name.startswith("nvfp4")
            seen = [one for mine, other in pairs for one in _seen(mine, other, lifted=lifted, close=close)]
            if seen:
                swapped = all(one.kind == "nibbles-swapped" for one in seen) and len(seen) == len(pairs)
                other = next((one for one in seen if one.kind != "nibbles-swapped"), seen[0])
                named = replace(other, where=_module(folder, layer))
                yield named if swapped else replace(named, kind="differs-from-source")
    if readable and not found:
        yield Observation("source-unlike", "", "no packed layer has a name and shape of the source")


@contextmanager
def _layers(folder: Folder) -> Iterator[Sequence[Layer]]:
    """The layers under the names, and in the order, of the source, as far as opening it as a model tells them."""
    with ExitStack() as stack:
        layers: Sequence[Layer] = ()
        with suppress(CheckpointError):
            layers = stack.enter_context(open_model(folder.path)).layers
        yield layers or folder.layers


def _module(folder: Folder, layer: Layer) -> str:
    """The module that holds the codes of a layer, by its stored name; the name of the layer where they are several."""
    stored = base_name(layer.tensor.name)
    return stored if stored in folder.modules else layer.name


def _is_packed(folder: Folder, layer: Layer) -> bool:
    return layer.name in folder.packed or layer.tensor.dtype not in WEIGHT_DTYPES


def _is_lifted(folder: Folder) -> bool:
    """True for an export of ours of which layers are stored times a power of two, or may be."""
    if not (folder.place / MANIFEST).is_file():
        return False
    try:
        return any(entry.result.lift for entry in Manifest(folder.place).entries())
    except CheckpointError:
        return True


def agrees(folder: Folder, source: Model) -> bool:
    """True when rows of some packed layer are those of `source`."""
    theirs = owners(source)
    with _layers(folder) as layers:
        for mine, other in (pair for layer in layers for pair in _pairs(folder, layer, theirs)):
            with suppress(CheckpointError):
                if not any(_compared(mine, other, lifted=False, close=False)):
                    return True
    return False


def owners(source: Model) -> dict[str, Owned]:
    """The matrices of a checkpoint with their layers, by name."""
    return {matrix.name: (layer, matrix) for layer in source.layers for matrix in layer.matrices}


def _pairs(folder: Folder, layer: Layer, theirs: Mapping[str, Owned]) -> Iterator[tuple[Owned, Owned]]:
    """The matrices of a packed layer with those of the source that have their names and shapes."""
    for matrix in layer.matrices if _is_packed(folder, layer) else ():
        other = theirs.get(matrix.name)
        if other and (other[1].rows, other[1].columns) == (matrix.rows, matrix.columns):
            yield (layer, matrix), other


def _seen(mine: Owned, theirs: Owned, *, lifted: bool, close: bool) -> list[Observation]:
    with suppress(CheckpointError):  # what can not be read is found where it is read
        return list(_compared(mine, theirs, lifted=lifted, close=close))
    return []


def _compared(mine: Owned, theirs: Owned, *, lifted: bool, close: bool) -> Iterator[Observation]:
    layer, matrix = mine
    if layer.source.bits < _FEWEST_BITS:
        return
    count = min(matrix.rows, max(min(_ROWS, _SAMPLE // matrix.columns), 1))
    starts = sorted({0, (matrix.rows - count) // 3, (matrix.rows - count) * 2 // 3, matrix.rows - count})
    pairs = [[x.source.rows(m, at, at + count).astype(np.float64) for x, m in (mine, theirs)] for at in starts]
    likes = [cosine(a, b) for a, b in pairs]
    at = int(np.argmin(likes))
    rows = f" in rows from {starts[at]:,}" if max(likes) >= _ALIKE else ""
    a, b = pairs[at]
    if likes[at] < _UNLIKE:
        swapped = cosine(_swapped(a), b) if matrix.columns % 2 == 0 else 0.0
        kind = "nibbles-swapped" if swapped > _ALIKE and not rows else "differs-from-source"
        more = f", {swapped:.3f} when swapped" if swapped > _ALIKE else ""
        yield Observation(kind, layer.name, f"cosine {likes[at]:.3f} with the source{rows}{more}")
        return
    a, b = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    ratio = float(np.linalg.norm(a) / np.linalg.norm(b)) if b.any() else 1.0
    error = float(np.linalg.norm(a - b) / np.linalg.norm(b)) if b.any() else 0.0
    scaled = _is_scaled(a, b)
    most = _RATIO_OF_FOUR_BITS if close and not scaled else _RATIO
    if not lifted and not 1 / most < ratio < most:
        yield Observation("differs-from-source", layer.name, f"{ratio:.3g} times as large as in the source")
    elif not lifted and close and not scaled and error > _ERROR_OF_FOUR_BITS:
        evidence = f"relative error {error:.2f}, NVFP4 of these weights has about 0.1"
        yield Observation("differs-from-source", layer.name, evidence)


def _is_scaled(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """True where columns were multiplied on purpose, as AWQ does: what is left then is the error of four bits."""
    squares = np.square(b).sum(axis=0)
    factors = (a * b).sum(axis=0) / np.where(squares, squares, 1)
    left = np.linalg.norm(a - b * factors) / max(float(np.linalg.norm(a)), 1e-300)
    return bool(np.std(factors) > _EVEN * abs(float(np.mean(factors))) and left < _ERROR_OF_FOUR_BITS)


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
