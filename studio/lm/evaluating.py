"""`evaluate`: run checkpoints on windows of text, the source first, and tell the sums of each window.

{"event": "windows", "count": n, "digest": text, "tokens": digest, "runtime": name, "version": text}   once, first
{"event": "window", "index": i, "seconds": s, "tokens": n, "loss": x, "divergence": x, "agreed": n}   sums of a window
{"event": "done"}                                                                  a model is through

After `windows` and each `done` it waits for a line: {"folder": path, "windows": [i, ...], "as": "source", "model" or
"alone"}. What comes as the source is kept on disk below --scratch, for the models that follow. An empty line ends it.
"""

import argparse
import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.core.errors import CheckpointError
from studio.core.exporting.decoded import allocate
from studio.core.exporting.writing import writing
from studio.core.quality.metrics import log_probabilities, tally
from studio.lm.predicting import Predictor, fitting_runtime, load_predictor, runtime_version
from studio.lm.protocol import Channel
from studio.lm.runtimes import RuntimeName
from studio.lm.texts import read_text, windows

SOURCE, MODEL = "source", "model"


def evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `evaluate`."""
    parser.add_argument("folder", type=Path, help="whose tokenizer and architecture count")
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--runtime", default="", choices=("", "mlx-lm", "transformers"))
    parser.add_argument("--windows", type=int, required=True)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)


def evaluate(options: argparse.Namespace, channel: Channel) -> None:
    """Cut the text, then run what the answers name."""
    cut = windows(read_text(options.text), options.folder, options.windows, options.length, options.seed)
    for sentence in cut.warnings:
        channel.warn(sentence)
    runtime = fitting_runtime(options.folder, options.runtime or None)
    channel.tell(
        "windows",
        count=len(cut.tokens),
        digest=cut.digest,
        tokens=hashlib.sha256(cut.tokens.tobytes()).hexdigest(),
        runtime=runtime,
        version=runtime_version(runtime),
    )
    kept = _Kept(options.scratch / "source.float32")
    while line := channel.answer():
        _run(json.loads(line), runtime, cut.tokens, kept, channel)
        channel.tell("done")
    channel.result()


def _run(job: dict[str, Any], runtime: RuntimeName, tokens: NDArray[np.int32], kept: "_Kept", channel: Channel) -> None:
    folder, chosen = Path(job["folder"]), job["windows"]
    if job["as"] == SOURCE:
        kept.windows = chosen
    started = time.monotonic()
    predictor = load_predictor(folder, runtime)
    for index in chosen:
        found = _predicted(predictor, tokens[index])
        if job["as"] == SOURCE:
            kept.put(index, found)
        source = kept.get(index) if job["as"] == MODEL else None
        sums = _tally(found, tokens[index][1:].astype(np.int64), source, folder)
        now = time.monotonic()
        channel.tell("window", index=index, seconds=now - started, **sums)
        started = now


def _predicted(predictor: Predictor, tokens: NDArray[np.int32]) -> NDArray[np.float32]:
    """Log-probabilities [length - 1, words] of the words that follow all tokens but the last."""
    return log_probabilities(predictor.logits(tokens)[:-1])


def _tally(
    found: NDArray[np.float32], targets: NDArray[np.int64], source: NDArray[np.float32] | None, folder: Path
) -> dict[str, Any]:
    try:
        sums = asdict(tally(found, targets, source))
    except (ValueError, IndexError) as error:
        raise CheckpointError(f"predicts other words than it should: {error}", file=folder) from None
    if math.isnan(sums["loss"]):
        what = "the predictions of this model are no numbers"
        raise CheckpointError(what, file=folder, hint="a layer may have lost its range: measure shows which")
    return sums


class _Kept:
    """Log-probabilities of the source for `windows`, float32 [windows, positions, words] in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.windows: Sequence[int] = ()
        self._array: NDArray[np.float32] | None = None

    def put(self, index: int, found: NDArray[np.float32]) -> None:
        """Keep those of a window; the first one tells how much room all take. Raises ExportError when there is none."""
        if self._array is None:
            shape = (len(self.windows), *found.shape)
            with writing(self._path):
                allocate(self._path, 4 * math.prod(shape))
            self._array = np.memmap(self._path, np.float32, "r+", shape=shape)
        self._array[self.windows.index(index)] = found

    def get(self, index: int) -> NDArray[np.float32]:
        """Those of a window that was put."""
        assert self._array is not None
        return np.asarray(self._array[self.windows.index(index)])
