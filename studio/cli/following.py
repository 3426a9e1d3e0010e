"""Following jobs: their events are shown as they come, and what they end in is given."""

from collections.abc import Generator, Iterator
from dataclasses import asdict
from typing import TypeVar

from studio import core
from studio.cli.console import Console
from studio.cli.rendering.findings import show_findings, show_repairs

T = TypeVar("T")


def follow(events: Iterator[core.Event], console: Console) -> core.Outcome:
    """Run a job to its end, showing its events; the generator is closed whatever happens."""
    outcome = None
    for event in shown(events, console):
        match event:
            case core.LayerDone(result) if console.as_json:
                console.emit("layer", **result.to_json())
            case core.Resumed(shard, nbytes):
                console.log(f"resumed: {core.size_text(nbytes)} of {shard} are finished already")
                console.emit("resumed", shard=shard, nbytes=nbytes)
            case core.ShardWritten(shard, nbytes, digest):
                console.emit("shard", shard=shard, nbytes=nbytes, sha256=digest)
            case core.Finished(found):
                outcome = found
    assert outcome is not None
    return outcome


def returned(events: Generator[core.Event, None, T], console: Console) -> T:
    """Run a job to its end, showing its events; gives what it returns."""
    found: list[T] = []

    def kept() -> Generator[core.Event, None, None]:
        found.append((yield from events))

    for _ in shown(kept(), console):
        pass
    return found[0]


def follow_examination(events: Iterator[core.Event], console: Console) -> core.Examination:
    """What was found at last: of the folder, or of its repaired copy."""
    for event in shown(events, console):
        match event:
            case core.FindingMade(found):
                console.log(f"found: {found.severity}: {found.kind}")
            case core.Repaired():
                show_repairs(event, console)
                return event.after
            case core.Examined(examination):
                show_findings(examination, console)
                return examination
    raise AssertionError("an examination without an end")


def follow_evaluation(events: Iterator[core.Event], console: Console) -> core.Quality:
    """What an evaluation found, each model told as it comes."""
    for event in shown(events, console):
        match event:
            case core.ModelDone(row):
                console.emit("model", **row.to_json())
            case core.EvaluationDone(quality):
                return quality
    raise AssertionError("an evaluation without an end")


def follow_publication(events: Iterator[core.Event], console: Console) -> core.Published:
    """What lies at the repository at last."""
    for event in shown(events, console):
        if isinstance(event, core.Published):
            return event
    raise AssertionError("a publication without an end")


_UNITS = {"calibrate": "tokens", "evaluate": "tokens"}
"""What phases count that do not count bytes."""


def shown(events: Iterator[core.Event], console: Console) -> Iterator[core.Event]:
    """The events that are of one kind of job only; those of all are shown. Closes the job whatever happens."""
    try:
        for event in events:
            match event:
                case core.Started(phase, total, layers):
                    console.start_progress(phase, total, _UNITS.get(phase, ""))
                    console.emit("started", phase=phase, total=total, layers=layers)
                case core.Progress(_, done, layer):
                    console.progress(done, layer)
                case core.Working(workers):
                    console.show_workers([_worker_text(worker) for worker in workers])
                    console.emit("working", workers=[asdict(worker) for worker in workers])
                case core.Warned(message):
                    console.log(f"warning: {message}")
                    console.emit("warning", message=message)
                case core.Occupies(folder, nbytes):
                    console.log(f"takes up to {core.size_text(nbytes)} in {folder} while it runs")
                    console.emit("occupies", folder=str(folder), nbytes=nbytes)
                case _:
                    yield event
    finally:
        console.stop_progress()
        if hasattr(events, "close"):
            events.close()


_QUIET = 5.0
"""Seconds after which it is told that nothing was heard of a worker: it tells twice a second how far it is."""


def _worker_text(worker: core.WorkerRate) -> str:
    silent = f", silent for {worker.silent:.0f} s" if worker.part and worker.silent > _QUIET else ""
    doing = f"{core.size_text(worker.rate)}/s, {core.printable(worker.part, 60)}" if worker.part else "waits"
    return f"{worker.name}: {doing}{silent}"
