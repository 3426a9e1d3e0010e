"""Checks of layers in a written shard: their parts are what they should be, decode, and cost what was said."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from kernels import STORED_FORMATS, Format
from studio.core.containers.dtypes import BITS, WEIGHT_DTYPES
from studio.core.containers.files import SourceFile
from studio.core.containers.safetensors import Header
from studio.core.errors import CheckpointError
from studio.core.exporting.readback import StoredMatrix, chunks, read_quantized, stored_scale, usable_multiplier
from studio.core.layouts import Layout
from studio.core.layouts.placement import Placement, edited, kept_form, pieces
from studio.core.model import Layer
from studio.core.results import LayerResult
from studio.core.running.engine import Engine
from studio.core.running.reading import Slab, kept_bytes, kept_slabs, read_slab, slab_height, whole_slab
from studio.core.running.tasks import bundles

_NUMBERS = {"tensor_scale", "multiplier", "input_scale"}
TOLERANCE = 1e-5
"""Relative difference allowed between the error shown, summed in float64, and the one found again in float32."""


@dataclass(frozen=True, slots=True)
class Check:
    """One layer to verify; `layer` is its source, or None when there is none to compare with."""

    result: LayerResult
    matrices: tuple[StoredMatrix, ...]
    kept: tuple[Placement, ...]
    layer: Layer | None

    @property
    def work(self) -> int:
        """Bytes that checking it reads."""
        return self.result.nbytes_out + (self.result.nbytes_in if self.layer else 0)

    @property
    def parts(self) -> list[Placement]:
        """Where all of it lies."""
        return [*self.kept, *(part for matrix in self.matrices for part in matrix.parts)]


def check_layers(
    engine: Engine, file: SourceFile, header: Header, layout: Layout, checks: Sequence[Check]
) -> Iterator[tuple[str, int]]:
    """Verify layers of one file; yields (name, bytes read). Raises CheckpointError for the first that is wrong."""
    place = _Place(file, header, layout)
    steps = (step for check in checks for step in _steps(engine, place, check))
    with engine.tasks() as tasks:
        found = chain.from_iterable(tasks.in_order(partial(_errors, place, bundle) for bundle in bundles(steps)))
        for check in checks:
            total = 0.0
            for error in found:
                if error is None:
                    break
                total += error
            _compare_inputs(place, check)
            _compare_shapes(place, check)
            if check.layer is not None and check.matrices:
                _compare(file, check.result, math.ldexp(total, -2 * check.result.lift))
            yield check.result.name, check.work


@dataclass(frozen=True, slots=True)
class _Step:
    """A piece of a layer to check; `job` gives its squared error, None is the end of the layer."""

    check: Check
    nbytes: int
    job: Callable[[], float] | None


def _errors(place: "_Place", bundle: list[_Step]) -> list[float | None]:
    source = bundle[0].check.layer
    many = len(bundle) > 2  # the last step of a layer reads nothing
    with place.file.held() if many else nullcontext(), source.stored.file.held() if many and source else nullcontext():
        return [step.job() if step.job else None for step in bundle]


def _steps(engine: Engine, place: "_Place", check: Check) -> Iterator[_Step]:
    yield from (_Step(check, nbytes, job) for nbytes, job in _parts(engine, place, check))
    yield _Step(check, 0, None)


@dataclass(frozen=True, slots=True)
class _Place:
    file: SourceFile
    header: Header
    layout: Layout


def _parts(engine: Engine, place: _Place, check: Check) -> Iterator[tuple[int, Callable[[], float]]]:
    """(bytes, job) for every piece of a layer."""
    if check.kept:
        yield from _kept_parts(engine, place, check.kept, check.layer) if check.layer else ()
        return
    sources = check.layer.matrices if check.layer else [None] * len(check.matrices)
    for matrix, source in zip(check.matrices, sources, strict=True):
        height = max(engine.slab_nbytes // (2 * matrix.columns), 1)
        if check.layer and source:
            height = min(height, slab_height(check.layer, source, engine.slab_nbytes))
        for start in range(0, matrix.rows, height):
            stop = min(start + height, matrix.rows)
            slab = Slab(check.layer, source, start, stop) if check.layer and source else None
            yield 2 * (stop - start) * matrix.columns, partial(_error, engine, place, matrix, start, stop, slab)


def _kept_parts(
    engine: Engine, place: _Place, kept: tuple[Placement, ...], layer: Layer
) -> Iterator[tuple[int, Callable[[], float]]]:
    form = kept_form(kept)
    if form == "whole":
        yield layer.kept_nbytes, partial(_same_edited, engine, place, kept, layer)
    elif form == "rows" or layer.widened:
        for slab, before in kept_slabs(layer, by_matrix=form == "rows", nbytes=engine.slab_nbytes):
            yield slab.nbytes, partial(_same_rows, engine, place, kept, slab, before)
    else:
        for offset, count in chunks(layer.kept_nbytes, engine.slab_nbytes):
            yield count, partial(_same_bytes, place, kept, layer, offset, count)


def _error(engine: Engine, place: _Place, matrix: StoredMatrix, start: int, stop: int, slab: Slab | None) -> float:
    quantized = read_quantized(place.file, place.header, place.layout, matrix, start, stop)
    backend = engine.backend
    error = backend.squared_error(read_slab(slab, engine.scratch), quantized) if slab else math.nan
    if not math.isfinite(error) and not np.isfinite(backend.decode(quantized)).all():
        raise CheckpointError("decodes to values that are not finite", file=place.file.path, tensor=matrix.name)
    return error


def _compare(file: SourceFile, result: LayerResult, found: float) -> None:
    if not abs(found - result.sum_error) <= TOLERANCE * max(found, result.sum_error):  # NaN is no agreement
        what = f"its squared error is {found:.9g}, the report says {result.sum_error:.9g}"
        raise CheckpointError(what, file=file.path, tensor=result.name)


def _compare_inputs(place: _Place, check: Check) -> None:
    """The scales of inputs are the ones that the report states."""
    for matrix, g in zip(check.matrices, check.result.input_scales, strict=False):
        part = next(part for part in matrix.parts if part.content == "input_scale")
        stored = stored_scale(place.file, place.header, part)
        if usable_multiplier(place.layout, stored, place.file, part) != np.float32(g):
            what = f"the scale of its inputs is {stored:.9g}, which is not the multiplier {g:.9g} of the report"
            raise CheckpointError(what, file=place.file.path, tensor=part.name)


def _compare_shapes(place: _Place, check: Check) -> None:
    """Rows and columns are stored as they are."""
    for matrix in check.matrices:
        for part in matrix.parts:
            if part.content == "shape":
                start = place.header.tensors[part.name].start + part.offset
                stored = np.frombuffer(place.file.read(start, 16), np.int64)
                if stored.tolist() != [matrix.rows, matrix.columns]:
                    what = f"says {stored.tolist()}, the matrix has {[matrix.rows, matrix.columns]}"
                    raise CheckpointError(what, file=place.file.path, tensor=part.name)


def _same_bytes(place: _Place, kept: tuple[Placement, ...], layer: Layer, offset: int, count: int) -> float:
    return _same(place, kept, offset, layer.stored.file.read(layer.tensor.start + offset, count))


def _same_rows(engine: Engine, place: _Place, kept: tuple[Placement, ...], slab: Slab, before: int) -> float:
    wanted = kept_bytes(slab, read_slab(slab, engine.scratch))
    itemsize = WEIGHT_DTYPES[slab.layer.kept_dtype].itemsize
    return _same(place, kept, before * itemsize, bytearray(wanted.data))


def _same_edited(engine: Engine, place: _Place, kept: tuple[Placement, ...], layer: Layer) -> float:
    slab = whole_slab(layer)
    values = kept_bytes(slab, read_slab(slab, engine.scratch)).view(WEIGHT_DTYPES[layer.kept_dtype])
    for part in kept:
        _same(place, (part,), 0, bytearray(edited(part.content, values).tobytes()))
    return 0.0


def _same(place: _Place, kept: tuple[Placement, ...], offset: int, wanted: bytearray) -> float:
    for first, name, start, count in pieces(kept, offset, len(wanted)):
        there = place.file.read(place.header.tensors[name].start + start, count)
        if there != wanted[first : first + count]:
            raise CheckpointError("differs from the source, though it was kept", file=place.file.path, tensor=name)
    return 0.0


def check_parts(check: Check, header: Header, path: Path) -> None:
    """The stored tensors have the dtypes and shapes that the manifest promises, and the parts fit inside."""
    for part in check.parts:
        tensor = header.tensors.get(part.name)
        if tensor is None or (tensor.dtype, tensor.shape) != (part.dtype, part.shape):
            raise CheckpointError("missing, or not of the dtype and shape promised", file=path, tensor=part.name)
        if part.dtype not in BITS or part.offset + part.nbytes > tensor.nbytes:
            raise CheckpointError("smaller than the manifest says", file=path, tensor=part.name)
    with_inputs = sum(part.content == "input_scale" for part in check.parts)
    if with_inputs != len(check.result.input_scales) or with_inputs not in (0, len(check.matrices)):
        raise CheckpointError("malformed manifest entry: scales of inputs", file=path, tensor=check.result.name)
    for matrix in check.matrices:
        _check_matrix(matrix, path)


def _check_matrix(matrix: StoredMatrix, path: Path) -> None:
    """The parts are those of the format, as large as the matrix needs, of dtypes that can be read."""
    row = STORED_FORMATS.get(matrix.format)
    if row is None or row.misfit((matrix.rows, matrix.columns)):
        raise CheckpointError("malformed manifest entry", file=path, tensor=matrix.name)
    found = {part.content for part in matrix.parts}
    if not _needed(row) <= found <= _needed(row) | _NUMBERS or not all(
        _fits(part, matrix, row) for part in matrix.parts
    ):
        raise CheckpointError(f"malformed manifest entry: no {row.name}", file=path, tensor=matrix.name)


def _needed(row: Format) -> set[str]:
    """The parts without which codes can not be read."""
    if row.scale == "float32":
        return {"codes", "multiplier"} if row.tensor_scale else {"codes", "scales"}
    if row.symmetric:
        return {"codes", "scales", "shape"}
    return {"codes", "scales", *(["biases"] if row.affine else []), *(["tensor_scale"] if row.tensor_scale else [])}


def _fits(part: Placement, matrix: StoredMatrix, row: Format) -> bool:
    count = matrix.rows * matrix.columns
    if part.content == "codes":
        return part.dtype in ("U8", "U32", "I32", "F8_E4M3") and 8 * part.nbytes == count * row.bits
    if part.content == "shape":
        return (part.dtype, part.nbytes) == ("I64", 16)
    if part.content in _NUMBERS:
        return (part.dtype, part.nbytes) == ("F32", 4)
    if row.scale == "float32":
        return part.dtype == "F32" and part.nbytes == 4 * math.prod(row.tiles(matrix.rows, matrix.columns))
    dtypes = tuple(WEIGHT_DTYPES) if row.affine else ("U8", "F8_E4M3", "F8_E8M0")
    return part.dtype in dtypes and 8 * part.nbytes == count // row.block * BITS[part.dtype]
