"""survey: measure layer after layer; one that can not be measured is reported, and the others go on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from studio.core.errors import CheckpointError
from studio.core.events import Event, LayerDone, Progress, Started
from studio.core.model import Model
from studio.core.pipeline import Engine, Sink, run, work
from studio.core.plan import Choice


@dataclass(frozen=True, slots=True)
class LayerFailed:
    """One layer can not be measured; `error` says why."""

    name: str
    error: CheckpointError


def survey(engine: Engine, model: Model, choices: Sequence[Choice]) -> Iterator[Event | LayerFailed]:
    """Like `measure`, for a window: a damaged layer does not end the job, and there is no outcome at the end."""
    total = work(choices)
    yield Started("measure", total, len(choices))
    left = list(choices)
    while left:
        done = total - work(left)
        try:
            for event in run(engine, left, Sink(), done):
                if isinstance(event, LayerDone):
                    left = [choice for choice in left if choice.layer.name != event.result.name]
                if isinstance(event, Progress):
                    done = max(done, event.done)
                yield event
        except CheckpointError as error:
            failed = next((choice for choice in left if choice.layer.tensor.name == error.tensor), None)
            if failed is None:
                raise
            left.remove(failed)
            yield LayerFailed(failed.layer.name, error)
    model.check_unchanged()
