"""Jobs: what a front end can ask for, each a generator of events; closing it stops the work."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from kernels import Recipe
from kernels.fidelity import MAGNITUDE_BINS
from kernels.machines import choose
from studio.core.counting import amount_text, counted
from studio.core.errors import BackendError, MemoryLimitError
from studio.core.events import Event, Finished, LayerDone, Lifted, Progress, Started
from studio.core.exporting import steps, verification
from studio.core.exporting.export import Export
from studio.core.model import Model
from studio.core.outcome import Outcome
from studio.core.planning.lift_groups import lift_groups
from studio.core.planning.lifting import (
    LIFTED,
    Lifting,
    Magnitudes,
    check_liftable,
    exponents,
)
from studio.core.planning.plan import Choice
from studio.core.running.engine import Engine, Sink, engine, tasks_under_way
from studio.core.running.feedback import feed_forward
from studio.core.running.magnitudes import magnitudes
from studio.core.running.packed_results import PackedResults
from studio.core.running.passes import nonfinite
from studio.core.running.pipeline import run, work
from studio.core.running.reading import SLAB_NBYTES, slab_memory
from studio.core.running.spread import Spread
from studio.core.running.survey import LayerFailed, measured_elsewhere

if TYPE_CHECKING:
    from kernels.validation import Report

BASE_MEMORY = 64 << 20
"""Bytes for the interpreter, numpy and the program itself."""

MEMORY_PER_LAYER = 2048
"""Bytes for a layer and its result: 1.6 kB were measured with 60,202 layers."""

COUNTED_NBYTES = 2 * 8 * MAGNITUDE_BINS
"""Bytes that the result of a task of the first pass may hold until it is folded."""

SMALLEST_SLAB = 64 << 10


@dataclass(frozen=True, slots=True)
class Machine:
    """What a job may use: a backend by name, threads (0: all processors), bytes of memory (0: no limit)."""

    backend: str = "auto"
    threads: int = 0
    max_memory: int = 0

    @property
    def workers(self) -> int:
        """Number of worker threads."""
        if self.threads:
            return self.threads
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def among(self, workers: int) -> "Machine":
        """What each of so many workers here may use, a share of the threads; for 0, each of other machines: one."""
        share = max(Machine().workers // workers, 1) if workers else 1
        return replace(self, threads=self.threads or share)


@contextmanager
def start(machine: Machine, model: Model | None = None, together: int = 1) -> Iterator[Engine]:
    """An engine on `machine` for work on `model`, with formats that take so many rows `together`, see `rows_together`.

    Raises BackendError or MemoryLimitError.
    """
    try:
        backend = choose(machine.backend)
    except ValueError as error:
        raise BackendError(_plain(error), hint="--backend auto takes the fastest one that works here") from None
    threads, slab = fit_memory(machine, model, together)
    with engine(backend, threads, slab) as started:
        yield started


def rows_together(recipes: Iterable[Recipe | None]) -> int:
    """The rows that must be encoded together: 1, or those of the tallest tiles."""
    return max((recipe.format.height for recipe in recipes if recipe), default=1)


def fit_memory(machine: Machine, model: Model | None, together: int = 1) -> tuple[int, int]:
    """(threads, bytes per slab) that stay within the memory allowed; raises MemoryLimitError when nothing does."""
    threads, slab = machine.workers, SLAB_NBYTES
    limit = machine.max_memory
    while limit and memory_bound(model, threads, slab, together) > limit:
        if slab > SMALLEST_SLAB:
            slab //= 2
        elif threads > 1:
            threads -= 1
        else:
            need = memory_bound(model, 1, SMALLEST_SLAB, together)
            raise MemoryLimitError(f"the work needs {amount_text(need)} of memory, {amount_text(limit)} are allowed")
    return threads, slab


def memory_bound(model: Model | None, threads: int, slab: int, together: int = 1) -> int:
    """Upper bound in bytes of the memory that a job takes; it does not grow with the size of the weights."""
    layers = model.layers if model else ()
    largest = max((slab_memory(layer, slab, together) for layer in layers), default=3 * slab)
    folded = tasks_under_way(threads) * COUNTED_NBYTES
    return BASE_MEMORY + MEMORY_PER_LAYER * len(layers) + (threads + 1) * largest + folded


def measure(started: Engine, model: Model, choices: Sequence[Choice], spread: Spread | None = None) -> Iterator[Event]:
    """Quantize in memory and report what it costs; nothing is written. By `spread`, if there is one."""
    results = PackedResults(choices)
    with TemporaryDirectory(prefix="nvfp4-studio-") as folder:
        ready = yield from feed_forward(started, model, choices, Path(folder), Sink())
        yield Started("measure", work(choices), len(choices))
        for event in _measured(ready, choices, spread, folder):
            if isinstance(event, LayerDone):
                results.add(event.result)
            yield event
    model.check_unchanged()
    whose = f", {counted(spread.size, 'worker')}" if spread else ""
    yield Finished(Outcome(results, backend=f"{started.backend.title}{whose}"))


def _measured(ready: Engine, choices: Sequence[Choice], spread: Spread | None, folder: str) -> Iterator[Event]:
    if spread is None:
        yield from run(ready, choices, Sink())
        return
    for event in measured_elsewhere(ready, choices, spread, folder):
        assert not isinstance(event, LayerFailed)
        yield event


def keep_nonfinite(started: Engine, choices: Sequence[Choice]) -> tuple[Choice, ...]:
    """The choices, with layers that hold NaN or Inf kept instead; reads every chosen weight once."""
    bad = nonfinite(started, choices)
    return tuple(
        replace(choice, recipe=None, reason=f"holds {bad[choice.layer.name]:,} NaN or Inf")
        if choice.layer.name in bad
        else choice
        for choice in choices
    )


def lift(started: Engine, model: Model, choices: Sequence[Choice]) -> Iterator[Event]:
    """Find the powers of two that let the block scales of `choices` lose least; what they touch is read once.

    The choices are those of an `Export`, which its layout can store. The last event is `Lifted`, for `prepare`. Raises
    PlanError when there is nothing that lifting helps.
    """
    formats = {choice.layer.name: choice.format for choice in choices}
    check_liftable(choices)
    groups, refused = lift_groups(model)
    helped = [group for group in groups if any(formats[layer.name] == LIFTED for layer in group.layers)]
    layers = [layer for group in helped for layer in group.layers]
    yield Started("lift", sum(layer.nbytes for layer in layers), len(layers))
    blocked = frozenset(name for name, format_ in formats.items() if format_ == LIFTED)
    sizes = magnitudes(started, layers, blocked)
    powers: dict[str, int] = {}
    done = 0
    for group in helped:
        known: dict[str, Magnitudes] = {}
        for layer, found in islice(sizes, len(group.layers)):
            known[layer.name] = found
            done += layer.nbytes
            yield Progress("lift", done, layer.name)
        powers |= exponents(group, formats, known)
    yield Lifted(Lifting(powers, {name: why for name, why in refused.items() if name in blocked}))


def export(started: Engine, job: Export, spread: Spread | None = None) -> Iterator[Event]:
    """Run an export that `prepare` checked; see `studio.core.exporting.steps.export`."""
    return steps.export(started, job, spread)


def validate(backend: str = "auto", *, quick: bool = False) -> "Report":
    """Run the validation harness on a backend; see `kernels.validation`. Raises BackendError when it is not here."""
    from kernels.validation import run as run_validation

    try:
        return run_validation(backend, quick=quick)
    except (ValueError, ImportError) as error:
        raise BackendError(_plain(error), hint="--backend cpu validates the processor") from None


def verify(started: Engine, place: Path, source: Model | None = None, spread: Spread | None = None) -> Iterator[Event]:
    """Verify an export, or any checkpoint; see `studio.core.exporting.verification.verify`."""
    return verification.verify(started, place, source, spread)


def _plain(error: Exception) -> str:
    """What `kernels` said, without the name of the function in front of it."""
    return re.sub(r"^\[[a-z_]+\] ", "", str(error))
