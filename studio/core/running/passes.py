"""The two passes over a batch: the first counts its weights, which gives the tensor scales, the second encodes."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

import numpy as np

from kernels import Census, Fidelity, Quantized, Recipe
from kernels.fidelity import AnyCensus
from kernels.methods import STORED
from kernels.reference import multiplier
from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.counting import counted
from studio.core.errors import CheckpointError
from studio.core.events import LayerDone, Warned
from studio.core.model import Layer
from studio.core.names import printable
from studio.core.planning.plan import Choice
from studio.core.results import LayerResult, Statistics, layer_result, statistics
from studio.core.running.encoding import encode, measured, taken_over
from studio.core.running.engine import Engine, KeptForm, Sink
from studio.core.running.reading import Slab, kept_bytes, kept_slabs, read_slab, slabs, whole_slab
from studio.core.running.tallies import CensusTally, ErrorTally, census_of
from studio.core.running.tasks import Tasks, bundles

T = TypeVar("T")


@dataclass(slots=True)
class _Step(Generic[T]):
    """A slab of a layer, or bytes of it: what is to be done with them. `last` is True for the last step of a layer."""

    choice: Choice
    matrix: str
    nbytes: int
    job: Callable[[], T]
    first: bool
    last: bool


def _steps(choice: Choice, parts: Iterable[tuple[str, int, Callable[[], T]]]) -> Iterator[_Step[T]]:
    found = iter(parts)
    part, first = next(found, None), True
    while part is not None:
        following = next(found, None)
        yield _Step(choice, *part, first=first, last=following is None)
        part, first = following, False


@dataclass(slots=True)
class _Counted:
    """What a task counted of one layer: a tally, or what that says where it is complete."""

    choice: Choice
    nbytes: int = 0
    peaks: dict[str, float] = field(default_factory=dict)
    tally: CensusTally = field(default_factory=CensusTally)
    known: "_Known | None" = None
    first: bool = False
    last: bool = False

    def add(self, step: _Step[AnyCensus]) -> None:
        census = step.job()
        self.tally.add(census)
        self.nbytes += step.nbytes
        self.peaks[step.matrix] = max(self.peaks.get(step.matrix, 0.0), census.max_abs)
        self.first, self.last = self.first or step.first, step.last

    def settle(self) -> None:
        """Keep what the complete tally says instead of it, which is large."""
        self.known = _known(self.choice.layer, self.tally.census())
        self.tally = CensusTally()


@dataclass(frozen=True, slots=True)
class _Known:
    count: int = 0
    statistics: Statistics | None = None


def _known(layer: Layer, census: AnyCensus) -> _Known:
    if layer.dtype == "BF16" and isinstance(census, Census):
        census = Census.from_bfloat16_counts(census.counts)
    count = census.count
    return _Known(count, statistics(census) if count else None)


def _counted(bundle: list[_Step[AnyCensus]]) -> list[_Counted]:
    found: list[_Counted] = []
    with _held(bundle):
        for step in bundle:
            if not found or found[-1].choice is not step.choice:
                found.append(_Counted(step.choice))
            found[-1].add(step)
            if found[-1].first and step.last:
                found[-1].settle()
    return found


def _held(bundle: list[_Step[T]]) -> AbstractContextManager[None]:
    """The file of the first of several steps, opened once for all of them: small layers are most often of one file."""
    return bundle[0].choice.layer.stored.file.held() if len(bundle) > 1 else nullcontext()


class FirstPass:
    """Counts the weights of a batch, and copies the layers that are kept."""

    def __init__(self, engine: Engine, tasks: Tasks, batch: list[Choice], sink: Sink) -> None:
        self.batch = batch
        self.known: dict[str, _Known] = {}
        self.peaks: dict[tuple[str, str], float] = {}
        steps = (step for choice in batch for step in _steps(choice, _first_parts(engine, choice, sink)))
        self._results = tasks.in_order(partial(_counted, bundle) for bundle in bundles(steps))

    def gather(self) -> Iterator[tuple[str, int]]:
        """Yields (layer name, bytes) as tasks end; afterwards `known` and `peaks` are complete and checked."""
        tally = CensusTally()
        for found in self._results:
            for part in found:
                if part.known is None:
                    tally.merge(part.tally)
                    if part.last:
                        part.tally, tally = tally, CensusTally()
                        part.settle()
                self._note(part)
            yield found[-1].choice.layer.name, sum(part.nbytes for part in found)

    def _note(self, part: _Counted) -> None:
        name = part.choice.layer.name
        for matrix, peak in part.peaks.items():
            self.peaks[name, matrix] = max(self.peaks.get((name, matrix), 0.0), peak)
        if part.known is not None:
            self.known[name] = part.known
            if part.choice.recipe:
                _check_finite(part.choice.layer, part.known)


_Parts = Iterator[tuple[str, int, Callable[[], T]]]


def _first_parts(engine: Engine, choice: Choice, sink: Sink) -> _Parts[AnyCensus]:
    layer = choice.layer
    if choice.recipe is None:
        yield from _kept_parts(engine, layer, sink, sink.kept_form(layer))
        return
    for matrix in layer.matrices:
        for slab in slabs(layer, matrix, engine.slab_nbytes):
            yield matrix.name, slab.nbytes, partial(_count, engine, slab)


def _kept_parts(engine: Engine, layer: Layer, sink: Sink, form: KeptForm) -> _Parts[AnyCensus]:
    if form == "whole" and layer.widened:
        slab = whole_slab(layer)
        yield "", slab.nbytes, partial(_copy_rows, engine, slab, 0, sink)
        return
    if form == "rows" or layer.widened:
        for slab, before in kept_slabs(layer, by_matrix=form == "rows", nbytes=engine.slab_nbytes):
            yield "", slab.nbytes, partial(_copy_rows, engine, slab, before, sink)
        return
    for start, size in _chunks(layer, layer.tensor.nbytes if form == "whole" else engine.slab_nbytes):
        yield "", size, partial(_copy, engine, layer, start, size, sink)


@dataclass(slots=True)
class _Encoded:
    """What a task encoded of one layer."""

    choice: Choice
    nbytes: int = 0
    errors: ErrorTally = field(default_factory=ErrorTally)
    last: bool = False


def _encoded(bundle: list[_Step[Fidelity]]) -> list[_Encoded]:
    found: list[_Encoded] = []
    with _held(bundle):
        for step in bundle:
            if not found or found[-1].choice is not step.choice:
                found.append(_Encoded(step.choice))
            part = found[-1]
            part.errors.add(step.job())
            part.nbytes += step.nbytes
            part.last = step.last
    return found


class SecondPass:
    """Encodes the layers of a batch with the tensor scales that the first pass gave."""

    def __init__(self, engine: Engine, tasks: Tasks, first: FirstPass, sink: Sink) -> None:
        self._first = first
        self._multipliers = multipliers(first.batch, first.peaks, sink)
        steps = (step for c in first.batch for step in _steps(c, self._parts(engine, c, sink)))
        self._results = tasks.in_order(partial(_encoded, bundle) for bundle in bundles(steps))

    def _parts(self, engine: Engine, choice: Choice, sink: Sink) -> _Parts[Fidelity]:
        layer, recipe = choice.layer, choice.recipe
        for matrix in layer.matrices if recipe else ():
            assert recipe is not None
            g = self._multipliers.get((layer.name, matrix.name), 1.0)
            sink.write_scale(choice, matrix, g)
            read = sink.agreed_scale(g) if choice.taken_over else g
            for slab in slabs(layer, matrix, engine.slab_nbytes, recipe.format.height):
                yield matrix.name, slab.nbytes, partial(_encode, engine, slab, recipe, read, sink)

    def gather(self) -> Iterator[tuple[str, int, list[LayerDone | Warned]]]:
        """Yields (layer name, bytes, events) as tasks end."""
        parts = (part for found in self._results for part in found)
        for choice in self._first.batch:
            errors = ErrorTally()
            name, nbytes = choice.layer.name, 0
            for part in parts if _has_steps(choice) else ():
                errors.merge(part.errors)
                nbytes += part.nbytes
                if part.last:
                    break
                yield name, nbytes, []
                nbytes = 0
            result = layer_result(choice, self._statistics(name), errors, self._scales(choice))
            yield name, nbytes, [LayerDone(result), *_warnings(result)]

    def _statistics(self, name: str) -> Statistics | None:
        return self._first.known.get(name, _Known()).statistics

    def _scales(self, choice: Choice) -> list[float]:
        if not (choice.recipe and choice.recipe.format.tensor_scale):
            return []
        return [self._multipliers.get((choice.layer.name, matrix.name), 1.0) for matrix in choice.layer.matrices]


def _has_steps(choice: Choice) -> bool:
    return choice.recipe is not None and any(matrix.rows for matrix in choice.layer.matrices)


def multipliers(batch: list[Choice], peaks: dict[tuple[str, str], float], sink: Sink) -> dict[tuple[str, str], float]:
    """(layer, matrix) -> multiplier of each matrix with three tiers: one for all matrices of a fused group."""
    tiered = [c for c in batch if c.recipe and c.recipe.format.tensor_scale and not c.taken_over]
    groups: dict[tuple[str, str], float] = defaultdict(float)
    keys = {
        (c.layer.name, matrix.name): ("", matrix.group) if matrix.group else (c.layer.name, matrix.name)
        for c in tiered
        for matrix in c.layer.matrices
    }
    ruling: dict[tuple[str, str], Recipe] = {}
    recipes = {c.layer.name: c.recipe for c in tiered}
    for key, group in keys.items():
        groups[group] = max(groups[group], peaks.get(key, 0.0))
        if chosen := recipes[key[0]]:
            known = ruling.setdefault(group, chosen)
            ruling[group] = min(known, chosen, key=lambda one: one.divisor)
    agreed = {group: _agreed(peak, ruling[group], sink) for group, peak in groups.items()}
    taken = (
        ((c.layer.name, matrix.name), g)
        for c in batch
        for matrix, g in zip(c.layer.matrices, c.multipliers, strict=False)
    )
    return {**{key: agreed[group] for key, group in keys.items()}, **dict(taken)}


def _agreed(peak: float, recipe: Recipe, sink: Sink) -> float:
    """The multiplier as readers compute it; scales of tiles are stored as they are."""
    g = float(multiplier(peak, recipe))
    return g if recipe.format.scale == "float32" else sink.agreed_scale(g)


def _count(engine: Engine, slab: Slab) -> AnyCensus:
    return census_of(engine.backend, read_slab(slab, engine.scratch))


def _copy_rows(engine: Engine, slab: Slab, before: int, sink: Sink) -> AnyCensus:
    weight = read_slab(slab, engine.scratch)
    itemsize = WEIGHT_DTYPES[slab.layer.kept_dtype].itemsize
    sink.write_kept(slab.layer, before * itemsize, kept_bytes(slab, weight))
    return census_of(engine.backend, weight)


def _copy(engine: Engine, layer: Layer, start: int, size: int, sink: Sink) -> AnyCensus:
    """Copy bytes of a kept layer as they are; floats are counted on the way."""
    raw = engine.scratch.take(size)
    layer.stored.file.read_into(raw.data, layer.tensor.start + start)
    sink.write_kept(layer, start, raw)
    dtype = WEIGHT_DTYPES.get(layer.tensor.dtype)
    return census_of(engine.backend, raw.view(dtype).reshape(1, -1)) if dtype is not None and size else Census.empty()


def _encode(engine: Engine, slab: Slab, recipe: Recipe, g: float, sink: Sink) -> Fidelity:
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
        weights = read_slab(slab, engine.scratch)
        if recipe.method == STORED:
            found = slab.layer.source.packed(slab.matrix, slab.start, slab.stop)
            quantized = taken_over(slab.layer, found, recipe.format, g)
            fidelity = measured(engine.backend, weights, quantized)
        elif engine.solved and recipe.method == "feedback":
            quantized = engine.solved.read(slab.matrix, recipe.format, slab.start, slab.stop)
            fidelity = measured(engine.backend, weights, quantized)
        else:
            quantized, fidelity = encode(engine.backend, slab.layer, slab.matrix, weights, recipe, g)
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


def _check_finite(layer: Layer, known: _Known) -> None:
    found = known.statistics
    if found and (found.nan or found.infinite):
        what = f"holds {found.nan:,} NaN and {found.infinite:,} Inf among {counted(known.count, 'weight')}"
        hint = "the source is damaged; --skip-nonfinite keeps such tensors as they are"
        raise CheckpointError(what, file=layer.stored.file.path.name, tensor=layer.tensor.name, hint=hint)


def _warnings(result: LayerResult) -> list[Warned]:
    found = []
    statistics = result.statistics
    if statistics and (statistics.nan or statistics.infinite):
        found.append(f"copied with {statistics.nan:,} NaN and {statistics.infinite:,} Inf in it")
    remedy = "try three tiers or keep it" if result.format == "nvfp4-2t" else "keep it, or choose a finer format"
    found += [f"{loss}; {remedy}" for loss in result.losses]
    return [Warned(f"{printable(result.name)}: {text}") for text in found]


def nonfinite(engine: Engine, choices: Sequence[Choice]) -> dict[str, int]:
    """Layer name -> number of NaN and Inf, for layers that are to be quantized and hold any."""
    found: dict[str, int] = defaultdict(int)
    chosen = (choice for choice in choices if choice.recipe)
    steps = (step for choice in chosen for step in _steps(choice, _first_parts(engine, choice, Sink())))
    with engine.tasks() as tasks:
        for counts in tasks.in_order(partial(_bad, bundle) for bundle in bundles(steps)):
            for name, count in counts:
                found[name] += count
    return {name: count for name, count in found.items() if count}


def _bad(bundle: list[_Step[AnyCensus]]) -> list[tuple[str, int]]:
    found = ((step.choice.layer.name, step.job()) for step in bundle)
    return [(name, census.nan + census.infinite) for name, census in found]
