"""The pipeline: layers go in, events and encoded slabs come out; threads overlap reading, computing and writing.

Work is cut into slabs of rows. A scope is a set of layers that share tensor scales; pass 1 counts its weights, which
gives the tensor scales, pass 2 encodes. Pass 1 of the next scope runs while pass 2 of this one does.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from kernels import Census, Fidelity, Quantized, Recipe
from kernels.backend import Backend
from kernels.reference import tensor_scale
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.encoding import encode
from studio.core.errors import CheckpointError
from studio.core.events import LayerDone, Progress, Warned
from studio.core.model import Layer, Matrix
from studio.core.names import printable
from studio.core.plan import Choice
from studio.core.reading import SLAB_NBYTES, Slab, kept_bytes, kept_slabs, read_slab, slabs
from studio.core.results import LayerResult, layer_result
from studio.core.scratch import Scratch
from studio.core.tasks import Tasks

T = TypeVar("T")

KeptForm = Literal["bytes", "rows", "whole"]
"""How a kept layer is handed on: its bytes in pieces, the rows of its matrices, or all bytes at once."""

PipelineEvent = Progress | LayerDone | Warned
READ_AHEAD_NBYTES = 256 << 20
"""How far the system reads ahead, into its page cache."""

_READ_AHEAD_STEP = 8 << 20


class Sink:
    """Where the pipeline's output goes; this one drops it, which is what measuring needs."""

    def agreed_scale(self, g: float) -> float:
        """The multiplier that readers of the output will compute for `g`."""
        return g

    def write_slab(self, slab: Slab, quantized: Quantized) -> None:
        """Take an encoded slab; called from worker threads."""

    def write_scale(self, choice: Choice, matrix: Matrix, g: float) -> None:
        """Take the multiplier of a matrix; called for every quantized matrix, 1.0 for formats without one."""

    def kept_form(self, layer: Layer) -> KeptForm:
        """In what form it wants a kept layer."""
        return "bytes"

    def write_kept(self, layer: Layer, offset: int, data: NDArray[np.uint8]) -> None:
        """Take bytes of a kept layer, from byte `offset` of its output on; called from worker threads."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A backend, threads to run it on, and the size of a slab in bytes."""

    backend: Backend
    pool: ThreadPoolExecutor
    slab_nbytes: int = SLAB_NBYTES
    scratch: Scratch = field(default_factory=Scratch)


@contextmanager
def engine(backend: Backend, threads: int, slab_nbytes: int = SLAB_NBYTES) -> Iterator[Engine]:
    """An engine with `threads` workers, which are gone when the block is left, whatever happens."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="nvfp4-studio")
    try:
        yield Engine(backend, pool, slab_nbytes)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def scopes(choices: Sequence[Choice]) -> list[list[Choice]]:
    """The choices in order, those that share a tensor scale together."""
    found: dict[str, list[Choice]] = {}
    for choice in choices:
        group = choice.layer.group if choice.recipe and choice.recipe.format.tensor_scale else ""
        found.setdefault(group or f"={choice.layer.name}", []).append(choice)
    return list(found.values())


def work(choices: Sequence[Choice]) -> int:
    """Bytes that the pipeline will read for `choices`, both passes counted."""
    return sum(choice.layer.tensor.nbytes * (2 if choice.recipe else 1) for choice in choices)


def run(engine: Engine, choices: Sequence[Choice], sink: Sink, done: int = 0) -> Iterator[PipelineEvent]:
    """Work through `choices`; progress counts on from `done` bytes.

    Raises CheckpointError for NaN or Inf in a weight that is to be quantized.
    """
    todo = scopes(choices)
    ahead = _ReadAhead([choice.layer for scope in todo for choice in scope])
    with Tasks(engine.pool) as tasks:
        passes = (_FirstPass(engine, tasks, scope, sink) for scope in todo)
        first = next(passes, None)
        while first is not None:
            for name, nbytes in first.gather():
                ahead.consume(nbytes)
                done += nbytes
                yield Progress("quantize", done, name)
            second = _SecondPass(engine, tasks, first, sink)
            first = next(passes, None)
            for name, nbytes, results in second.gather():
                done += nbytes
                yield Progress("quantize", done, name)
                yield from results


class _ReadAhead:
    """Keeps the system reading ahead of the first pass, in its order, so that disk and processors work together."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._pieces = (
            (layer.stored.file, layer.tensor.start + start, min(_READ_AHEAD_STEP, layer.tensor.nbytes - start))
            for layer in layers
            for start in range(0, layer.tensor.nbytes, _READ_AHEAD_STEP)
        )
        self._room = READ_AHEAD_NBYTES
        self.consume(0)

    def consume(self, nbytes: int) -> None:
        """The first pass has read `nbytes` more."""
        self._room += nbytes
        while self._room > 0 and (piece := next(self._pieces, None)):
            file, start, count = piece
            file.read_ahead(start, count)
            self._room -= count


class _FirstPass:
    """Counts the weights of a scope, and copies the layers that are kept."""

    def __init__(self, engine: Engine, tasks: Tasks, scope: list[Choice], sink: Sink) -> None:
        self.scope = scope
        self._submit = tasks.submit
        self.censuses = {choice.layer.name: Census.empty() for choice in scope}
        self.peaks: dict[str, float] = {}
        self._tasks = [task for choice in scope for task in self._start(engine, choice, sink)]

    def _start(self, engine: Engine, choice: Choice, sink: Sink) -> list["_Task[Census]"]:
        layer = choice.layer
        if choice.recipe is None:
            return self._keep(engine, layer, sink, sink.kept_form(layer))
        return [
            _Task(layer.name, matrix.name, slab.nbytes, self._submit(_count, engine, slab))
            for matrix in layer.matrices
            for slab in slabs(layer, matrix, engine.slab_nbytes)
        ]

    def _keep(self, engine: Engine, layer: Layer, sink: Sink, form: KeptForm) -> list["_Task[Census]"]:
        if form == "rows" or layer.widened:
            parts = kept_slabs(layer, by_matrix=form == "rows", nbytes=engine.slab_nbytes)
            return [
                _Task(layer.name, "", slab.nbytes, self._submit(_copy_rows, engine, slab, before, sink))
                for slab, before in parts
            ]
        chunks = _chunks(layer, layer.tensor.nbytes if form == "whole" else engine.slab_nbytes)
        return [
            _Task(layer.name, "", size, self._submit(_copy, engine, layer, start, size, sink)) for start, size in chunks
        ]

    def gather(self) -> Iterator[tuple[str, int]]:
        """Yields (layer name, bytes) as tasks end; afterwards `censuses` and `peaks` are complete and checked."""
        for task in self._tasks:
            census = task.future.result()
            self.censuses[task.layer] += census
            self.peaks[task.matrix] = max(self.peaks.get(task.matrix, 0.0), census.max_abs)
            yield task.layer, task.nbytes
        for choice in self.scope:
            name = choice.layer.name
            if choice.layer.dtype == "BF16":
                self.censuses[name] = Census.from_bfloat16_counts(self.censuses[name].counts)
            if choice.recipe:
                _check_finite(choice.layer, self.censuses[name])


class _SecondPass:
    """Encodes the layers of a scope with the tensor scales that the first pass gave."""

    def __init__(self, engine: Engine, tasks: Tasks, first: _FirstPass, sink: Sink) -> None:
        self._first = first
        self._submit = tasks.submit
        multipliers = _multipliers(first.scope, first.peaks, sink)
        self._plan = [(choice, *self._start(engine, choice, multipliers, sink)) for choice in first.scope]

    def _start(
        self, engine: Engine, choice: Choice, multipliers: dict[str, float], sink: Sink
    ) -> tuple[list[float], list["_Task[Fidelity]"]]:
        layer, recipe = choice.layer, choice.recipe
        if recipe is None:
            return [], []
        scales = [multipliers.get(matrix.name, 1.0) for matrix in layer.matrices]
        tasks = []
        for matrix, g in zip(layer.matrices, scales, strict=True):
            sink.write_scale(choice, matrix, g)
            for slab in slabs(layer, matrix, engine.slab_nbytes):
                future = self._submit(_encode, engine, slab, recipe, g, sink)
                tasks.append(_Task(layer.name, matrix.name, slab.nbytes, future))
        return scales if recipe.format.tensor_scale else [], tasks

    def gather(self) -> Iterator[tuple[str, int, list[LayerDone | Warned]]]:
        """Yields (layer name, bytes, events) as tasks end."""
        for choice, scales, tasks in self._plan:
            parts = []
            for task in tasks:
                parts.append(task.future.result())
                yield task.layer, task.nbytes, []
            census = self._first.censuses[choice.layer.name]
            result = layer_result(choice, census if census.count else None, parts, scales)
            yield choice.layer.name, 0, [LayerDone(result), *_warnings(result)]


@dataclass(frozen=True, slots=True)
class _Task(Generic[T]):
    layer: str
    matrix: str
    nbytes: int
    future: Future[T]


def _multipliers(scope: list[Choice], peaks: dict[str, float], sink: Sink) -> dict[str, float]:
    """The multiplier of each matrix with three tiers: one for all matrices of a fused group."""
    tiered = [choice for choice in scope if choice.recipe and choice.recipe.format.tensor_scale]
    groups: dict[str, float] = defaultdict(float)
    members = [(matrix.name, matrix.group or matrix.name) for c in tiered for matrix in c.layer.matrices]
    for name, group in members:
        groups[group] = max(groups[group], peaks[name])
    return {name: sink.agreed_scale(float(tensor_scale(groups[group]))) for name, group in members}


def _count(engine: Engine, slab: Slab) -> Census:
    return engine.backend.census(read_slab(slab, engine.scratch))


def _copy_rows(engine: Engine, slab: Slab, before: int, sink: Sink) -> Census:
    weight = read_slab(slab, engine.scratch)
    itemsize = WEIGHT_DTYPES[slab.layer.kept_dtype].itemsize
    sink.write_kept(slab.layer, before * itemsize, kept_bytes(slab, weight))
    return engine.backend.census(weight)


def _copy(engine: Engine, layer: Layer, start: int, size: int, sink: Sink) -> Census:
    """Copy bytes of a kept layer as they are; floats are counted on the way."""
    raw = engine.scratch.take(size)
    layer.stored.file.read_into(raw.data, layer.tensor.start + start)
    sink.write_kept(layer, start, raw)
    dtype = WEIGHT_DTYPES.get(layer.tensor.dtype)
    return engine.backend.census(raw.view(dtype).reshape(1, -1)) if dtype is not None and size else Census.empty()


def _encode(engine: Engine, slab: Slab, recipe: Recipe, g: float, sink: Sink) -> Fidelity:
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
        quantized, fidelity = encode(engine.backend, slab.layer, read_slab(slab, engine.scratch), recipe, g)
    if not math.isfinite(fidelity.max_error) or not _has_finite_scales(quantized):
        what = f"holds weights so large that {recipe.format.name} decodes them to infinity"
        hint = "keep it, or choose another format for it"
        raise CheckpointError(what, file=slab.layer.stored.file.path.name, tensor=slab.layer.tensor.name, hint=hint)
    sink.write_slab(slab, quantized)
    return fidelity


def _has_finite_scales(quantized: Quantized) -> bool:
    """False where the range of an affine block is larger than its dtype holds."""
    parts = (quantized.scales, quantized.biases) if quantized.format.affine else ()
    return all(np.isfinite(part.astype(np.float32)).all() for part in parts if part is not None)


def _chunks(layer: Layer, nbytes: int) -> list[tuple[int, int]]:
    size = layer.tensor.nbytes
    return [(start, min(nbytes, size - start)) for start in range(0, size, nbytes)]


def _check_finite(layer: Layer, census: Census) -> None:
    if census.nan or census.infinite:
        what = f"holds {census.nan:,} NaN and {census.infinite:,} Inf among {census.count:,} weights"
        hint = "the source is damaged; --skip-nonfinite keeps such tensors as they are"
        raise CheckpointError(what, file=layer.stored.file.path.name, tensor=layer.tensor.name, hint=hint)


def _warnings(result: LayerResult) -> list[Warned]:
    found = []
    statistics = result.statistics
    name = printable(result.name)
    if statistics and (statistics.nan or statistics.infinite):
        found.append(Warned(f"{name}: copied with {statistics.nan:,} NaN and {statistics.infinite:,} Inf in it"))
    remedy = "try three tiers or keep it" if result.format == "nvfp4-2t" else "keep it, or choose a finer format"
    return [*found, *(Warned(f"{name}: {loss}; {remedy}") for loss in result.losses)]


def nonfinite(engine: Engine, choices: Sequence[Choice]) -> dict[str, int]:
    """Layer name -> number of NaN and Inf, for layers that are to be quantized and hold any."""
    found: dict[str, int] = defaultdict(int)
    with Tasks(engine.pool) as tasks:
        for choice in choices:
            parts = [slab for m in choice.layer.matrices for slab in slabs(choice.layer, m, engine.slab_nbytes)]
            futures = [tasks.submit(_count, engine, slab) for slab in parts] if choice.recipe else []
            for future in futures:
                census = future.result()
                found[choice.layer.name] += census.nan + census.infinite
    return {name: count for name, count in found.items() if count}
