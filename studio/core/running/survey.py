"""survey: measure layer after layer; one that can not be measured is reported, and the others go on."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from studio.core.errors import CheckpointError
from studio.core.events import Event, LayerDone, Progress, Started
from studio.core.model import Layer, Model
from studio.core.planning.plan import Choice
from studio.core.running.engine import Engine, Sink
from studio.core.running.feedback import feed_forward
from studio.core.running.pipeline import batches, run, run_scopes, scopes, work
from studio.core.running.solved import seen_solved
from studio.core.running.spread import PartDone, Spread, layer_parts


@dataclass(frozen=True, slots=True)
class LayerFailed:
    """One layer can not be measured; `error` says why."""

    name: str
    error: CheckpointError


def survey(
    engine: Engine, model: Model, choices: Sequence[Choice], spread: Spread | None = None
) -> Iterator[Event | LayerFailed]:
    """Like `measure`, for a window: a damaged layer does not end the job, and there is no outcome at the end.

    Error feedback comes first, for all layers that have it; there a damaged layer ends the job.
    """
    with TemporaryDirectory(prefix="nvfp4-studio-") as folder:
        ready = yield from feed_forward(engine, model, choices, Path(folder), Sink())
        yield Started("measure", work(choices), len(choices))
        if spread:
            yield from measured_elsewhere(ready, choices, spread, folder, past_faults=True)
        else:
            yield from _survey(ready, choices)
    model.check_unchanged()


def measured_elsewhere(
    ready: Engine, choices: Sequence[Choice], spread: Spread, folder: str, *, past_faults: bool = False
) -> Iterator[Event | LayerFailed]:
    """Measure layers by `spread`; `folder`: where error feedback put what it solved; `past_faults`: as in `survey`."""
    task = partial(MeasureLayers, solved=folder if ready.solved else "", past_faults=past_faults)
    for event in spread.run("quantize", layer_parts(choices, spread.size, task)):
        if isinstance(event, PartDone):
            yield from event.found
        else:
            yield event


class Opened(Protocol):
    """What a process that measures layers has opened."""

    @property
    def choices(self) -> Sequence[Choice]:
        """What is chosen for every layer."""
        ...


@dataclass(frozen=True, slots=True)
class MeasureLayers:
    """Quantizes layers in memory, all that share a tensor scale; `solved`: where error feedback put what it solved.

    past_faults: a layer that can not be measured does not end it.
    """

    names: tuple[str, ...]
    solved: str = ""
    past_faults: bool = False

    def steps(self, engine: Engine, opened: Opened) -> Generator[Event, None, list[LayerDone | LayerFailed]]:
        """See `studio.core.running.spread.Task`. Raises StudioError."""
        wanted, found = set(self.names), list[LayerDone | LayerFailed]()
        ready = replace(engine, solved=seen_solved(self.solved)) if self.solved else engine
        chosen = [choice for choice in opened.choices if choice.layer.name in wanted]
        for event in _survey(ready, chosen) if self.past_faults else run(ready, chosen, Sink()):
            if isinstance(event, LayerDone | LayerFailed):
                found.append(event)
            else:
                yield event
        return found


def _survey(engine: Engine, choices: Sequence[Choice]) -> Iterator[Event | LayerFailed]:
    left = _Left(choices)
    shown = 0
    while not left.empty:
        try:
            for event in run_scopes(engine, left.batches(engine.threads), left.layers(), Sink(), left.done):
                if isinstance(event, Progress):
                    if event.done < shown:  # what is read again was counted before
                        continue
                    shown = event.done
                if isinstance(event, LayerDone):
                    left.finish(event.result.name)
                yield event
        except CheckpointError as error:
            failed = left.at_fault(error)
            if failed is None:
                raise
            left.finish(failed)
            yield LayerFailed(failed, error)


class _Left:
    """What is left of a survey, in time that does not depend on how much that is.

    Scopes that were begun when a layer failed are begun again, one after another, before the next ones.
    """

    def __init__(self, choices: Sequence[Choice]) -> None:
        self._scopes = scopes(choices)
        self._next = 0
        self._begun: dict[str, list[Choice]] = {}
        self.done = 0

    @property
    def empty(self) -> bool:
        """True when nothing is left."""
        return not self._begun and self._next == len(self._scopes)

    def batches(self, threads: int) -> Iterator[list[Choice]]:
        """What to run now: what was begun before, otherwise all the rest."""
        again = list({id(scope): scope for scope in self._begun.values()}.values())
        if again:
            yield from (list(scope) for scope in again)
            return
        yield from batches(self._rest(), threads)

    def layers(self) -> Iterator[Layer]:
        """The layers that `batches` gives, to be read ahead."""
        if self._begun:
            return iter(())
        rest = range(self._next, len(self._scopes))
        return (choice.layer for index in rest for choice in self._scopes[index])

    def _rest(self) -> Iterator[list[Choice]]:
        while self._next < len(self._scopes):
            scope = self._scopes[self._next]
            self._next += 1
            self._begun |= {choice.layer.name: scope for choice in scope}
            yield list(scope)

    def finish(self, name: str) -> None:
        """A layer is measured, or can not be."""
        scope = self._begun.pop(name)
        index = next(i for i, choice in enumerate(scope) if choice.layer.name == name)
        self.done += work([scope.pop(index)])

    def at_fault(self, error: CheckpointError) -> str | None:
        """The name of the layer that an error is about."""
        begun = (choice for scope in self._begun.values() for choice in scope)
        return next((choice.layer.name for choice in begun if choice.layer.tensor.name == error.tensor), None)
