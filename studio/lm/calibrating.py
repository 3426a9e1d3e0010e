"""calibrate: run a model on text and write what it tells of the inputs of its layers."""

import argparse
import time
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

from studio.core.errors import StudioError
from studio.core.model import Model
from studio.core.opening.checkpoint import open_model
from studio.core.statistics.digest import model_digest
from studio.core.statistics.file import write_statistics
from studio.lm.inputs import Rows
from studio.lm.names import matrices
from studio.lm.protocol import Channel
from studio.lm.running import Portions, Running, portions, start
from studio.lm.runtimes import choose_runtime
from studio.lm.sums import Kept, Sums
from studio.lm.texts import Windows, read_text, windows


def calibrate_arguments(parser: argparse.ArgumentParser) -> None:
    """What `calibrate` takes."""
    parser.add_argument("source", type=Path)
    parser.add_argument("--text", type=Path, action="append", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--windows", type=int, required=True)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--max-memory", type=int, default=0)


def calibrate(options: argparse.Namespace, channel: Channel) -> None:
    """Gather statistics and write them; tells a result with what is in the file."""
    began = time.monotonic()
    with open_model(options.source) as model:
        model.check_plain()
        text = windows(read_text(options.text), model.folder, options.windows, options.length, options.seed)
        for warning in text.warnings:
            channel.warn(warning)
        runtime = choose_runtime(model.config, model.folder, model.nbytes)
        given = portions(model, runtime, options.length, options.max_memory)
        running = start(model)
        about = {
            "model_digest": model_digest(model),
            "text_digest": text.digest,
            "seed": str(options.seed),
            "runtime": running.runtime,
        }
        layout = {"windows": len(text.tokens), "length": options.length, "batch": given.batch, "round": given.round}
        kept = Kept(options.out, {**about, **layout})
        try:
            if kept.discarded:
                channel.warn(kept.discarded)
            steps = _gather(running, model, text, given, kept, channel)
            _write(options.out, kept, steps, text, about, channel, began)
            kept.remove()
        finally:
            kept.close()


def _gather(running: Running, model: Model, text: Windows, given: Portions, kept: Kept, channel: Channel) -> int:
    """Run all rounds that are not kept; returns the number of steps of a round."""
    rounds = given.rounds(text.tokens)
    total = model.nbytes * len(rounds)
    channel.started(total, "")
    channel.progress(model.nbytes * kept.rounds, "")
    for number in range(kept.rounds, len(rounds)):
        batches = given.batches(rounds[number])
        tick = _ticker(channel, number * model.nbytes, model.nbytes, max(running.block_count, 1), len(batches))
        gathered = Gathering(model)
        for step in running.steps(batches, gathered.add, tick):
            kept.write(number, step, gathered.taken(kept.read(number - 1, step) if number else {}))
        kept.finish(number)
    return max(running.block_count, 0) + 1


def _ticker(channel: Channel, done: int, nbytes: int, blocks: int, batches: int) -> Callable[[], None]:
    """Tells the progress each time that a batch has passed a block, as a share of the bytes of the weights."""
    passed = count(1)

    def tick() -> None:
        number = next(passed)
        channel.progress(done + nbytes * number // (blocks * batches), f"block {(number - 1) // batches}")

    return tick


class Gathering:
    """The sums of the step at hand."""

    def __init__(self, model: Model) -> None:
        self._order = {matrix.name: place for place, (_, matrix) in enumerate(matrices(model))}
        self._sums: dict[tuple[str, ...], Sums] = {}

    def add(self, names: tuple[str, ...], rows: Rows) -> None:
        """Take inputs that go into the matrices of these names."""
        ordered = tuple(sorted(names, key=self._order.__getitem__))
        self._sums.setdefault(ordered, Sums(rows.shape[1])).add(rows, ordered[0])

    def taken(self, before: Mapping[tuple[str, ...], Sums]) -> dict[tuple[str, ...], Sums]:
        """The sums of this step added to those `before`, in file order; the next step begins."""
        now, self._sums = self._sums, {}
        if before and before.keys() != now.keys():
            raise StudioError("the model took another way through its layers than before, which no sum can bear")
        for names, sums in now.items():
            if names in before:
                earlier = before[names]
                earlier.include(sums)
                now[names] = earlier
        return dict(sorted(now.items(), key=lambda item: self._order[item[0][0]]))


def _write(
    out: Path, kept: Kept, steps: int, text: Windows, about: Mapping[str, str], channel: Channel, began: float
) -> None:
    shapes = kept.shapes(steps)
    write_statistics(out, list(shapes), lambda shape: kept.inputs_of(shape, shapes[shape]), text.tokens, about)
    channel.result(
        path=str(out),
        nbytes=out.stat().st_size,
        tokens=int(text.tokens.size),
        windows=len(text.tokens),
        matrices=sum(len(shape.names) for shape in shapes),
        inputs=len(shapes),
        idle=[name for shape in shapes if not shape.tokens for name in shape.names],
        runtime=about["runtime"],
        seconds=time.monotonic() - began,
    )
