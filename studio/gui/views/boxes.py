"""Boxes: the errors of each block or kind as a box from quarter to quarter, its median, and lines to both ends."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QPointF

from studio import core
from studio.gui.shell.theme import Theme
from studio.gui.views.axes import Tick, nice, powers_of_ten
from studio.gui.views.box_item import BoxItem
from studio.gui.views.columns import Columns, above_zero, entries
from studio.gui.views.drawing import Range
from studio.gui.views.labels import Entry
from studio.gui.views.plot import Cloud, Plot
from studio.gui.views.section_axis import name_sections
from studio.gui.views.sections import Sections

QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)
WIDTH = 0.8
"""Of what a section has."""
LEAST_PIXELS = 5
"""Across a box; with less, a section has one box for all its kinds."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Errors in groups: `quantiles` [groups, 5] at `QUARTERS`, `order` of the layers by group and error, `starts`."""

    quantiles: NDArray[np.float64]
    order: NDArray[np.int64]
    starts: NDArray[np.int64]

    def members(self, group: int) -> NDArray[np.int64]:
        """The layers of a group, the least error first."""
        stop = self.starts[group + 1] if group + 1 < len(self.starts) else len(self.order)
        return self.order[self.starts[group] : stop]


def grouped(values: NDArray[np.float64], group: NDArray[np.int64]) -> Groups:
    """Quantiles of the values of each group that occurs, in the order of their numbers, linear between two values."""
    order = np.lexsort((values, group))
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    counts = np.diff(np.append(starts, len(order)))
    places = starts[:, None] + (counts - 1)[:, None] * np.array(QUARTERS)
    low = places.astype(np.int64)
    high = np.minimum(low + 1, (starts + counts - 1)[:, None])
    rising = values[order]
    return Groups(rising[low] + (rising[high] - rising[low]) * (places - low), order, starts)


class Boxes:
    """A box for each section, or, where there is room, one for each kind or format in it. A `Drawing`."""

    def __init__(self, columns: Columns, parts: Sections, by: str, *, split: bool, log: bool) -> None:
        self._columns, self._sections, self._by = columns, parts, by
        self.split = split and parts.by == "block"
        which = columns.format_of if by == "format" else columns.kind_of
        self._names = columns.formats if by == "format" else columns.kinds
        many = max(len(self._names), 1) if self.split else 1
        kinds = which if self.split else np.zeros(len(columns), np.int64)
        key = parts.number * many + kinds
        groups = grouped(columns.error, key)
        firsts = groups.order[groups.starts]
        self.section, self.part = parts.number[firsts], kinds[firsts]
        self.kind = which[firsts] if self.split or parts.by == "kind" else None
        self.groups, self._log = groups, log
        self.half = WIDTH / many / 2
        self.x = self.section + WIDTH * ((self.part + 0.5) / many - 0.5)
        self.y = np.log10(above_zero(groups.quantiles)) if log else groups.quantiles
        group_of = np.empty(len(columns), np.int64)
        group_of[groups.order] = np.repeat(np.arange(len(firsts)), np.diff(np.append(groups.starts, len(columns))))
        error = np.log10(above_zero(columns.error)) if log else columns.error
        self.points = np.column_stack([self.x[group_of], error])

    def items(self, theme: Theme) -> list[pg.GraphicsObject]:
        """A drawing per colour."""
        if self.kind is None:
            return [BoxItem(self.x, self.half, self.y, theme.accent, theme.text)]
        signs = entries(self._columns, self._by, theme)
        found = []
        for number, (sign, _) in enumerate(signs):
            mine = self.kind == number
            if mine.any():
                found.append(BoxItem(self.x[mine], self.half, self.y[mine], sign.color, theme.text))
        return found

    def marked(self, chosen: NDArray[np.int64], theme: Theme) -> list[pg.GraphicsObject]:
        """A dot per layer, over its box."""
        color = int(theme.text.removeprefix("#"), 16) | 0xFF000000
        return [Cloud(self.points[chosen], 6, np.full(len(chosen), color, np.uint32))]

    def layers_at(self, point: QPointF, pixels: tuple[float, float]) -> NDArray[np.int64]:
        """The layers of the box here."""
        group = self._group_at(point, pixels)
        return np.zeros(0, np.int64) if group is None else np.sort(self.groups.members(group))

    def _group_at(self, point: QPointF, pixels: tuple[float, float]) -> int | None:
        away = np.abs(self.x - point.x())
        best = int(away.argmin())
        reach, room = max(self.half, 4 * pixels[0]), 6 * pixels[1]
        inside = self.y[best, 0] - room <= point.y() <= self.y[best, -1] + room
        return best if away[best] <= reach and inside else None

    def tip(self, point: QPointF, pixels: tuple[float, float], line: float) -> list[str]:
        """Which layers the box stands for, its figures, and the two at the ends."""
        group = self._group_at(point, pixels)
        if group is None:
            return []
        members = self.groups.members(group)
        if len(members) == 1:
            return self._columns.tip(int(members[0]))
        low, first, middle, third, high = self.groups.quantiles[group]
        above = int((self._columns.error[members] > line).sum())
        names = [core.printable(self._columns.layers[i].name) for i in (members[0], members[-1])]
        return [
            f"{self._title(group)}: {core.counted(len(members), 'layer')}",
            f"median relative error {middle:.4f}, half of them {first:.4f} to {third:.4f}",
            f"smallest {low:.4f}  {names[0]}",
            f"largest {high:.4f}  {names[1]}",
            f"{above:,} above the line at {line:.4g}" if above else f"none above the line at {line:.4g}",
            "click selects them, double click opens the worst",
        ]

    def _title(self, group: int) -> str:
        label = self._sections.labels[int(self.section[group])]
        title = f"block {label}" if self._sections.by == "block" and label.isdigit() else label
        return f"{title}, {self._names[int(self.part[group])]}" if self.split else title

    def legend(self, theme: Theme) -> list[Entry]:
        """Colours of kinds where boxes are of one kind, and what a box is."""
        shapes = [
            Entry("middle half", theme.muted if self.kind is not None else theme.accent, "square"),
            Entry("median", theme.text, "line"),
            Entry("smallest to largest", theme.muted if self.kind is not None else theme.accent, "line"),
        ]
        if self.kind is None:
            return shapes
        used = set(np.unique(self.kind).tolist())
        signs = [sign for number, (sign, _) in enumerate(entries(self._columns, self._by, theme)) if number in used]
        return [*(Entry(sign.name, sign.color) for sign in signs[:16]), *shapes]

    def ranges(self) -> tuple[Range, Range]:
        """All boxes."""
        return (-0.6, len(self._sections) - 0.4), (float(self.y.min()), float(self.y.max()))

    def label_axes(self, plot: Plot) -> None:
        """A tick per section, and errors."""
        ticks: list[Tick] = [(float(i), label) for i, label in enumerate(self._sections.labels)]
        name_sections(plot, self._sections, ticks)
        plot.y_axis.set_ticks(powers_of_ten if self._log else nice)
        plot.y_axis.setLabel("relative error")

    def rows(self) -> Sequence[tuple[object, ...]]:
        """Box by box: title, layers, quantiles."""
        counts = np.diff(np.append(self.groups.starts, len(self._columns)))
        return [
            (self._title(group), int(count), *map(float, self.groups.quantiles[group]))
            for group, count in enumerate(counts)
        ]
