"""LayerStore: all that the table and the filter know of each layer, as arrays; no Qt."""

import math
import re
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from studio import core
from studio.gui.layers.choices import CODES, FORMAT_NAMES, METHOD_CODES, METHOD_NAMES, Choices, Codes, Indices, Names
from studio.gui.layers.known import FIGURES, Shelf
from studio.gui.layers.sections import Sections, by_block, by_kind

KEPT, PENDING, QUEUED, RUNNING, DONE, STALE, FAILED, PROPOSED, PINNED = range(9)
STATES = ("kept", "not run", "queued", "running", "done", "outdated", "failed", "proposed", "pinned")
SIGNS = ("○", "–", "⋯", "⟳", "✓", "◐", "✕", "◇", "◆")
STATE_HELP = (
    "Kept as it is.",
    "Not quantized yet: Run ▸ Quantize measures it.",
    "Waits for its turn.",
    "Is being quantized.",
    "Quantized and measured.",
    "Format or method changed since: the numbers are those of the old choice.",
    "Could not be quantized.",
    "What the budget would choose: Use this mix takes it into the plan.",
    "Chosen by hand: every budget leaves it so.",
)
_NUMBER = re.compile(r"\d+")


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
    """One entry per layer, in file order; `sections` is how the table divides and orders them.

    counts, nbytes_in, nbytes_out: int64. rel_err, snr, peak (max|w| / sigma), bits, lost (share that became zero), gone
    (rows that became zero): float64, NaN where unknown. blocks, experts: int64, -1 where there is none. state: int8,
    see `STATES`. codes, methods: int8, index into `FORMAT_NAMES` and `METHOD_NAMES`. results: the `core.LayerResult` of
    each layer, or None. in_codes: whether layers are quantized already.
    """

    def __init__(self, model: core.Model, choices: Choices) -> None:
        layers = model.layers
        self.layers = layers
        self.names = Names([layer.name for layer in layers])
        self.index = self.names.place_of
        self.lowered = [name.lower() for name in self.names]
        self.roles = [layer.role for layer in layers]
        self.kind_names = [_kind(name) or name for name in self.names]
        self.kinds = [kind.lower() for kind in self.kind_names]
        self.blocks = np.array([-1 if layer.block is None else layer.block for layer in layers], np.int64)
        self.experts = np.array([-1 if layer.expert is None else layer.expert for layer in layers], np.int64)
        self.sections = by_block(layers)
        self.shapes = ["×".join(map(str, layer.shape)) or "scalar" for layer in layers]
        self.dtypes = [layer.source.meaning for layer in layers]
        self.in_codes = bool(core.stored_codes(model))
        self.counts = np.array([layer.count for layer in layers], np.int64)
        self.nbytes_in = np.array([layer.nbytes for layer in layers], np.int64)
        self.nbytes_out = self.nbytes_in.copy()
        self.codes = np.full(len(layers), CODES[core.KEEP], np.int8)
        self.methods = np.full(len(layers), METHOD_CODES[""], np.int8)
        self._formats: list[str] = []
        self._method_names: list[str] = []
        self.state = np.zeros(len(layers), np.int8)
        unknown = np.full(len(layers), math.nan)
        self.rel_err, self.snr, self.peak, self.lost, self.gone = (unknown.copy() for _ in range(5))
        self.bits = unknown.copy()
        self.squares, self.errors = np.zeros(len(layers)), np.zeros(len(layers))
        self.results = np.full(len(layers), None, object)
        self._measured = np.zeros(len(layers), np.bool_)
        self.problems: dict[int, str] = {}
        self.set_choices(choices, np.arange(len(layers)))

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def kind_sections(self) -> Sections:
        """The layers divided by kind."""
        return by_kind(self.layers, self.kind_names)

    @cached_property
    def name_ranks(self) -> NDArray[np.float64]:
        """The place of each layer when names are sorted as people do: 2 before 10."""
        keys = [_NUMBER.sub(lambda found: found[0].zfill(9), name) for name in self.lowered]
        ranks = np.empty(len(keys))
        ranks[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(keys))
        return ranks

    def worst(self) -> str:
        """The layer that lost most, "" where none was measured."""
        return "" if np.isnan(self.rel_err).all() else self.names[int(np.nanargmax(self.rel_err))]

    def used_formats(self) -> set[str]:
        """The formats that layers are to be stored in."""
        return self._used().keys() - {core.KEEP}

    @property
    def formats(self) -> list[str]:
        """The format of each layer."""
        if not self._formats:
            self._formats = [FORMAT_NAMES[code] for code in self.codes.tolist()]
        return self._formats

    def format_of(self, index: int) -> str:
        """The format of a layer."""
        return FORMAT_NAMES[int(self.codes[index])]

    @property
    def method_names(self) -> list[str]:
        """The method of each layer, "" for one that is kept."""
        if not self._method_names:
            self._method_names = [METHOD_NAMES[code] for code in self.methods.tolist()]
        return self._method_names

    def method_of(self, index: int) -> str:
        """The method of a layer, "" for one that is kept."""
        return METHOD_NAMES[int(self.methods[index])]

    def reason_of(self, index: int) -> str:
        """Why a layer is kept; empty for one that is not."""
        return self._choices.samples[int(self._choices.which[index])].reason

    def set_choices(self, choices: Choices, changed: Indices) -> None:
        """Take over what is chosen, which is new for the layers in `changed`; their sizes follow at once."""
        self._choices = choices
        self._formats, self._method_names = [], []
        which = choices.which[changed]
        nbytes = np.array([sample.nbytes for sample in choices.samples], np.int64)[which]
        counts = self.counts[changed]
        self.codes[changed] = np.array([CODES[sample.format] for sample in choices.samples], np.int8)[which]
        self.methods[changed] = np.array([METHOD_CODES[sample.method] for sample in choices.samples], np.int8)[which]
        self.nbytes_out[changed] = nbytes
        self.bits[changed] = np.where(counts, 8 * nbytes / np.maximum(counts, 1), math.nan)
        self.squares[changed] = self.errors[changed] = 0.0
        self._keep(changed[choices.recipes[changed] < 0])

    def proposing(
        self,
        codes: Codes,
        methods: Codes,
        nbytes: Indices,
        rel_err: NDArray[np.float64],
        pinned: NDArray[np.bool_],
    ) -> "LayerStore":
        """The same layers with other choices, as the table shows what is proposed; nothing here changes."""
        found, new = copy(self), (codes != self.codes) | (methods != self.methods)
        found.codes, found.methods, found.nbytes_out = codes, methods, nbytes
        found._formats, found._method_names = [], []
        found.bits = np.where(self.counts, 8 * nbytes / np.maximum(self.counts, 1), math.nan)
        found.state = np.select([new, pinned], [PROPOSED, PINNED], self.state)
        found.rel_err = np.where(new, rel_err, self.rel_err)
        found.snr, found.lost, found.gone = (
            np.where(new, math.nan, column) for column in (self.snr, self.lost, self.gone)
        )
        return found

    def set_sizes_before(self, results: Sequence[core.LayerResult]) -> None:
        """Take over what layers of an export took before it was made."""
        for result in results:
            if (index := self.index.get(result.name)) is not None:
                self.nbytes_in[index] = result.nbytes_in

    def _keep(self, indices: Indices) -> None:
        self.state[indices] = KEPT
        for figures in (self.rel_err, self.snr, self.lost, self.gone):
            figures[indices] = math.nan

    def set_unknown(self, indices: Indices) -> None:
        """There is no result for what is chosen: old numbers are left standing as outdated."""
        indices = indices[self.codes[indices] != CODES[core.KEEP]]
        self.state[indices] = np.where(self._measured[indices], STALE, PENDING)
        self._forget_problems(indices)

    def set_results(self, shelf: Shelf, indices: Indices) -> None:
        """Take over the results that `shelf` holds for layers; those that have none are unknown."""
        there = shelf.there[indices]
        self.set_unknown(indices[~there])
        indices = indices[there]
        self.results[indices] = shelf.results[indices]
        self.state[indices], self._measured[indices] = DONE, True
        self._forget_problems(indices)
        columns = (self.rel_err, self.snr, self.lost, self.gone, self.squares, self.errors)
        for column, figures in zip(columns, shelf.figures, strict=False):
            column[indices] = figures[indices]
        peak = shelf.figures[FIGURES.index("peak")][indices]
        self.peak[indices] = np.where(np.isnan(peak), self.peak[indices], peak)

    def _forget_problems(self, indices: Indices) -> None:
        if self.problems:
            for index in self.problems.keys() & set(indices.tolist()):
                del self.problems[index]

    def set_failed(self, index: int, problem: str) -> None:
        """Note that a layer can not be quantized."""
        self.state[index] = FAILED
        self.problems[index] = problem

    def set_state(self, indices: Indices, state: int) -> None:
        """Give layers another state."""
        self.state[indices] = state

    def figures(self) -> Figures:
        """The totals of the whole model as it is chosen now."""
        squares = float(self.squares.sum())
        error = math.sqrt(float(self.errors.sum()) / squares) if squares else math.nan
        chosen = int((self.state != KEPT).sum())
        done = int((self.state == DONE).sum())
        before, after = int(self.nbytes_in.sum()), int(self.nbytes_out.sum())
        return Figures(len(self), int(self.counts.sum()), before, after, chosen, done, error)

    def shares(self) -> dict[str, int]:
        """Bytes after per format, the largest first."""
        found = {name: int(self.nbytes_out[self.codes == code].sum()) for name, code in self._used().items()}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def _used(self) -> dict[str, int]:
        return {FORMAT_NAMES[code]: code for code in np.flatnonzero(np.bincount(self.codes)).tolist()}

    def shown_results(self) -> list[core.LayerResult]:
        """The results that belong to the choices of now, in file order."""
        valid = self.results[(self.state == DONE) | (self.state == KEPT)]
        return list(filter(None, valid.tolist()))


def _kind(name: str) -> str:
    return ".".join(part for part in name.split(".")[-2:] if not part.isdigit())
