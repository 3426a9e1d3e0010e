"""Evaluation: a source and candidates are run on windows of a text, in a process of its own, and compared."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kernels
from studio.core.architectures.config import number
from studio.core.containers.files import LARGEST_TEXT, read_small
from studio.core.counting import amount_text
from studio.core.errors import ExportError, StudioError
from studio.core.events import EvaluationDone, Event, ModelDone, Occupies, Progress, Started, Warned
from studio.core.model import Model
from studio.core.quality.candidates import (
    Candidate,
    check,
    check_memory,
    decoded_nbytes,
    only_runtime,
    prepare,
    reading_folder,
)
from studio.core.quality.metrics import Tally
from studio.core.quality.results import Evaluated, Quality, Subject, Text, evaluated
from studio.core.quality.window_records import WindowRecords, cache_folder, evaluation_space, identity
from studio.core.running.child import Child, Line
from studio.core.running.engine import Engine

_SUMS = tuple(Tally.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Reading:
    """A text, and how it is cut: at most `windows` windows of `length` tokens, placed by `seed`."""

    texts: tuple[Path, ...]
    windows: int = 32
    length: int = 512
    seed: int = 0

    @property
    def name(self) -> str:
        """Its files, for people."""
        return ", ".join(path.name for path in self.texts)

    def digests(self) -> tuple[tuple[str, str], ...]:
        """(name, SHA-256) of each text. Raises CheckpointError for one that can not be read."""
        found = ((path.name, read_small(path, LARGEST_TEXT)) for path in self.texts)
        return tuple((name, hashlib.sha256(raw).hexdigest()) for name, raw in found)


def evaluation_nbytes(model: Model, reading: Reading) -> int:
    """At most how many bytes of disk an evaluation of what plans make of `model`, beside it, takes while it runs."""
    return 4 * model.count + _predictions_nbytes(model, reading.length, reading.windows)


def _predictions_nbytes(model: Model, length: int, windows: int) -> int:
    return 4 * number(model.config, "vocab_size") * (length - 1) * windows


def evaluate(
    started: Engine,
    source: Candidate | None,
    candidates: Sequence[Candidate],
    reading: Reading,
    *,
    runtime: str = "",
    folder: Path | None = None,
    max_memory: int = 0,
) -> Iterator[Event]:
    """Run `source`, then each candidate, on a text; ends with `EvaluationDone`.

    Without a source only perplexity is found. `runtime` is "mlx-lm", "transformers" or "" for the one that fits.
    `max_memory` is what running one model may take, in bytes, 0 for no limit.
    Records of a stopped run, and scratch space, lie in `folder`, by default among the user's caches. Closing the
    generator ends the child at once; the same call then goes on where it stopped. Raises StudioError.
    """
    for candidate in candidates:
        check(candidate, source.model if source else None)
    for model in dict.fromkeys(candidate.model for candidate in candidates):
        yield from check_memory([model], reading.length, max_memory)
    begun, place = time.monotonic(), folder or cache_folder()
    with ExitStack() as stack:
        scratch = stack.enter_context(evaluation_space(place))
        first = reading_folder((source or candidates[0]).model, scratch)
        how = _arguments(first, reading, runtime or only_runtime(source, candidates))
        child = stack.enter_context(Child("evaluate", [*how, "--scratch", str(scratch)]))
        talk = _Talk(child, reading.length)
        cut = yield from talk.until("windows")
        run = _Run(started, source, candidates, reading, cut, place, scratch, talk)
        yield from run.begin()
        rows = yield from run.rows()
        run.forget()
        models, base = (rows[1:], rows[0]) if source else (rows, None)
        text = Text(reading.name, cut["digest"], cut["count"], reading.length, reading.seed)
        seconds = time.monotonic() - begun
        yield EvaluationDone(Quality(tuple(models), base, text, cut["runtime"], cut["version"], seconds))


def _arguments(folder: Path, reading: Reading, runtime: str) -> list[str]:
    cut = {"--windows": reading.windows, "--length": reading.length, "--seed": reading.seed, "--runtime": runtime}
    options = [f"{key}={value}" for key, value in cut.items()]
    return [str(folder.absolute()), *options, "--text", *(str(path.absolute()) for path in reading.texts)]


class _Talk:
    """What is said to the child and by it; `done` counts tokens."""

    def __init__(self, child: Child, length: int) -> None:
        self._child, self._lines, self._length = child, child.lines(), length
        self.done = 0

    def say(self, job: dict[str, Any]) -> None:
        """Give the child something to do."""
        self._child.answer(json.dumps(job))

    def until(self, wanted: str, take: Callable[[Line], None] | None = None) -> Generator[Event, None, Line]:
        """Events until the child says `wanted`; `take` gets the windows that it tells of."""
        what = "starting"
        for line in self._lines:
            match line["event"]:
                case "warning":
                    yield Warned(line["message"])
                case "window" if take:
                    take(line)
                    self.done += self._length
                    what = f"window {line['index'] + 1}"
                case found if found == wanted:
                    return line
            yield Progress("evaluate", self.done, what)
        raise StudioError("the process that ran the model ended without a result")


class _Run:
    """One evaluation: the models, source first, each with its records."""

    def __init__(
        self,
        started: Engine,
        source: Candidate | None,
        candidates: Sequence[Candidate],
        reading: Reading,
        cut: Line,
        place: Path,
        scratch: Path,
        talk: _Talk,
    ) -> None:
        self._started, self._source, self._length, self._talk = started, source, reading.length, talk
        self._scratch, self._count = scratch, int(cut["count"])
        key = {name: cut[name] for name in ("tokens", "runtime", "version")} | {
            "program": kernels.__version__,
            "source": identity(source.model) if source else None,
        }
        self._models = [*([source] if source else []), *candidates]
        self._records = [
            WindowRecords(place, {**key, **model.key(), "is_source": model is source}) for model in self._models
        ]
        self._todo = [records.missing(self._count) for records in self._records]
        if source:
            self._todo[0] = sorted({index for todo in self._todo for index in todo})

    def begin(self) -> Iterator[Event]:
        """What it will take. Raises ExportError when the disk has no room for it."""
        source = self._source.model if self._source else None
        predictions = _predictions_nbytes(source, self._length, len(self._todo[0])) if source else 0
        waiting = [model for model, todo in zip(self._models, self._todo, strict=True) if todo]
        nbytes = predictions + max(map(decoded_nbytes, waiting), default=0)
        free = shutil.disk_usage(self._scratch).free
        if nbytes > free:
            what = f"not enough disk space: {amount_text(nbytes)} are needed, {amount_text(free)} are free"
            raise ExportError(what, file=self._scratch.parent, hint="fewer --windows, or --cache on another disk")
        yield Occupies(self._scratch.parent, nbytes)
        yield Started("evaluate", self._length * sum(map(len, self._todo)), 0)

    def rows(self) -> Generator[Event, None, list[Evaluated]]:
        """Run what is left of each model, and tell its row."""
        rows = []
        for model, records, todo in zip(self._models, self._records, self._todo, strict=True):
            if todo:
                yield from self._run(model, records, todo)
            rows.append(self._row(model, records))
            yield ModelDone(rows[-1], tuple(records.tallies(self._count)))
        return rows

    def _run(self, model: Candidate, records: WindowRecords, todo: list[int]) -> Iterator[Event]:
        begun, folder = time.monotonic(), self._scratch / "model"
        source = self._source.model if self._source else None
        where, facts = yield from prepare(self._started, model, source, folder, records.aside, self._talk.done)
        model.model.check_unchanged()
        records.note({**facts, "seconds": time.monotonic() - begun})
        role = "source" if model is self._source else "model" if source else "alone"
        self._talk.say({"folder": str(where.absolute()), "windows": todo, "as": role})

        def take(line: Line) -> None:
            records.add(line["index"], Tally(**{name: line[name] for name in _SUMS}), line["seconds"])

        yield from self._talk.until("done", take)
        shutil.rmtree(folder, ignore_errors=True)

    def _row(self, model: Candidate, records: WindowRecords) -> Evaluated:
        facts = dict(records.facts)
        seconds = records.seconds + facts.pop("seconds", 0.0)
        subject = Subject(model.name, model.format, model.method, model.guide, predicted=model.predicted, **facts)
        if not self._source or model is self._source:
            return evaluated(subject, records.tallies(self._count), seconds)
        source, first = (found.tallies(self._count) for found in self._records[:2])
        others = None if records is self._records[1] else first
        return evaluated(subject, records.tallies(self._count), seconds, source, others)

    def forget(self) -> None:
        """Remove the records."""
        for records in self._records:
            records.forget()
