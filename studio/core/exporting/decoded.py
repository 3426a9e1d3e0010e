"""Decoded checkpoints: what a plan or an export makes of a model, as plain weights that any runtime loads.

Quantized layers become float32, which holds every decoded weight exactly; kept ones stay as they are stored.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from kernels import Quantized
from kernels.backend import Backend
from studio.core.containers.dtypes import BITS
from studio.core.containers.safetensors import Tensor, place, read_header
from studio.core.errors import CheckpointError
from studio.core.events import Progress
from studio.core.exporting.manifest import Manifest
from studio.core.exporting.readback import chunks
from studio.core.exporting.shard_writer import agreed_scale
from studio.core.exporting.writing import writing
from studio.core.layouts import Layout
from studio.core.layouts.completion import exported_config
from studio.core.layouts.documents import json_document
from studio.core.layouts.placement import Placement, stored_nbytes
from studio.core.model import Layer, Matrix, Model, Stored
from studio.core.names import printable
from studio.core.opening.export_sources import Packed
from studio.core.planning.plan import Choice
from studio.core.running.engine import Engine, Sink
from studio.core.running.pipeline import PipelineEvent, run, work
from studio.core.running.reading import Slab, read_slab, slabs

FILE = "model.safetensors"
INPUT_SCALES = "input_scales.json"
"""Matrix -> the format of its inputs and their multiplier, where a runtime is to quantize them as readers do: 0 where
they find it as they run, of all inputs (fp8-tensor), of each (fp8-channel) or of 128 numbers of each (fp8-block)."""

_PACKED = "_packed"
_CHUNK = 4 << 20

Wanted = tuple[str, str, tuple[int, ...]]
"""Name, dtype and shape of a tensor to write."""


class PlainWriter(Sink):
    """A sink that decodes what it gets into one safetensors file of `tensors`; use it as a context manager.

    The file has its full size from the start. `layout` rounds tensor scales as its files do.
    """

    def __init__(self, folder: Path, tensors: Iterable[Wanted], backend: Backend, layout: Layout | None = None) -> None:
        self._backend, self._layout = backend, layout
        path = folder / FILE
        head, header = place(sorted(tensors, key=lambda wanted: -BITS[wanted[1]]), {"format": "pt"})
        self._tensors = header.tensors
        with writing(path):
            folder.mkdir(parents=True, exist_ok=True)
            allocate(path, len(head) + sum(tensor.nbytes for tensor in self._tensors.values()))
            self._bytes = np.memmap(path, np.uint8, "r+")
        self._bytes[: len(head)] = np.frombuffer(head, np.uint8)

    def tensor(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a tensor, to be written."""
        found: Tensor = self._tensors[name]
        return np.asarray(self._bytes)[found.start : found.start + found.nbytes]

    def write_rows(self, tensor: str, matrix: Matrix, start: int, rows: NDArray[np.float32]) -> None:
        """Write decoded rows of a matrix, from row `start` on, to where they lie in a tensor of float32."""
        _rows_of(self.tensor(tensor).view(np.float32), matrix)[start : start + len(rows)] = rows

    def agreed_scale(self, g: float) -> float:
        """See `Sink.agreed_scale`."""
        return agreed_scale(self._layout, g) if self._layout else g

    def write_slab(self, slab: Slab, quantized: Quantized) -> None:
        """See `Sink.write_slab`."""
        self.write_rows(slab.layer.weight_name, slab.matrix, slab.start, self._backend.decode(quantized))

    def write_kept(self, layer: Layer, offset: int, data: NDArray[np.uint8]) -> None:
        """See `Sink.write_kept`."""
        self.tensor(layer.weight_name)[offset : offset + data.size] = data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._bytes


def allocate(path: Path, nbytes: int) -> None:
    """Make a file whose bytes are all there: one that is mapped must not meet a full disk later."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, nbytes)
        os.ftruncate(descriptor, nbytes)
    finally:
        os.close(descriptor)


def _rows_of(flat: NDArray[np.float32], matrix: Matrix) -> NDArray[np.float32]:
    """The elements of a tensor that are those of a matrix, [rows, columns], as a view."""
    steps = (4 * (matrix.row_step or matrix.columns), 4 * matrix.column_step)
    return np.lib.stride_tricks.as_strided(flat[matrix.first :], (matrix.rows, matrix.columns), steps)


def write_planned(
    engine: Engine, model: Model, choices: Sequence[Choice], folder: Path, layout: Layout | None = None
) -> Iterator[PipelineEvent]:
    """Write what `choices` make of a model, with the weights that an export in `layout` would hold, and its config."""
    _write_config(folder, model)
    with PlainWriter(folder, map(_wanted, choices), engine.backend, layout) as sink:
        yield from run(engine, choices, sink)


def _wanted(choice: Choice) -> Wanted:
    return choice.layer.weight_name, "F32" if choice.recipe else choice.layer.kept_dtype, choice.layer.shape


def planned_nbytes(choices: Iterable[Choice]) -> int:
    """Bytes of the tensors that `write_planned` writes."""
    return sum(stored_nbytes(dtype, shape) for _, dtype, shape in map(_wanted, choices))


def write_exported(engine: Engine, source: Model, export: Model, folder: Path) -> Iterator[PipelineEvent]:
    """Write the decoded weights of an export, whatever its layout, in the names of its `source`.

    What the export kept is copied from it too; what it stores in another form than the source is the source's.
    Raises CheckpointError for an export of another model.
    """
    packed, kept = matched(source, export), _kept_as_it_is(source, export)
    rest = [Choice(layer, None) for layer in source.layers if layer.name not in packed and layer.name not in kept]
    whole = [Choice(source.by_name[name], None) for name in kept]
    decoded = ((layer.weight_name, "F32", layer.shape) for layer, _ in packed.values())
    _write_config(folder, source)
    with PlainWriter(folder, [*map(_wanted, (*rest, *whole)), *decoded], engine.backend) as sink:
        for name, stored in kept.items():
            _copy(sink, source.by_name[name].weight_name, stored)
        yield from run(engine, rest, sink)
        slabs_of = (
            (sink, layer.weight_name, own[matrix.name], slab)
            for layer, opened in packed.values()
            for own in [{matrix.name: matrix for matrix in layer.matrices}]
            for matrix in opened.matrices
            for slab in slabs(opened, matrix, engine.slab_nbytes)
        )
        yield from _decode(engine, slabs_of, work(rest))


_Step = tuple[PlainWriter, str, Matrix, Slab]
"""Where to write, the tensor, where the matrix lies in it, and what to read."""


def _decode(engine: Engine, steps: Iterable[_Step], done: int = 0) -> Iterator[Progress]:
    with engine.tasks() as tasks:
        for slab in tasks.in_order(partial(_decode_slab, engine, *step) for step in steps):
            done += slab.nbytes
            yield Progress("evaluate", done, slab.layer.name)


def _decode_slab(engine: Engine, sink: PlainWriter, tensor: str, matrix: Matrix, slab: Slab) -> Slab:
    sink.write_rows(tensor, matrix, slab.start, read_slab(slab, engine.scratch))
    return slab


def matched(source: Model, export: Model) -> dict[str, tuple[Layer, Layer]]:
    """Name -> (layer of the source, layer of the export) of all that are quantized.

    Raises CheckpointError for an export of another model.
    """
    found = {}
    for layer in export.layers:
        if isinstance(layer.source, Packed):
            known = source.by_name.get(layer.name)
            if known is None or _shapes(known) != _shapes(layer):
                what = f"was not made from {printable(source.name)}, whose layers differ"
                raise CheckpointError(what, file=export.path, tensor=layer.name, hint="give its source with --against")
            found[layer.name] = known, layer
    return found


def _kept_as_it_is(source: Model, export: Model) -> dict[str, Stored]:
    """Layer name -> where the export holds the bytes of a kept layer, of those that it stores as the source would.

    Raises CheckpointError for a lifted layer that it stores in another form.
    """
    found = {}
    for entry in Manifest(export.folder).entries():
        layer = source.by_name.get(entry.result.name)
        if entry.matrices or layer is None:
            continue
        if _is_as_stored(entry.kept, layer):
            found[layer.name] = export.by_name[layer.name].stored
        elif entry.result.lift:
            raise CheckpointError("is lifted in a form that is not turned back", file=export.path, tensor=layer.name)
    return found


def _is_as_stored(kept: Sequence[Placement], layer: Layer) -> bool:
    """True when a kept layer lies in one tensor of its own, with the bytes that it has in the source."""
    (part, *others) = kept
    sizes = (part.nbytes, part.whole) == (layer.kept_nbytes, layer.kept_nbytes)
    return not others and part.content == "raw" and part.dtype == layer.kept_dtype and sizes


def _shapes(layer: Layer) -> dict[str, tuple[int, int]]:
    return {matrix.name: (matrix.rows, matrix.columns) for matrix in layer.matrices}


def write_alone(engine: Engine, export: Model, folder: Path) -> Iterator[PipelineEvent]:
    """Write an export decoded without its source: in the names of its layout, which a reader of that layout loads."""
    _write_config(folder, export)
    packed = [layer for layer in export.layers if isinstance(layer.source, Packed)]
    kept = _kept_tensors(export, packed)
    places = {layer.name: dict(_places(layer)) for layer in packed}
    tensors = {wanted[0]: wanted for found in places.values() for wanted, _ in found.values()}
    tensors |= {name: (name, stored.tensor.dtype, stored.tensor.shape) for name, stored in kept.items()}
    with PlainWriter(folder, tensors.values(), engine.backend) as sink:
        for name, stored in kept.items():
            _copy(sink, name, stored)
        steps = (
            (sink, wanted[0], place, slab)
            for layer in packed
            for matrix in layer.matrices
            for wanted, place in [places[layer.name][matrix.name]]
            for slab in slabs(layer, matrix, engine.slab_nbytes)
        )
        yield from _decode(engine, steps)


def _kept_tensors(export: Model, packed: Iterable[Layer]) -> dict[str, Stored]:
    """The tensors of an export that are no parts of codes, by name."""
    parts = {
        part.name
        for layer in packed
        if isinstance(layer.source, Packed)
        for matrix in layer.source.matrices.values()
        for part in matrix.parts
    }
    found = (Stored(file, tensor) for file in export.files for tensor in read_header(file).tensors.values())
    return {stored.tensor.name: stored for stored in found if stored.tensor.name not in parts}


def _places(layer: Layer) -> Iterator[tuple[str, tuple[Wanted, Matrix]]]:
    """Matrix name -> the tensor that it is decoded to, and where it lies there: where its codes lie in theirs."""
    assert isinstance(layer.source, Packed)
    for matrix in layer.source.matrices.values():
        codes = next(part for part in matrix.parts if part.content == "codes")
        shape = (*codes.shape[:-1], matrix.columns)
        first = codes.offset // codes.nbytes * matrix.rows * matrix.columns
        placed = Matrix(matrix.name, matrix.rows, matrix.columns, first)
        yield matrix.name, ((codes.name.removesuffix(_PACKED), "F32", shape), placed)


def _copy(sink: PlainWriter, name: str, stored: Stored) -> None:
    target = sink.tensor(name)
    for offset, count in chunks(stored.tensor.nbytes, _CHUNK):
        stored.file.read_into(target[offset : offset + count].data, stored.tensor.start + offset)


def write_input_scales(folder: Path, choices: Iterable[Choice]) -> None:
    """Write the multipliers of inputs beside a decoded checkpoint; no file where inputs stay as they are."""
    scales = {
        matrix.name: [choice.format, g]
        for choice in choices
        for matrix, g in zip(choice.layer.matrices, _input_scales(choice), strict=False)
    }
    if scales:
        with writing(folder):
            (folder / INPUT_SCALES).write_bytes(json_document(scales))


def _input_scales(choice: Choice) -> Sequence[float]:
    return [0.0] * len(choice.layer.matrices) if choice.rounds_inputs else choice.input_scales


def write_beside(folder: Path, model: Model) -> None:
    """Write config and tokenizer of a model to `folder`, as an export has them."""
    _write_config(folder, model)
    with writing(folder):
        for name, path in zip(model.side_names, model.side_files, strict=False):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
        for document in model.documents:
            (folder / document.name).write_bytes(document.content)


def _write_config(folder: Path, model: Model) -> None:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_bytes(json_document(exported_config(model)))
