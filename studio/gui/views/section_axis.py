"""The axis of layers side by side: the name of each block or kind below the middle of its layers, and their borders."""

from collections.abc import Sequence

import pyqtgraph as pg

from studio.gui.views.axes import Tick, marks, nice, nice_stride
from studio.gui.views.plot import Plot
from studio.gui.views.sections import Sections

MOST_SECTIONS = 240
"""Blocks or kinds that can have a name; of more, every second or third has one."""
MOST_BORDERS = 120
"""Lines between blocks or kinds; more would hide the layers."""
TITLES = {"block": "block", "kind": "kind of layer", "worst": "layers, worst first"}


class Borders:
    """Lines between blocks or kinds. They stay while layers get their results: each takes longer than all the dots."""

    def __init__(self, plot: Plot) -> None:
        self._plot = plot
        self._shown: tuple[list[int], str] = [], ""
        self._lines: list[pg.InfiniteLine] = []

    def show(self, parts: Sections | None, color: str) -> None:
        """Draw a line where each section but the first starts; none without sections."""
        starts = [] if parts is None else parts.starts[1:].tolist()
        wanted = (starts if len(starts) < MOST_BORDERS else []), color
        if wanted == self._shown:
            return
        for line in self._lines:
            self._plot.removeItem(line)
        self._shown, self._lines = wanted, [self._line(start, color) for start in wanted[0]]

    def _line(self, start: int, color: str) -> pg.InfiniteLine:
        line = pg.InfiniteLine(start - 0.5, pen=pg.mkPen(color, width=1))
        line.setZValue(-5)
        self._plot.addItem(line, ignoreBounds=True)
        return line


def label_sections(plot: Plot, parts: Sections) -> None:
    """Name the sections on the horizontal axis, or number the layers when the worst come first."""
    if parts.by == "worst":
        plot.x_axis.setLabel(TITLES["worst"])
        plot.x_axis.set_ticks(_ranks)
    else:
        name_sections(plot, parts, _ticks(plot, parts))


def name_sections(plot: Plot, parts: Sections, ticks: Sequence[Tick]) -> None:
    """Show the names of sections at these places, as many as there is room for."""
    widest = _width(plot, max((label for _, label in ticks), key=len, default=""))
    numbers = parts.by == "block" and sum(not label.isdigit() for _, label in ticks) < len(ticks) / 2
    plot.x_axis.setLabel(TITLES[parts.by])
    plot.x_axis.set_ticks(marks(ticks), 3.0 if numbers else widest / _height(plot) + 1.0)


def _ranks(low: float, high: float, room: int) -> list[Tick]:
    """1, 1,000, 2,000: the first layer has rank 1."""
    found = [(value - 1, f"{value:,.0f}") for value, _ in nice(low + 1, high + 1, room) if value >= 1]
    return [(0.0, "1"), *found] if found and low <= 0 and found[0][0] > 0 else found


def _ticks(plot: Plot, parts: Sections) -> list[Tick]:
    """The names that fit: a long one needs a section that is wide enough for it."""
    starts, count = parts.starts.tolist(), len(parts.order)
    chosen = list(zip(starts, [*starts[1:], count], parts.labels, strict=True))[
        :: nice_stride(len(starts) / MOST_SECTIONS)
    ]
    pixels = plot.box.width() / max(count, 1)
    return [
        ((first + stop - 1) / 2, label)
        for first, stop, label in chosen
        if label.isdigit() or _width(plot, label) < max((stop - first) * pixels * 1.6, 20)
    ]


def _width(plot: Plot, label: str) -> int:
    return int(plot.fontMetrics().horizontalAdvance(label))


def _height(plot: Plot) -> int:
    return max(int(plot.fontMetrics().height()), 1)
