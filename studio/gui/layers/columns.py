"""Columns: each column of the table of layers as data: how cells and heads read, what is sorted and copied."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio import core
from studio.gui.layers.choices import FORMAT_NAMES, METHOD_NAMES, Indices
from studio.gui.layers.store import DONE, FAILED, KEPT, PROPOSED, SIGNS, STATES, LayerStore

Values = NDArray[Any] | Sequence[Any]
NO_METHOD = "–"


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, what it means and its width in characters.

    cell: how it reads for a layer. head: how it sums up layers. values: what it sorts by, and, unless `raw` is given,
    what is copied under the title `copied`, with its unit; a number as it is, empty where it is unknown or -1.
    """

    key: str
    title: str
    help: str
    width: int
    cell: Callable[[LayerStore, int], str]
    values: Callable[[LayerStore], Values]
    head: Callable[[LayerStore, Indices], str] = lambda _store, _members: ""
    copied: str = ""
    raw: Callable[[LayerStore], Values] | None = None
    hidden: bool = False
    right: bool = True
    long: bool = False
    ascending: bool = False


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else ("∞" if math.isinf(value) else format(value, form))


def _place(value: int) -> str:
    return "" if value < 0 else str(value)


def count_text(value: int) -> str:
    """A number of weights: 12.3 M."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return str(value)


def status_text(store: LayerStore, index: int) -> str:
    """The state of a layer: a sign and a word."""
    return f"{SIGNS[store.state[index]]} {STATES[store.state[index]]}"


def _common(values: NDArray[np.int64]) -> str:
    return _place(int(values[0])) if len(values) and (values == values[0]).all() else ""


def _largest(values: NDArray[np.float64], form: str) -> str:
    known = values[~np.isnan(values)]
    return f"≤ {_number(float(known.max()), form)}" if len(known) else ""


def _smallest(values: NDArray[np.float64], form: str) -> str:
    known = values[~np.isnan(values)]
    return f"≥ {_number(float(known.min()), form)}" if len(known) else ""


def _head_format(store: LayerStore, members: Indices) -> str:
    used = {FORMAT_NAMES[code] for code in np.unique(store.codes[members])} - {core.KEEP} or {core.KEEP}
    return used.pop() if len(used) == 1 else "mixed"


def _head_method(store: LayerStore, members: Indices) -> str:
    used = {METHOD_NAMES[code] for code in np.unique(store.methods[members])} - {""} or {NO_METHOD}
    return used.pop() if len(used) == 1 else "mixed"


def _head_status(store: LayerStore, members: Indices) -> str:
    states = store.state[members]
    if failed := int((states == FAILED).sum()):
        return f"{SIGNS[FAILED]} {failed:,} failed"
    if proposed := int((states == PROPOSED).sum()):
        return f"{SIGNS[PROPOSED]} {proposed:,} new"
    chosen, done = int((states != KEPT).sum()), int((states == DONE).sum())
    if not chosen:
        return f"{SIGNS[KEPT]} kept"
    if done == chosen:
        return f"{SIGNS[DONE]} done"
    return f"{done}/{chosen} done" if chosen < 100 else f"{100 * done // chosen}% done"


def bits_of(store: LayerStore, members: Indices) -> float:
    """Bits per weight of layers together."""
    return 8 * float(store.nbytes_out[members].sum()) / max(int(store.counts[members].sum()), 1)


def _head_gone(store: LayerStore, members: Indices) -> str:
    known = store.gone[members]
    return "" if np.isnan(known).all() else f"{np.nansum(known):,.0f}"


COLUMNS: tuple[Column, ...] = (
    Column(
        "name",
        "Layer",
        "Name of the weight.",
        24,
        lambda s, i: s.sections.titles[i],
        lambda s: s.name_ranks,
        raw=lambda s: [core.printable(name, core.COPIED) for name in s.names],
        right=False,
        long=True,
        ascending=True,
    ),
    Column(
        "block",
        "Block",
        "Number of the transformer block.",
        5,
        lambda s, i: _place(s.blocks[i]),
        lambda s: s.blocks,
        lambda s, m: _common(s.blocks[m]),
        ascending=True,
    ),
    Column(
        "expert",
        "Expert",
        "Number of the expert in its block.",
        5,
        lambda s, i: _place(s.experts[i]),
        lambda s: s.experts,
        lambda s, m: _common(s.experts[m]),
        ascending=True,
    ),
    Column(
        "format",
        "Format",
        "Keys 0-9 change it.",
        9,
        lambda s, i: s.format_of(i),
        lambda s: s.formats,
        _head_format,
        right=False,
        ascending=True,
    ),
    Column(
        "method",
        "Method",
        "How codes are chosen. Alt and a digit change it.",
        10,
        lambda s, i: s.method_of(i) or NO_METHOD,
        lambda s: s.methods,
        _head_method,
        raw=lambda s: s.method_names,
        right=False,
        ascending=True,
    ),
    Column(
        "err",
        "Error",
        "Relative error ‖W − Q‖ / ‖W‖; ▲ is above the warning line.",
        8,
        lambda s, i: _number(s.rel_err[i], ".4f"),
        lambda s: s.rel_err,
        lambda s, m: _largest(s.rel_err[m], ".4f"),
        "Relative error",
    ),
    Column(
        "status",
        "Status",
        "What is known of the layer.",
        10,
        status_text,
        lambda s: s.state,
        _head_status,
        raw=lambda s: [STATES[state] for state in s.state.tolist()],
        right=False,
    ),
    Column(
        "size",
        "Size",
        "Bytes after quantizing.",
        7,
        lambda s, i: core.size_text(int(s.nbytes_out[i])),
        lambda s: s.nbytes_out,
        lambda s, m: core.size_text(int(s.nbytes_out[m].sum())),
        "Size [bytes]",
    ),
    Column(
        "peak",
        "Max/σ",
        "Largest weight in standard deviations: what outliers cost.",
        6,
        lambda s, i: _number(s.peak[i], ".1f"),
        lambda s: s.peak,
        lambda s, m: _largest(s.peak[m], ".1f"),
    ),
    Column(
        "shape",
        "Shape",
        "Rows × columns of the weight.",
        14,
        lambda s, i: s.shapes[i],
        lambda s: s.counts,
        lambda _, m: core.counted(len(m), "layer"),
        raw=lambda s: s.shapes,
    ),
    Column(
        "params",
        "Weights",
        "Number of weights.",
        10,
        lambda s, i: count_text(s.counts[i]),
        lambda s: s.counts,
        lambda s, m: count_text(int(s.counts[m].sum())),
        hidden=True,
    ),
    Column(
        "dtype",
        "Source",
        "How it is stored now.",
        11,
        lambda s, i: s.dtypes[i],
        lambda s: s.dtypes,
        hidden=True,
        right=False,
        ascending=True,
    ),
    Column(
        "bits",
        "Bits/w",
        "Bits stored per weight, scales included.",
        8,
        lambda s, i: _number(s.bits[i], ".2f"),
        lambda s: s.bits,
        lambda s, m: f"{bits_of(s, m):.2f}",
        "Size [bits per weight]",
        hidden=True,
    ),
    Column(
        "snr",
        "SNR dB",
        "Signal-to-noise ratio.",
        8,
        lambda s, i: _number(s.snr[i], ".1f"),
        lambda s: s.snr,
        lambda s, m: _smallest(s.snr[m], ".1f"),
        "SNR [dB]",
        hidden=True,
    ),
    Column(
        "lost",
        "Became 0",
        "Share of the non-zero weights that became zero.",
        9,
        lambda s, i: _number(s.lost[i], ".2%"),
        lambda s: s.lost,
        lambda s, m: _largest(s.lost[m], ".2%"),
        "Became 0 [fraction]",
        hidden=True,
    ),
    Column(
        "gone",
        "Rows at 0",
        "Rows all of whose weights became zero, which the relative error of the layer hides.",
        9,
        lambda s, i: _number(s.gone[i], ",.0f"),
        lambda s: s.gone,
        _head_gone,
        "Rows at 0",
        hidden=True,
    ),
)
KEYS = [column.key for column in COLUMNS]


def csv_of(store: LayerStore, indices: Indices) -> str:
    """These layers as CSV with every column: numbers in full, without separators and units."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.copied or column.title for column in COLUMNS])
    columns = ((column.raw or column.values)(store) for column in COLUMNS)
    writer.writerows(zip(*([_plain(values[i]) for i in indices.tolist()] for values in columns), strict=True))
    return text.getvalue()


def _plain(value: Any) -> str | int | float:
    if isinstance(value, str):
        return value
    if isinstance(value, np.integer):
        return int(value) if value >= 0 else ""
    return "" if math.isnan(value) else float(value)
