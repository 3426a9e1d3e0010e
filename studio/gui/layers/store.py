"""LayerStore: all that the table and the filter know of each layer, as arrays; no Qt."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from studio import core

KEPT, PENDING, QUEUED, RUNNING, DONE, STALE, FAILED = range(7)
STATES = ("kept", "not run", "queued", "running", "done", "outdated", "failed")
SIGNS = ("○", "–", "⋯", "⟳", "✓", "◐", "✕")
STATE_HELP = (
    "Kept as it is.",
    "Not quantized yet: Run ▸ Quantize measures it.",
    "Waits for its turn.",
    "Is being quantized.",
    "Quantized and measured.",
    "The format changed since: the numbers are those of the old one.",
    "Could not be quantized.",
)


@dataclass(frozen=True, slots=True)
class Figures:
    """Totals: layers, weights, bytes before and after, layers to quantize and done, error (NaN before any is done)."""

    layers: int
    count: int
    nbytes_in: int
    nbytes_out: int
    chosen: int
    done: int
    rel_err: float

    @property
    def bits(self) -> float:
        """Bits per weight after."""
        return 8 * self.nbytes_out / self.count if self.count else 0.0


class LayerStore:
    """One entry per layer, in file order; `order` is the order of the table, block by block.

    counts, nbytes_in, nbytes_out: int64. rel_err, snr, peak (max|w| / sigma), bits, lost (share that became zero), gone
    (rows that became zero): float64, NaN where unknown. state: int8, see `STATES`. group: int32, index into
    `group_names`. results: the `core.LayerResult` of each layer, or None.
    """

    def __init__(self, model: core.Model, choices: Sequence[core.Choice]) -> None:
        layers = model.layers
        self.names = [layer.name for layer in layers]
        self.lowered = [name.lower() for name in self.names]
        self.roles = [layer.role for layer in layers]
        self.kinds = [_kind(name).lower() for name in self.names]
        self.blocks = np.array([-1 if layer.block is None else layer.block for layer in layers], np.int64)
        self.index = {name: i for i, name in enumerate(self.names)}
        self.group_names, self.group, self.order = _groups(model)
        self.titles = [_title(layer.name, self.group_names[self.group[i]]) for i, layer in enumerate(layers)]
        self.shapes = ["×".join(map(str, layer.shape)) or "scalar" for layer in layers]
        self.dtypes = [layer.tensor.dtype for layer in layers]
        self.counts = np.array([layer.count for layer in layers], np.int64)
        self.nbytes_in = np.array([layer.nbytes for layer in layers], np.int64)
        self.nbytes_out = self.nbytes_in.copy()
        self.formats = [core.KEEP] * len(layers)
        self.reasons = [""] * len(layers)
        self.state = np.zeros(len(layers), np.int8)
        unknown = np.full(len(layers), math.nan)
        self.rel_err, self.snr, self.peak, self.lost, self.gone = (unknown.copy() for _ in range(5))
        self.bits = unknown.copy()
        self.squares, self.errors = np.zeros(len(layers)), np.zeros(len(layers))
        self.results = np.full(len(layers), None, object)
        self._shares: dict[str, int] = {}
        self.problems: dict[int, str] = {}
        for i, choice in enumerate(choices):
            self.set_choice(i, choice)

    def __len__(self) -> int:
        return len(self.names)

    def set_choice(self, index: int, choice: core.Choice) -> None:
        """Take over what is chosen for a layer; its size follows at once."""
        self.formats[index] = choice.format
        self._shares = {}
        self.reasons[index] = choice.reason
        self.nbytes_out[index] = choice.nbytes
        self.bits[index] = 8 * choice.nbytes / choice.layer.count if choice.layer.count else math.nan
        self.squares[index] = self.errors[index] = 0.0
        if choice.recipe is None:
            self.state[index] = KEPT
            self.rel_err[index] = self.snr[index] = self.lost[index] = self.gone[index] = math.nan

    def set_result(self, index: int, result: core.LayerResult | None) -> None:
        """Take over a result; None leaves the old numbers standing as outdated."""
        if result is None:
            if self.formats[index] != core.KEEP:
                shown = self.results[index]
                self.state[index] = STALE if shown is not None and shown.quantized else PENDING
                self.problems.pop(index, None)
            return
        self.results[index] = result
        self.problems.pop(index, None)
        self.state[index] = DONE if result.quantized else KEPT
        if result.quantized:
            self.rel_err[index], self.snr[index] = result.rel_err, result.snr
            self.lost[index], self.gone[index] = result.vanished_share, result.vanished_rows
            self.squares[index], self.errors[index] = result.sum_squares, result.sum_error
        statistics = result.statistics
        if statistics and statistics.sigma:
            self.peak[index] = statistics.max_abs / statistics.sigma

    def set_failed(self, index: int, problem: str) -> None:
        """Note that a layer can not be quantized."""
        self.state[index] = FAILED
        self.problems[index] = problem

    def set_state(self, indices: Iterable[int], state: int) -> None:
        """Give layers another state."""
        self.state[list(indices)] = state

    def figures(self) -> "Figures":
        """The totals of the whole model as it is chosen now."""
        squares = float(self.squares.sum())
        error = math.sqrt(float(self.errors.sum()) / squares) if squares else math.nan
        chosen = int((self.state != KEPT).sum())
        done = int((self.state == DONE).sum())
        before, after = int(self.nbytes_in.sum()), int(self.nbytes_out.sum())
        return Figures(len(self), int(self.counts.sum()), before, after, chosen, done, error)

    def shares(self) -> dict[str, int]:
        """Bytes after per format, the largest first."""
        if not self._shares:
            found: dict[str, int] = defaultdict(int)
            for name, nbytes in zip(self.formats, self.nbytes_out.tolist(), strict=True):
                found[name] += nbytes
            self._shares = dict(sorted(found.items(), key=lambda item: -item[1]))
        return self._shares

    def shown_results(self) -> list[core.LayerResult]:
        """The results that belong to the choices of now, in file order."""
        valid = self.results[(self.state == DONE) | (self.state == KEPT)]
        return list(filter(None, valid.tolist()))


def _kind(name: str) -> str:
    return ".".join(part for part in name.split(".")[-2:] if not part.isdigit())


def _prefix(layer: core.Layer) -> str:
    """The name up to and with the number of its block; empty outside the blocks."""
    if layer.block is None:
        return ""
    parts = layer.name.split(".")
    number = str(layer.block)
    return ".".join(parts[: parts.index(number) + 1]) if number in parts else ""


def _groups(model: core.Model) -> tuple[list[str], NDArray[np.int32], NDArray[np.int64]]:
    """Names of the groups, the group of each layer, and the layers ordered group by group."""
    prefixes = [_prefix(layer) for layer in model.layers]
    stacks: dict[str, int] = {}
    keys: dict[str, tuple[int, int]] = {}
    for layer, prefix in zip(model.layers, prefixes, strict=True):
        stack = prefix.rpartition(".")[0]
        place = stacks.setdefault(stack, len(stacks) + 1) if prefix else 0
        keys.setdefault(prefix, (place, layer.block or 0))
    names = sorted(keys, key=lambda prefix: keys[prefix])
    numbers = {prefix: i for i, prefix in enumerate(names)}
    group = np.array([numbers[prefix] for prefix in prefixes], np.int32)
    return [name or "outside the blocks" for name in names], group, np.argsort(group, kind="stable")


def _title(name: str, group: str) -> str:
    return name.removeprefix(group + ".")
