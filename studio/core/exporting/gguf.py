"""GGUF as a target: one file with NVFP4 or MXFP4 blocks, written, proved, and there under its name or not at all."""

import os
import time
import zlib
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kernels
from kernels import Quantized
from studio.core.architectures.gguf import GgufArchitecture
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.containers.gguf import TYPE_OF, GgmlType, GgufTensor, place_gguf
from studio.core.counting import counted
from studio.core.errors import ExportError, PlanError
from studio.core.events import Event, Finished, LayerDone, Resumed, Started, Warned
from studio.core.exporting.gguf_digest import BLANK, KEY, state
from studio.core.exporting.gguf_metadata import experts_of, gguf_name, heads_of, model_pairs, rope_factors, row_of
from studio.core.exporting.gguf_proof import prove, read_back
from studio.core.exporting.gguf_records import GgufRecords
from studio.core.exporting.gguf_tokens import tokenizer_pairs
from studio.core.exporting.identity import choices_identity, source_identity
from studio.core.exporting.mlx_names import check_names
from studio.core.exporting.target import check_space
from studio.core.exporting.writing import StagedFile, sync_folder, writing
from studio.core.layouts import GGUF, fitted
from studio.core.layouts.fitting import changes
from studio.core.layouts.gguf import TYPES
from studio.core.model import Layer, Matrix, Model
from studio.core.opening.exports import check_decodable
from studio.core.outcome import Outcome
from studio.core.planning.conversion import Transcoding
from studio.core.planning.plan import Choice, nothing_chosen
from studio.core.results import LayerResult
from studio.core.running.engine import Engine, KeptForm, Sink
from studio.core.running.feedback import feed_forward
from studio.core.running.packed_results import PackedResults
from studio.core.running.pipeline import run, work
from studio.core.running.reading import Slab
from studio.core.sources.ggml import blocks_of
from studio.core.sources.row_orders import InPairs

SUFFIX = ".gguf"
_ROPE = "rope_freqs.weight"
_WIDE = ("ffn_gate_inp",)
"""Matrices that llama.cpp wants in float32."""


_SCALE_NBYTES = 4


@dataclass(frozen=True, slots=True)
class Part:
    """Where rows of `width` values go: a tensor, the row of it that the first is, and of how many heads they are.

    Rows of heads are put in pairs, first half beside second, as llama.cpp rotates them; 0 for rows in their order.
    """

    tensor: str
    type: GgmlType
    shape: tuple[int, ...]
    rows: int
    width: int
    first: int = 0
    heads: int = 0
    scale: str = ""
    expert: int = 0

    @property
    def row_nbytes(self) -> int:
        """Bytes of a row."""
        return self.width // self.type.weights * self.type.nbytes

    def places(self, start: int, stop: int) -> NDArray[np.int64]:
        """The rows of the tensor that rows `start` .. `stop` become."""
        rows = np.arange(start, stop)
        if self.heads:
            rows = InPairs(self.rows // self.heads).places(rows)
        return self.first + rows


@dataclass(frozen=True, slots=True)
class GgufExport:
    """A file that passed every check that can be made before the first weight is read.

    parts: by name of a layer, where the rows of each of its matrices go, or all of a kept one.
    """

    model: Model
    choices: tuple[Choice, ...]
    target: Path
    head: bytes
    tensors: Mapping[str, GgufTensor]
    parts: Mapping[str, tuple[Part, ...]]
    constants: Mapping[str, NDArray[np.float32]]
    changes: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Size of the file in bytes."""
        return max((tensor.start + tensor.nbytes for tensor in self.tensors.values()), default=len(self.head))


def prepare_gguf(model: Model, choices: Sequence[Choice], target: Path, *, overwrite: bool = False) -> GgufExport:
    """Check a GGUF file and lay it out. Raises CheckpointError, PlanError or ExportError."""
    check_decodable(model)
    check_names(model, GGUF)
    found, refusals = fitted(GGUF, GGUF.readers[0], model, choices)
    if refusals:
        raise PlanError("; ".join(refusals), hint=f"GGUF holds {', '.join(GGUF.formats)}")
    check_gguf(model, target, overwrite=overwrite)
    if why := nothing_chosen(found):
        raise PlanError(f"there is nothing to quantize: {why}")
    return _laid_out(model, found, target, tuple(changes(choices, found)))


def prepare_gguf_conversion(
    model: Model, transcoding: Transcoding, target: Path, *, overwrite: bool = False
) -> GgufExport:
    """Check what `transcode` decided for a GGUF file, and lay it out. Raises PlanError or ExportError."""
    check_gguf(model, target, overwrite=overwrite)
    return _laid_out(model, transcoding.choices, target, tuple(transcoding.sentences()))


def check_gguf(model: Model, target: Path, *, overwrite: bool = False) -> None:
    """Check what can be before any choice is made: the architecture, and the place of the file."""
    row_of(model)
    _check_target(target, model, overwrite=overwrite)


def gguf_sized(model: Model, choices: Sequence[Choice]) -> tuple[Choice, ...]:
    """The choices with the exact bytes of the tensors that each becomes. Raises PlanError for one without a place."""
    row = row_of(model)
    heights = _Heights.of(model, row)

    def nbytes(choice: Choice) -> int:
        if choice.layer.role == "head" and model.is_tied:
            return 0
        parts = _parts(model, row, choice, heights)
        return sum(part.rows * part.row_nbytes + (_SCALE_NBYTES if part.scale else 0) for part in parts)

    return tuple(replace(choice, beside=choice.beside + nbytes(choice) - choice.nbytes) for choice in choices)


def gguf_nbytes(model: Model, choices: Sequence[Choice]) -> int:
    """The bytes of a file; see `prepare_gguf`."""
    return _placed(model, choices, Path(model.name + SUFFIX), ()).nbytes


def _laid_out(model: Model, choices: Sequence[Choice], target: Path, told: tuple[str, ...]) -> GgufExport:
    export = _placed(model, choices, target, told)
    check_space(target.with_name(target.name + ".partial"), export.nbytes)
    return export


def _placed(model: Model, choices: Sequence[Choice], target: Path, told: tuple[str, ...]) -> GgufExport:
    row = row_of(model)
    layers = [choice for choice in choices if not (choice.layer.role == "head" and model.is_tied)]
    heights = _Heights.of(model, row)
    parts = {choice.layer.name: tuple(_parts(model, row, choice, heights)) for choice in layers}
    constants = {_ROPE: factors} if (factors := rope_factors(model)) is not None else {}
    words = {part.tensor: part.shape[0] for found in parts.values() for part in found}.get("token_embd.weight")
    if words is None:
        raise PlanError("it has no embedding, and a GGUF file holds whole models", file=model.path)
    pairs = {KEY: BLANK} | model_pairs(model, row, _stored_type(layers)) | tokenizer_pairs(model, words)
    head, tensors = place_gguf(pairs, _tensors(parts, constants))
    return GgufExport(model, tuple(layers), target, head, tensors, parts, constants, told)


def _stored_type(choices: Sequence[Choice]) -> str:
    """The type of ggml of the quantized matrices, or of most weights where none is."""
    quantized = next((TYPES[choice.format] for choice in choices if choice.recipe), "")
    counts: dict[str, int] = defaultdict(int)
    for choice in choices:
        counts[_kept_type(choice.layer, "").name] += choice.layer.count
    return quantized or max(counts, key=lambda name: counts[name])


def _check_target(target: Path, model: Model, *, overwrite: bool) -> None:
    if target.suffix != SUFFIX:
        raise ExportError(f"a GGUF file is named NAME{SUFFIX}", file=target)
    if any(os.path.realpath(file.path) == os.path.realpath(target) for file in model.files):
        raise ExportError("is the source", file=target, hint="choose another target")
    if os.path.lexists(target) and (not overwrite or not target.is_file()):
        raise ExportError("exists", file=target, hint="choose another target, or --overwrite")


@dataclass(frozen=True, slots=True)
class _Heights:
    """How many heads and experts there are, heads by llama.cpp's name of the module."""

    heads: Mapping[str, int]
    experts: int

    @classmethod
    def of(cls, model: Model, row: GgufArchitecture) -> "_Heights":
        heads = {module: heads_of(model, module) for module in row.orders}
        return cls(heads, experts_of(model, row) if row.experts else 0)


def _parts(model: Model, row: GgufArchitecture, choice: Choice, heights: _Heights) -> Iterator[Part]:
    layer = choice.layer
    whole = layer.whole if len(layer.shape) > 1 else Matrix(layer.name, max(layer.count, 1), 1)
    matrices = layer.matrices if choice.recipe or _is_stack(layer) else (whole,)
    for matrix in matrices:
        name = layer.weight_name if matrix is whole or not _is_stack(layer) else f"{matrix.name}.weight"
        tensor, module, expert = gguf_name(row, name)
        if not tensor:
            what = f"llama.cpp's {row.name} has no place for it"
            raise PlanError(what, file=model.path, tensor=name, hint="export with --for llama.cpp and convert that")
        kind = TYPE_OF[TYPES[choice.format]] if choice.recipe else _kept_type(layer, module)
        shape = (matrix.rows, matrix.columns) if len(layer.shape) > 1 else layer.shape
        heads, first = heights.heads.get(module, 0), 0
        if heads and matrix.rows % (2 * heads):
            raise PlanError(f"its rows are not those of {counted(heads, 'head')} of an even height", tensor=name)
        if expert is not None:
            first, shape = expert * matrix.rows, (heights.experts, *shape)
        scale = f"{tensor.removesuffix('.weight')}.scale" if choice.recipe and choice.recipe.format.tensor_scale else ""
        width = matrix.columns if len(layer.shape) > 1 else 1
        yield Part(tensor, kind, shape, matrix.rows, width, first, heads, scale, expert or 0)


def _is_stack(layer: Layer) -> bool:
    return len(layer.matrices) > 1


def _kept_type(layer: Layer, module: str) -> GgmlType:
    """Vectors are stored in float32, and what llama.cpp computes with beside matrices, too."""
    wide = len(layer.shape) < 2 or module in _WIDE or layer.kept_dtype not in WEIGHT_DTYPES
    return TYPE_OF["F32" if wide else layer.kept_dtype]


def _tensors(
    parts: Mapping[str, tuple[Part, ...]], constants: Mapping[str, NDArray[np.float32]]
) -> list[tuple[str, GgmlType, tuple[int, ...]]]:
    """All tensors of the file. Raises PlanError when layers would share one in different types, or fill one in part."""
    found: dict[str, tuple[GgmlType, tuple[int, ...]]] = {}
    filled: dict[str, int] = {}
    wide = TYPE_OF["F32"]
    for part in (part for own in parts.values() for part in own):
        if found.setdefault(part.tensor, (part.type, part.shape)) != (part.type, part.shape):
            what = "llama.cpp keeps the experts of a block in one tensor, which can not have two formats"
            raise PlanError(what, tensor=part.tensor, hint="choose one format for all of them, or keep all")
        filled[part.tensor] = filled.get(part.tensor, 0) + part.rows * part.width
        if part.scale:
            found[part.scale] = wide, (part.shape[0],) if len(part.shape) == 3 else (1,)
    for name, count in filled.items():
        if count != int(np.prod(found[name][1], dtype=np.int64)):
            raise PlanError("the model fills it in part only, or twice", tensor=name)
    found |= {name: (wide, values.shape) for name, values in constants.items()}
    return [(name, kind, shape) for name, (kind, shape) in found.items()]


class GgufWriter(Sink, StagedFile):
    """The file is there at its full size with its header from the start; what is written is noted with its checksum.

    `notes`: by layer, and under "" of constants, offset, size and checksum of each piece; those of layers that were
    taken over are given.
    """

    def __init__(self, path: Path, job: GgufExport, notes: Mapping[str, "array[int]"]) -> None:
        super().__init__(path, job.nbytes, keep=bool(notes))
        self._job, self._lock = job, Lock()
        self.notes: defaultdict[str, array[int]] = defaultdict(lambda: array("Q"), notes)
        self.write(memoryview(job.head), 0)
        for name, values in job.constants.items():
            self._note("", values.astype("<f4").tobytes(), job.tensors[name].start)

    def _note(self, layer: str, data: bytes | NDArray[np.uint8], offset: int) -> None:
        view = np.ascontiguousarray(data).reshape(-1).data if isinstance(data, np.ndarray) else memoryview(data)
        self.write(view, offset)
        with self._lock:
            self.notes[layer].extend((offset, len(view), zlib.crc32(view)))

    def _part(self, layer: Layer, matrix: Matrix) -> Part:
        parts = self._job.parts[layer.name]
        return parts[layer.matrices.index(matrix)] if len(parts) > 1 else parts[0]

    def write_slab(self, slab: Slab, quantized: Quantized) -> None:
        """See `Sink.write_slab`."""
        part = self._part(slab.layer, slab.matrix)
        self._write_rows(slab.layer.name, part, slab.start, blocks_of(quantized))

    def _write_rows(self, layer: str, part: Part, start: int, rows: NDArray[np.uint8]) -> None:
        places = part.places(start, start + len(rows))
        origin = self._job.tensors[part.tensor].start
        if not part.heads:
            self._note(layer, rows, origin + int(places[0]) * part.row_nbytes)
            return
        for place, row in zip(places, rows, strict=True):
            self._note(layer, row, origin + int(place) * part.row_nbytes)

    def write_scale(self, choice: Choice, matrix: Matrix, g: float) -> None:
        """See `Sink.write_scale`."""
        part = self._part(choice.layer, matrix)
        if part.scale:
            offset = self._job.tensors[part.scale].start + 4 * part.expert
            self._note(choice.layer.name, np.float32(g).tobytes(), offset)

    def kept_form(self, layer: Layer) -> KeptForm:
        """See `Sink.kept_form`."""
        return "rows" if _is_stack(layer) else "bytes"

    def write_kept(self, layer: Layer, offset: int, data: NDArray[np.uint8]) -> None:
        """See `Sink.write_kept`."""
        values = data.view(WEIGHT_DTYPES[layer.kept_dtype])
        at = offset // values.itemsize
        for part in self._job.parts[layer.name]:
            size = part.rows * part.width
            count = min(size - at, values.size)
            if at < size and count:
                self._write_values(layer.name, part, at, values[:count])
                values, at = values[count:], at + count
            at -= size
            if not values.size:
                return

    def _write_values(self, layer: str, part: Part, at: int, values: NDArray[Any]) -> None:
        """Write values of a kept part from its value `at` on."""
        wanted = values.astype(WEIGHT_DTYPES[part.type.name], copy=False)
        origin, size = self._job.tensors[part.tensor].start, wanted.itemsize
        cuts = [0, wanted.size]
        if part.heads:
            cuts = [0, *range(part.width - at % part.width, wanted.size, part.width), wanted.size]
        for start, stop in pairwise(cuts):
            row, column = divmod(at + start, part.width)
            place = int(part.places(row, row + 1)[0]) * part.width + column
            self._note(layer, wanted[start:stop].view(np.uint8), origin + place * size)


def write_gguf(engine: Engine, job: GgufExport) -> Iterator[Event]:
    """Write the file of a prepared export, prove it, and give it its name; ends with `Finished`.

    Closing the generator stops it; finished layers are kept, and the next run of the same goes on with those whose
    bytes are still what was written. Raises CheckpointError or ExportError.
    """
    results, begun = PackedResults(job.choices), time.monotonic()
    with writing(job.target):
        job.target.parent.mkdir(parents=True, exist_ok=True)
    with GgufRecords(job.target, _identity(job), job.nbytes, results) as records:
        if records.discarded:
            yield Warned(f"{records.growing.name}: begun by a run of other weights or choices, begun anew")
        aside = job.target.with_name(f"{job.target.name}.feedback")
        ready = yield from feed_forward(engine, job.model, job.choices, aside, Sink())
        yield from _grow(ready, job, records, results)
        with writing(job.target):
            records.growing.replace(job.target)
            sync_folder(job.target.parent)
        records.discard()
        if ready.solved:
            ready.solved.discard()
    seconds = {"quantize": time.monotonic() - begun}
    yield Finished(Outcome(results, str(job.target), seconds, engine.backend.title, "gguf"))


def _identity(job: GgufExport) -> dict[str, Any]:
    """What two runs must have in common to share finished layers."""
    return {
        "source": source_identity(job.model),
        "plan": choices_identity(job.choices),
        "head": sha256(job.head).hexdigest(),
        "version": kernels.__version__,
    }


def _grow(engine: Engine, job: GgufExport, records: GgufRecords, results: PackedResults) -> Iterator[Event]:
    """Write the layers that are left, and prove the file; one that fails the proof goes."""
    left = records.keep_whole_scopes(job.choices)
    total, proof = work(job.choices), sum(choice.layer.nbytes for choice in job.choices)
    yield Started("quantize", total + 2 * job.nbytes + proof, len(job.choices), job.target)
    yield from _taken_over(job, records, results)
    with GgufWriter(records.growing, job, records.notes) as sink:
        for event in run(engine, left, sink, total - work(left)):
            if isinstance(event, LayerDone):
                results.add(event.result)
                records.add(event.result, sink.notes[event.result.name])
            yield event
        job.model.check_unchanged()
        sink.flush()
    try:
        yield from read_back(records.growing, job.tensors, tuple(sink.notes.values()), total)
        yield from prove(engine, records.growing, job.choices, results, total + job.nbytes)
        yield from state(records.growing, total + job.nbytes + proof)
    except ExportError:
        records.notes.clear()
        raise


def _taken_over(job: GgufExport, records: GgufRecords, results: Sequence[LayerResult]) -> Iterator[Event]:
    if records.notes:
        yield Resumed(job.target.name, sum(sum(notes[1::3]) for notes in records.notes.values()))
    for at, choice in enumerate(job.choices):
        if choice.layer.name in records.notes:
            yield LayerDone(results[at])
