"""moments: the second moments of all inputs of a block at a time, for error feedback.

{"event": "moment", "names": [...], "columns": K, "tokens": n, "file": path}   [K, K] float32 is in the file; it waits
                                                                               for a line before it goes on
{"event": "without", "names": [...], "tokens": n}                              too few tokens for a matrix of moments
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from studio.core.errors import CheckpointError
from studio.core.exporting.writing import writing
from studio.core.model import Model
from studio.core.opening.checkpoint import open_model
from studio.core.statistics.file import GatheredFile
from studio.lm.inputs import Rows
from studio.lm.names import matrices
from studio.lm.protocol import Channel
from studio.lm.running import Portions, start_fitting

COLUMNS_PER_TOKEN = 8
"""A matrix of moments of K columns needs at least K/8 tokens: of fewer it says more about them than about the model."""


def moments_arguments(parser: argparse.ArgumentParser) -> None:
    """What `moments` takes."""
    parser.add_argument("source", type=Path)
    parser.add_argument("--statistics", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)


def moments(options: argparse.Namespace, channel: Channel) -> None:
    """Run the model on the tokens of a statistics file; tells the moments of each block when all text has passed it."""
    with open_model(options.source) as model:
        tokens = GatheredFile(options.statistics, model).token_ids
        running, usual = start_fitting(model, tokens.shape[1], 0)
        given, products = Portions(usual.batch, len(tokens)), Products(model)
        channel.started(running.block_count, "")
        for step in running.steps(given.batches(tokens), products.add, lambda: None):
            _tell(products, options.scratch, channel)
            channel.progress(min(step + 1, running.block_count), f"block {step}")
        channel.result()


def _tell(products: "Products", scratch: Path, channel: Channel) -> None:
    """Hand over the moments of a block, one file at a time."""
    for names, tokens, sums in products.taken():
        if sums is None:
            channel.tell("without", names=names, tokens=tokens)
            continue
        path = scratch / "moments.f32"
        with writing(path):
            (sums / np.float32(tokens)).tofile(path)
        channel.tell("moment", names=names, columns=len(sums), tokens=tokens, file=str(path))
        channel.answer()


class Products:
    """Sums of x^T x over the inputs of the block at hand, of linear layers and experts."""

    def __init__(self, model: Model) -> None:
        wanted = (matrix.name for layer, matrix in matrices(model) if layer.role in ("linear", "expert"))
        self._order = {name: place for place, name in enumerate(wanted)}
        self._rows: dict[tuple[str, ...], list[Rows]] = {}
        self._sums: dict[tuple[str, ...], NDArray[np.float32]] = {}
        self._tokens: dict[tuple[str, ...], int] = {}

    def add(self, names: tuple[str, ...], rows: Rows) -> None:
        """Take inputs that go into the matrices of these names."""
        ordered = tuple(sorted((name for name in names if name in self._order), key=self._order.__getitem__))
        if not ordered:
            return
        if not np.isfinite(rows).all():
            raise CheckpointError("NaN or Inf goes into it when the model runs in float32", tensor=ordered[0])
        self._tokens[ordered] = self._tokens.get(ordered, 0) + len(rows)
        waiting = self._rows.setdefault(ordered, [])
        waiting.append(rows)
        if sum(map(len, waiting)) * COLUMNS_PER_TOKEN >= rows.shape[1]:
            self._fold(ordered)

    def _fold(self, names: tuple[str, ...]) -> None:
        """Turn inputs into products, which take less memory than very many inputs and more than few."""
        rows = np.concatenate(self._rows.pop(names))
        products = rows.T @ rows
        self._sums[names] = self._sums[names] + products if names in self._sums else products

    def taken(self) -> list[tuple[tuple[str, ...], int, NDArray[np.float32] | None]]:
        """(names, tokens, sums [K, K] or None where there are too few tokens) of this block; the next begins."""
        for names in [names for names in self._rows if names in self._sums]:
            self._fold(names)
        found = [(names, tokens, self._sums.pop(names, None)) for names, tokens in self._tokens.items()]
        self._rows, self._sums, self._tokens = {}, {}, {}
        return sorted(found, key=lambda row: self._order[row[0][0]])
