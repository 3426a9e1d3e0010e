"""Columns: the figures of quantized layers as arrays, worked out once per result; and the kinds of layers."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from studio import core
from studio.gui.theme import Theme
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

_Row = tuple[str, float, float, int, str, str]


class Columns:
    """Arrays over the quantized layers of a list of results, in its order.

    error: relative error. ratio: max|w| / sigma, 0 where it is not known. block: index or -1.
    """

    def __init__(self) -> None:
        self._rows: dict[str, tuple[core.LayerResult, _Row]] = {}
        self.layers: list[core.LayerResult] = []
        self._fill([])

    def update(self, results: Sequence[core.LayerResult]) -> bool:
        """Take other results; False when they are the same objects."""
        layers = [result for result in results if result.quantized]
        if len(layers) == len(self.layers) and all(map(_same, layers, self.layers)):
            return False
        self.layers = layers
        kept = self._rows
        self._rows = {}
        for layer in layers:
            found = kept.get(layer.name)
            self._rows[layer.name] = found if found and found[0] is layer else (layer, _row(layer))
        self._fill([self._rows[layer.name][1] for layer in layers])
        return True

    def _fill(self, rows: list[_Row]) -> None:
        names, error, ratio, block, kind, form = zip(*rows, strict=True) if rows else ((), (), (), (), (), ())
        self.names: tuple[str, ...] = names
        self.places = {name: i for i, name in enumerate(names)}
        self.error: NDArray[np.float64] = np.array(error, np.float64)
        self.ratio: NDArray[np.float64] = np.array(ratio, np.float64)
        self.block: NDArray[np.int64] = np.array(block, np.int64)
        self.kinds, self.kind_of = self.numbered(_fewer(kind))
        self.formats, self.format_of = self.numbered(form)

    def __len__(self) -> int:
        return len(self.layers)

    def numbered(self, labels: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
        """The different labels in order of appearance, and which of them each layer has."""
        order = {label: i for i, label in enumerate(dict.fromkeys(labels))}
        return list(order), np.array([order[label] for label in labels], np.int64)

    def indices(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Where the layers of these names are; names that are not there are left out."""
        return np.array([self.places[name] for name in names if name in self.places], np.int64)

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


def _row(layer: core.LayerResult) -> _Row:
    statistics = layer.statistics
    ratio = statistics.max_abs / statistics.sigma if statistics and statistics.sigma else 0.0
    error = layer.rel_err
    block = -1 if layer.block is None else layer.block
    return layer.name, error if np.isfinite(error) else 1.0, ratio, block, kind(layer), layer.format


def kind(layer: core.LayerResult) -> str:
    """The last part of a layer's name, which is the same in all blocks: down_proj, lm_head."""
    return core.printable(layer.name.rpartition(".")[2] or layer.name, 24)


def _fewer(kinds: Sequence[str]) -> tuple[str, ...]:
    """The kinds, all but the most frequent ones called "other"."""
    counted = Counter(kinds)
    if len(counted) <= LARGEST_KINDS:
        return tuple(kinds)
    frequent = {name for name, _ in counted.most_common(LARGEST_KINDS - 1)}
    return tuple(name if name in frequent else OTHERS for name in kinds)


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
