"""Columns: the figures of quantized layers as arrays, worked out once per result; and the kinds of layers."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from studio import core
from studio.gui.shell.theme import Theme
from studio.gui.views.labels import Entry

SHAPES = {
    "dot": "o",
    "square": "s",
    "up": "t1",
    "diamond": "d",
    "down": "t",
    "pentagon": "p",
}
"""Our names of shapes and pyqtgraph's."""

LARGEST_KINDS = 9
OTHERS = "other"
_TINY = 1e-9


class Columns:
    """Arrays over the quantized layers of a list of results, in its order.

    error: relative error. ratio: max|w| / sigma, 0 where it is not known. block: index or -1. stack: which row of
    blocks it is in, by name: a model with a vision tower has two. Each layer that was ever seen has a place in arrays
    behind these, so that taking over results costs what is new, and one gathering.
    """

    def __init__(self) -> None:
        self._forget()
        self.layers: list[core.LayerResult] = []
        self._gather([])

    def _forget(self) -> None:
        self._place_of: dict[str, int] = {}
        self._held: list[core.LayerResult] = []
        self._figures = np.zeros((0, 2))
        self._marks = np.zeros((0, 4), np.int64)
        self._kinds: dict[str, int] = {}
        self._formats: dict[str, int] = {}
        self._stacks: dict[str, int] = {}

    def update(self, results: Sequence[core.LayerResult]) -> bool:
        """Take other results; False when they are the same objects."""
        layers = [result for result in results if result.quantized]
        if len(layers) == len(self.layers) and all(map(_same, layers, self.layers)):
            return False
        if not layers:  # another checkpoint: nothing of the former one is held
            self._forget()
        self.layers = layers
        places = list(map(self._place_of.get, [layer.name for layer in layers]))
        for at, (place, layer) in enumerate(zip(places, layers, strict=True)):
            if place is None or self._held[place] is not layer:
                places[at] = self._hold(layer, place)
        self._gather(places)
        return True

    def _hold(self, layer: core.LayerResult, place: int | None) -> int:
        if place is None:
            place = self._place_of[layer.name] = len(self._held)
            self._held.append(layer)
            if place >= len(self._figures):
                self._figures = np.resize(self._figures, (2 * place + 64, 2))
                self._marks = np.resize(self._marks, (2 * place + 64, 4))
        self._held[place] = layer
        error = layer.rel_err
        self._figures[place] = error if np.isfinite(error) else 1.0, _ratio(layer)
        kind_number = self._kinds.setdefault(kind(layer), len(self._kinds))
        format_number = self._formats.setdefault(layer.format, len(self._formats))
        stack = "" if layer.block is None else layer.name.partition(f".{layer.block}.")[0]
        stack_number = self._stacks.setdefault(stack, len(self._stacks))
        block = -1 if layer.block is None else layer.block
        self._marks[place] = block, kind_number, format_number, stack_number
        return place

    def _gather(self, places: Sequence[int | None]) -> None:
        chosen = np.array(places, np.int64)
        self.error, self.ratio = self._figures[chosen].T.copy()
        self.block, kinds, formats, self.stack = self._marks[chosen].T.copy()
        self.kinds, self.kind_of = _numbered(list(self._kinds), _fewer(kinds), OTHERS)
        self.formats, self.format_of = _numbered(list(self._formats), formats)
        self.median = float(np.median(self.error)) if places else math.nan
        self._index: dict[str, int] = {}

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
            f"{shape}  {layer.format}  {layer.bits_per_weight:.2f} bits per weight",
            f"relative error {layer.rel_err:.4f}  (SNR {layer.snr:.1f} dB)",
            f"rank {self.rank(index):,} of {len(self):,}, 1 is the worst",
        ]
        if self.ratio[index]:
            lines.insert(3, f"largest weight {self.ratio[index]:.1f} σ")
        if layer.vanished:
            lines.append(f"{layer.vanished_share:.2%} of the weights became zero")
        return lines


def _same(a: object, b: object) -> bool:
    return a is b


def _ratio(layer: core.LayerResult) -> float:
    statistics = layer.statistics
    return statistics.max_abs / statistics.sigma if statistics and statistics.sigma else 0.0


def kind(layer: core.LayerResult) -> str:
    """The last part of a layer's name, which is the same in all blocks: down_proj, lm_head."""
    return core.printable(layer.name.rpartition(".")[2] or layer.name, 24)


def _fewer(kinds: NDArray[np.int64]) -> NDArray[np.int64]:
    """The kinds, -1 for all but the most frequent ones; of equally frequent ones the first stay."""
    counted = Counter(kinds.tolist())
    if len(counted) <= LARGEST_KINDS:
        return kinds
    frequent = [number for number, _ in counted.most_common(LARGEST_KINDS - 1)]
    return np.where(np.isin(kinds, frequent), kinds, -1)


def _numbered(
    labels: Sequence[str], which: NDArray[np.int64], otherwise: str = ""
) -> tuple[list[str], NDArray[np.int64]]:
    """The labels that occur in `which`, in order of appearance, and which of them each entry has; -1 is `otherwise`."""
    numbers, first, entries = np.unique(which, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return [labels[n] if n >= 0 else otherwise for n in numbers[order]], np.argsort(order)[entries]


def short(name: str, length: int = 40) -> str:
    """A layer's name without what all names begin with, and cut at the left."""
    text = core.printable(name, 4 * length).removeprefix("model.")
    return text if len(text) <= length else "…" + text[-length + 1 :]


def entries(names: Sequence[str], by: str, theme: Theme) -> list[Entry]:
    """Colour and shape of each kind or format, always the same for the same list."""
    if by == "format":
        known = list(core.FORMATS)
        shapes = [list(SHAPES)[known.index(name) % len(SHAPES)] if name in known else "dot" for name in names]
        return [Entry(name, theme.format_color(name), shape) for name, shape in zip(names, shapes, strict=True)]
    colors = kind_colors(theme)
    shapes = list(SHAPES)
    return [
        Entry(name, theme.muted if name == OTHERS else colors[i % len(colors)], shapes[i % len(shapes)])
        for i, name in enumerate(names)
    ]


def kind_colors(theme: Theme) -> list[str]:
    """Colours that tell kinds apart."""
    roles = ("linear", "expert", "embedding", "head", "other", "router")
    return [*(theme.roles[role] for role in roles), theme.error, theme.muted, theme.text]


def above_zero(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values, at least as large as what a logarithm can take."""
    return np.maximum(values, _TINY)
