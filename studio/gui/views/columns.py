"""Columns: the figures of quantized layers as arrays, worked out once per result; and the kinds of layers."""

import math
from collections.abc import Sequence
from operator import is_

import numpy as np
from numpy.typing import NDArray

from studio import core
from studio.gui.shell.theme import Theme
from studio.gui.views.kinds import SHAPES, entry, place
from studio.gui.views.labels import Entry

_TINY = 1e-9


class Columns:
    """Arrays over the quantized layers, those whose error is known, of a list of results, in its order.

    error: relative error. ratio: max|w| / sigma, 0 where it is not known. block: index or -1. stack: which row of
    blocks it is in, by name: a model with a vision tower has two. kind_of, format_of: indices into `kinds`, `formats`.
    Each layer that was ever seen has a place in arrays behind these, so that taking over results costs what is new, and
    one gathering.
    """

    def __init__(self) -> None:
        self._forget()
        self.layers: list[core.LayerResult] = []
        self._gather(np.zeros(0, np.int64))

    def _forget(self) -> None:
        self._place_of: dict[str, int] = {}
        self._held: list[core.LayerResult] = []
        self._figures = np.zeros((0, 2))
        self._marks = np.zeros((0, 4), np.int64)
        self._experts = np.zeros(0, np.int64)
        self._kinds: dict[str, int] = {}
        self._roles: list[str] = []
        self._formats: dict[str, int] = {}
        self._stacks: dict[str, int] = {}

    def update(self, results: Sequence[core.LayerResult]) -> bool:
        """Take other results; False when they are the same objects."""
        layers = [result for result in results if result.measured]
        if len(layers) == len(self.layers) and all(map(is_, layers, self.layers)):
            return False
        if not layers:  # another checkpoint: nothing of the former one is held
            self._forget()
        self.layers = layers
        self._gather(self._hold(layers))
        return True

    def _hold(self, layers: Sequence[core.LayerResult]) -> NDArray[np.int64]:
        """The place of each layer in the arrays, which take over those that are new."""
        found, held = self._place_of, self._held
        before = len(found)
        places = [found.setdefault(layer.name, len(found)) for layer in layers]
        fresh = [i for i, place in enumerate(places) if place >= len(held) or held[place] is not layers[i]]
        held.extend(layers[i] for i in fresh if places[i] >= before)
        chosen = np.array(places, np.int64)
        if fresh:
            self._fill(chosen[fresh], [layers[i] for i in fresh])
        return chosen

    def _fill(self, places: NDArray[np.int64], layers: Sequence[core.LayerResult]) -> None:
        more = len(self._held) - len(self._figures)
        if more > 0:
            more += len(self._figures)  # room for as many again: results come ten at a time
            self._figures = np.pad(self._figures, ((0, more), (0, 0)))
            self._marks = np.pad(self._marks, ((0, more), (0, 0)))
        for at, layer in zip(places.tolist(), layers, strict=True):
            self._held[at] = layer
        errors = np.array([layer.rel_err for layer in layers])
        self._figures[places, 0] = np.where(np.isfinite(errors), errors, 1.0)
        self._figures[places, 1] = list(map(_ratio, layers))
        self._marks[places, 0] = [-1 if layer.block is None else layer.block for layer in layers]
        self._marks[places, 1] = self._numbers_of_kinds(layers)
        formats, stacks = self._formats, self._stacks
        self._marks[places, 2] = [formats.setdefault(layer.format, len(formats)) for layer in layers]
        self._marks[places, 3] = [stacks.setdefault(_stack(layer), len(stacks)) for layer in layers]

    def _numbers_of_kinds(self, layers: Sequence[core.LayerResult]) -> list[int]:
        """The number of each layer's kind, which is looked at once, by the end of the name."""
        kinds, roles = self._kinds, self._roles
        found = [kinds.setdefault(layer.name.rpartition(".")[2], len(kinds)) for layer in layers]
        for i, number in enumerate(found) if len(kinds) > len(roles) else ():
            if number == len(roles):
                roles.append(layers[i].role)
        return found

    def _gather(self, places: NDArray[np.int64]) -> None:
        self._places = places
        self._expert: NDArray[np.int64] | None = None
        self.error, self.ratio = self._figures[places].T.copy()
        self.block, kinds, formats, self.stack = self._marks[places].T.copy()
        self._number_kinds(kinds)
        self.formats, self.format_of = _numbered(list(self._formats), formats)
        self.median = float(np.median(self.error)) if len(places) else math.nan
        self._index: dict[str, int] = {}

    def _number_kinds(self, kinds: NDArray[np.int64]) -> None:
        """The kinds that occur, in the order in which they always stand."""
        used, entries = np.unique(kinds, return_inverse=True)
        ends = list(self._kinds)
        names = [core.printable(ends[number] or "?", 24) for number in used]
        order = sorted(range(len(used)), key=lambda i: place(names[i]))
        self.kinds = [names[i] for i in order]
        self.kind_roles = [self._roles[int(used[i])] for i in order]
        self.kind_of = np.argsort(np.array(order, np.int64))[entries]

    @property
    def expert(self) -> NDArray[np.int64]:
        """The number of the expert that each layer belongs to, -1 for none; worked out once per layer."""
        if self._expert is not None:
            return self._expert
        known = len(self._experts)
        if known < len(self._held):
            found = [core.expert_index(layer.name) for layer in self._held[known:]]
            self._experts = np.append(self._experts, [-1 if number is None else number for number in found])
        experts: NDArray[np.int64] = self._experts[self._places]
        self._expert = experts
        return experts

    @property
    def names(self) -> list[str]:
        """The name of each layer."""
        return [layer.name for layer in self.layers]

    def __len__(self) -> int:
        return len(self.layers)

    def indices(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Where the layers of these names are; names that are not there are left out."""
        if names and not self._index:
            self._index = {layer.name: i for i, layer in enumerate(self.layers)}
        return np.array([self._index[name] for name in names if name in self._index], np.int64)

    def rank(self, index: int) -> int:
        """1 for the largest error."""
        return int((self.error > self.error[index]).sum()) + 1

    def tip(self, index: int) -> list[str]:
        """What a tooltip says about a layer."""
        layer = self.layers[index]
        shape = "×".join(map(str, layer.shape))
        lines = [
            core.printable(layer.name),
            f"{shape}  {core.choice_text(layer.format, layer.method)}  {layer.bits_per_weight:.2f} bits per weight",
            f"relative error {layer.rel_err:.4f}  (SNR {layer.snr:.1f} dB)",
            f"rank {self.rank(index):,} of {len(self):,}, 1 is the worst",
        ]
        if self.ratio[index]:
            lines.insert(3, f"largest weight {self.ratio[index]:.1f} σ")
        if layer.vanished:
            lines.append(f"{layer.vanished_share:.2%} of the weights became zero")
        return lines


def _ratio(layer: core.LayerResult) -> float:
    statistics = layer.statistics
    return statistics.max_abs / statistics.sigma if statistics and statistics.sigma else 0.0


def _stack(layer: core.LayerResult) -> str:
    return "" if layer.block is None else layer.name.partition(f".{layer.block}.")[0]


def _numbered(labels: Sequence[str], which: NDArray[np.int64]) -> tuple[list[str], NDArray[np.int64]]:
    """The labels that occur in `which`, in order of appearance, and which of them each entry has."""
    numbers, first, entries = np.unique(which, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return [labels[n] for n in numbers[order]], np.argsort(order)[entries]


def short(name: str, length: int = 40) -> str:
    """A layer's name without what all names begin with, and cut at the left."""
    text = core.printable(name, 4 * length).removeprefix("model.")
    return text if len(text) <= length else "…" + text[-length + 1 :]


def entries(columns: Columns, by: str, theme: Theme) -> list[tuple[Entry, NDArray[np.int64]]]:
    """The sign of each kind or format and the indices of its layers; always the same sign for the same kind."""
    if by == "format":
        signs, which = [_format_entry(name, theme) for name in columns.formats], columns.format_of
    else:
        pairs = zip(columns.kinds, columns.kind_roles, strict=True)
        signs, which = [entry(name, role, theme) for name, role in pairs], columns.kind_of
    return [(sign, np.flatnonzero(which == i)) for i, sign in enumerate(signs)]


def _format_entry(name: str, theme: Theme) -> Entry:
    known, shapes = list(core.FORMATS), list(SHAPES)
    shape = shapes[known.index(name) % len(shapes)] if name in known else "dot"
    return Entry(name, theme.format_color(name), shape)


def above_zero(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values, at least as large as what a logarithm can take."""
    return np.maximum(values, _TINY)
