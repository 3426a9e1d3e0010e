"""calibrate: run a model on text and write what it tells of the inputs of its layers."""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from studio.core.errors import CheckpointError, StudioError
from studio.core.model import Model
from studio.core.opening.checkpoint import open_model
from studio.core.statistics.digest import model_digest
from studio.core.statistics.file import Shape, write_statistics
from studio.lm.inputs import Rows
from studio.lm.names import matrices
from studio.lm.protocol import Channel
from studio.lm.running import Portions, Running, start_fitting
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
        _check_folder(model)
        text = windows(read_text(options.text), model.folder, options.windows, options.length, options.seed)
        for warning in text.warnings:
            channel.warn(warning)
        running, given = start_fitting(model, options.length, options.max_memory)
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
            shapes = kept.shapes(steps)
            write_statistics(
                options.out, list(shapes), lambda shape: kept.inputs_of(shape, shapes[shape]), text.tokens, about
            )
            kept.remove()
            channel.result(
                path=str(options.out),
                nbytes=options.out.stat().st_size,
                tokens=text.tokens.size,
                runtime=running.runtime,
                seconds=time.monotonic() - began,
                **_summary(model, list(shapes)),
            )
        finally:
            kept.close()


def _check_folder(model: Model) -> None:
    """Raise CheckpointError for files that are no folder which a runtime loads."""
    if model.container == "gguf":
        hint = "gather them on the original, or export this one in plain weights; the file goes with both"
        raise CheckpointError("no runtime runs GGUF files here", file=model.path, hint=hint)


def _gather(running: Running, model: Model, text: Windows, given: Portions, kept: Kept, channel: Channel) -> int:
    """Run all rounds that are not kept; returns the number of steps of a round."""
    rounds = given.rounds(text.tokens)
    channel.started(text.tokens.size, "")
    done = sum(part.size for part in rounds[: kept.rounds])
    for number in range(kept.rounds, len(rounds)):
        batches = given.batches(rounds[number])
        tick = _ticker(channel, done, rounds[number].size, max(running.block_count, 1), len(batches))
        gathered = Gathering(model)
        for step in running.steps(batches, gathered.add, tick):
            kept.write(number, step, gathered.taken(kept.read(number - 1, step) if number else {}))
        kept.finish(number)
        done += rounds[number].size
    return max(running.block_count, 0) + 1


def _ticker(channel: Channel, done: int, tokens: int, blocks: int, batches: int) -> Callable[[], None]:
    """Tells the progress each time that a batch has passed a block, as a share of the tokens of its round."""
    passed = count(1)

    def tick() -> None:
        number = next(passed)
        channel.progress(done + tokens * number // (blocks * batches), f"block {(number - 1) // batches}")

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


def _summary(model: Model, shapes: Sequence[Shape]) -> dict[str, Any]:
    """Of how many matrices there are statistics, and of which there are none or of no token."""
    seen = {name for shape in shapes for name in shape.names}
    wanted = (matrix.name for layer, matrix in matrices(model) if layer.role in ("linear", "expert"))
    return {
        "matrices": len(seen),
        "idle": [name for shape in shapes if not shape.tokens for name in shape.names],
        "unseen": [name for name in wanted if name not in seen],
    }
