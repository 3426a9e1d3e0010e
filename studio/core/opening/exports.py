"""Exports of ours, opened: layers as its manifest tells them, with weights that are decoded as they are read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels import METHODS, STORED_FORMATS, Format, Quantized, recipe
from kernels.backend import Backend
from kernels.machines import choose
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.containers.safetensors import Header
from studio.core.errors import CheckpointError
from studio.core.exporting.checks import Check, check_parts
from studio.core.exporting.contents import MANIFEST
from studio.core.exporting.manifest import Manifest
from studio.core.exporting.readback import StoredMatrix, read_quantized
from studio.core.exporting.records import Entry
from studio.core.layouts import Layout
from studio.core.model import Layer, Matrix, Model, Source, Stored
from studio.core.names import printable
from studio.core.planning.plan import Choice
from studio.core.results import LayerResult
from studio.core.running.scratch import Scratch
from studio.core.sources.plain import Plain


@dataclass(frozen=True, slots=True)
class Packed:
    """Matrices that an export holds in a format, see `Source`; rows are decoded to float32."""

    stored: Stored
    shape: tuple[int, ...]
    kept_dtype: str
    format: Format
    nbytes: int
    matrices: Mapping[str, StoredMatrix]
    header: Header
    layout: Layout

    @property
    def dtype(self) -> str:
        """See `Source`."""
        return "F32"

    @property
    def bits(self) -> int:
        """See `Source`."""
        return self.format.bits

    @property
    def meaning(self) -> str:
        """See `Source`."""
        return self.format.name

    def rows(self, matrix: Matrix, start: int, stop: int, scratch: Scratch | None = None) -> NDArray[np.float32]:
        """See `Source.rows`."""
        weights: NDArray[np.float32] = _decoder().decode(self.packed(matrix, start, stop))
        return weights

    def packed(self, matrix: Matrix, start: int, stop: int) -> Quantized:
        """See `Source.packed`."""
        own = self.matrices[matrix.name]
        return read_quantized(self.stored.file, self.header, self.layout, own, start, stop)


@cache
def _decoder() -> Backend:
    return choose("cpu")


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export of ours says of itself: its layout, and what was chosen and found for each layer of the model."""

    layout: Layout
    choices: tuple[Choice, ...]
    results: tuple[LayerResult, ...]
    exponent: str


def is_export(folder: Path) -> bool:
    """True for a folder with a manifest of ours, whatever it says."""
    return (folder / MANIFEST).is_file()


def exported_layers(folder: Path, stored: Mapping[str, Stored]) -> tuple[str, tuple[Layer, ...]]:
    """What quantized an export of ours, and its layers in the order of its manifest.

    Raises CheckpointError when the manifest is damaged, or is not that of these tensors.
    """
    manifest = Manifest(folder)
    headers: dict[str, Header] = {}
    for item in stored.values():
        headers.setdefault(item.file.path.name, Header({}, {})).tensors[item.tensor.name] = item.tensor
    layers: list[Layer] = []
    left = set(stored)
    for entry in manifest.entries():
        header = headers.get(entry.shard, Header({}, {}))
        check = Check(entry.result, entry.matrices, entry.kept, None)
        check_parts(check, header, folder / entry.shard)
        left.difference_update(part.name for part in check.parts)
        layers += _layers(entry, stored, header, manifest.layout)
    if left:
        raise CheckpointError(f"does not know the tensor {printable(min(left))}", file=folder / MANIFEST)
    formats = sorted({layer.source.format.name for layer in layers if isinstance(layer.source, Packed)})
    return f"by NVFP4 Studio, layout {manifest.layout.name}, {', '.join(formats)}", tuple(layers)


def _layers(entry: Entry, stored: Mapping[str, Stored], header: Header, layout: Layout) -> Iterator[Layer]:
    result = entry.result
    if not entry.matrices:
        whole = len(entry.kept) == 1
        for part in entry.kept:  # one that was cut is a layer a piece
            name = result.name if whole else part.name.removesuffix(".weight")
            yield _layer(result, name, Plain(stored[part.name]), ())
        return
    codes = next(part.name for part in entry.matrices[0].parts if part.content == "codes")
    named = {matrix.name: matrix for matrix in entry.matrices}
    kept_dtype = result.dtype if result.dtype in WEIGHT_DTYPES else "BF16"
    row, nbytes = STORED_FORMATS[result.format], result.nbytes_out
    source = Packed(stored[codes], result.shape, kept_dtype, row, nbytes, named, header, layout)
    yield _layer(result, result.name, source, tuple(_matrices(entry.matrices)))


def _matrices(matrices: Sequence[StoredMatrix]) -> Iterator[Matrix]:
    first = 0
    for matrix in matrices:
        yield Matrix(matrix.name, matrix.rows, matrix.columns, first)
        first += matrix.rows * matrix.columns


def _layer(result: LayerResult, name: str, source: Source, matrices: tuple[Matrix, ...]) -> Layer:
    figures = f"{result.format}, {result.bits_per_weight:.3g} bits a weight, relative error {result.rel_err:.4f}"
    told = figures if result.quantized else result.reason
    told += f"; stored times 2**{result.lift}" if result.lift else ""
    return Layer(name, result.role, result.block, source, matrices, told)  # type: ignore[arg-type]


def is_exported(model: Model) -> bool:
    """True for an opened export of ours."""
    return any(isinstance(layer.source, Packed) for layer in model.layers)


def exported(model: Model) -> Exported | None:
    """What an export of ours says of itself, None for any other checkpoint. Raises CheckpointError when damaged."""
    if not is_exported(model):
        return None
    manifest = Manifest(model.folder)
    by_name = {entry.result.name: entry.result for entry in manifest.entries()}
    exponent = str(manifest.plan.get("exponent", "ceil"))
    choices = tuple(_choice(layer, by_name.get(layer.name), exponent) for layer in model.layers)
    results = tuple(by_name[choice.layer.name] for choice in choices if choice.layer.name in by_name)
    return Exported(manifest.layout, choices, results, exponent)


def _choice(layer: Layer, result: LayerResult | None, exponent: str) -> Choice:
    if isinstance(layer.source, Packed):
        method = result.method if result and result.method in METHODS else "max"
        return Choice(layer, recipe(layer.source.format.name, "floor" if exponent == "floor" else "ceil", method))
    return Choice(layer, None, result.reason if result else layer.obstacle)
