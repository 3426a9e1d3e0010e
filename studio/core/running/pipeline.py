"""The pipeline: layers go in, events and encoded slabs come out; threads overlap reading, computing and writing.

Work is cut into slabs of rows, small ones are bundled into one task. A scope is a set of layers that share tensor
scales, a batch is one scope or several small ones. Pass 1 counts its weights, which gives the tensor scales, pass 2
encodes; pass 1 of the next batch runs while pass 2 of this one does. What tasks return is folded in the order of the
slabs as it comes, and only a window of tasks is under way: memory does not grow with a layer or with their number.
"""

from collections.abc import Iterable, Iterator, Sequence

from studio.core.events import LayerDone, Progress, Warned
from studio.core.model import Layer
from studio.core.planning.plan import Choice
from studio.core.running.engine import Engine, Sink
from studio.core.running.passes import FirstPass, SecondPass
from studio.core.running.read_ahead import ReadAhead
from studio.core.running.reading import SLAB_NBYTES
from studio.core.running.tasks import BUNDLE_STEPS

PipelineEvent = Progress | LayerDone | Warned


def scopes(choices: Sequence[Choice]) -> list[list[Choice]]:
    """The choices in order, those that share a tensor scale together."""
    found: dict[str, list[Choice]] = {}
    for choice in choices:
        found.setdefault(scope_of(choice) or f"={choice.layer.name}", []).append(choice)
    return list(found.values())


def scope_of(choice: Choice) -> str:
    """What choices have in common that share a tensor scale; "" for one that shares none."""
    return choice.layer.group if choice.recipe and choice.recipe.format.tensor_scale else ""


def work(choices: Sequence[Choice]) -> int:
    """Bytes that the pipeline will read for `choices`, both passes counted."""
    return sum(choice.layer.tensor.nbytes * (2 if choice.recipe else 1) for choice in choices)


def run(engine: Engine, choices: Sequence[Choice], sink: Sink, done: int = 0) -> Iterator[PipelineEvent]:
    """Work through `choices`; progress counts on from `done` bytes.

    Raises CheckpointError for NaN or Inf in a weight that is to be quantized.
    """
    todo = scopes(choices)
    return run_scopes(engine, batches(todo, engine.threads), (c.layer for scope in todo for c in scope), sink, done)


def batches(todo: Iterable[list[Choice]], threads: int) -> Iterator[list[Choice]]:
    """The choices of scopes, small scopes together, so that there is work for all threads."""
    batch: list[Choice] = []
    room = threads * SLAB_NBYTES
    for scope in todo:
        nbytes = sum(choice.layer.tensor.nbytes for choice in scope)
        if batch and (nbytes > room or len(batch) + len(scope) > threads * BUNDLE_STEPS):
            yield batch
            batch, room = [], threads * SLAB_NBYTES
        batch += scope
        room -= nbytes
    if batch:
        yield batch


def run_scopes(
    engine: Engine, todo: Iterable[list[Choice]], layers: Iterable[Layer], sink: Sink, done: int = 0
) -> Iterator[PipelineEvent]:
    """Like `run`, for whole scopes, those of a list together; `layers` are read ahead."""
    ahead = ReadAhead(layers)
    with engine.tasks() as tasks:
        passes = (FirstPass(engine, tasks, batch, sink) for batch in todo)
        first = next(passes, None)
        while first is not None:
            for name, nbytes in first.gather():
                ahead.consume(nbytes)
                done += nbytes
                yield Progress("quantize", done, name)
            second = SecondPass(engine, tasks, first, sink)
            first = next(passes, None)
            for name, nbytes, results in second.gather():
                done += nbytes
                yield Progress("quantize", done, name)
                yield from results
