"""What the plot of errors says in words and in numbers: a sentence about all layers, and a row for each."""

from collections.abc import Iterable
from typing import Any

from studio import core
from studio.gui.views.columns import Columns, short
from studio.gui.views.kinds import kind

HEADS = ("layer", "block", "kind", "format", "bits per weight", "relative error", "SNR, dB", "max |w| / sigma")


def summary_of(columns: Columns, line: float, *, mapped: bool) -> str:
    """Median, worst layer, how many are above the warning line, and which have no place in a map of experts."""
    error = columns.error
    worst = int(error.argmax())
    above = int((error > line).sum())
    tail = f"{above:,} above the line" if above else "none above the line"
    name = short(columns.layers[worst].name)
    others = len(error) - int((columns.expert >= 0).sum()) if mapped else 0
    beside = f"; {others:,} more under Boxes" if others else ""
    count = core.counted(len(error), "layer")
    return f"{count}, median {columns.median:.4f}, worst {name} {error[worst]:.4f}, {tail}{beside}"


def rows_of(columns: Columns, order: Iterable[int]) -> list[tuple[Any, ...]]:
    """What `HEADS` names, of each layer."""
    return [_row(columns.layers[i], float(columns.ratio[i])) for i in order]


def _row(layer: core.LayerResult, ratio: float) -> tuple[Any, ...]:
    block = "" if layer.block is None else layer.block
    figures = (layer.bits_per_weight, layer.rel_err, layer.snr, ratio)
    return (layer.name, block, kind(layer), layer.format, *figures)
