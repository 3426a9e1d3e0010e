"""Axes whose ticks say what people read: 0.094, 2⁻⁶, 448, 6σ, block 12, down_proj."""

import html
import math
from collections.abc import Callable, Sequence
from typing import Any

import pyqtgraph as pg
from PySide6.QtCore import Qt
from PySide6.QtGui import QFontMetricsF

TITLE_MARGIN = 4.0
"""Pixels beside a title, and as many beyond it."""

Tick = tuple[float, str]
Ticks = Callable[[float, float, int], list[Tick]]
"""Ticks between two values of an axis that has room for so many labels."""

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def superscript(number: int) -> str:
    """The number in raised digits."""
    return str(number).translate(_SUPERSCRIPTS)


def number(value: float, step: float = 0.0) -> str:
    """The value with the digits that a step between ticks asks for."""
    if not step:
        return f"{value:.3g}"
    digits = min(max(-math.floor(math.log10(step) + 1e-9), 0), 8)
    return f"{value:.{digits}f}".replace("-0", "0") if abs(value) < step / 2 else f"{value:,.{digits}f}"


def nice(low: float, high: float, room: int) -> list[Tick]:
    """Ticks at 1, 2 or 5 times a power of ten."""
    if not high > low:
        return []
    rough = (high - low) / max(room, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-6)
    count = min(math.floor(high / step + 1e-6) - first + 1, 200)
    return [((first + i) * step, number((first + i) * step, step)) for i in range(count)]


def whole(low: float, high: float, room: int) -> list[Tick]:
    """Ticks at whole numbers."""
    return [(value, f"{value:,.0f}") for value, _ in nice(low, high, room) if value == round(value)]


def powers_of_ten(low: float, high: float, room: int) -> list[Tick]:
    """Ticks on an axis of decimal logarithms; below a decade, at nice values."""
    if high - low < 1.2:
        bottom, top = 10.0 ** max(low, -300), 10.0 ** min(high, 300)
        return [(math.log10(value), text) for value, text in nice(bottom, top, room) if value > 0]
    return _every_fitting(low, high, room, decimal)


def decimal(power: int) -> str:
    """10 to a power as people write it."""
    return f"{10.0**power:g}" if -3 <= power <= 3 else f"10{superscript(power)}"


def sigmas(low: float, high: float, room: int) -> list[Tick]:
    """Ticks on an axis of binary logarithms of multiples of sigma."""
    if high - low < 2.5 and low > -20:
        return [(math.log2(value), f"{text}σ") for value, text in nice(2.0**low, 2.0**high, room) if value > 0]
    return _every_fitting(low, high, room, _sigma)


def _sigma(power: int) -> str:
    return f"σ/{2**-power}" if power < 0 else f"{2**power}σ"


def _every_fitting(low: float, high: float, room: int, label: Callable[[int], str]) -> list[Tick]:
    stride = max(math.ceil((high - low) / max(room, 1)), 1)
    first = math.ceil(low / stride - 1e-9) * stride
    return [(power, label(power)) for power in range(first, math.floor(high + 1e-9) + 1, stride)]


def nice_stride(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50, ... that is not below."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power >= least:
                return factor * power
        power *= 10


def marks(ticks: Sequence[Tick]) -> Ticks:
    """Ticks at given places, as many as there is room for, evenly thinned."""

    def visible(low: float, high: float, room: int) -> list[Tick]:
        inside = [tick for tick in ticks if low <= tick[0] <= high]
        return inside[:: nice_stride(len(inside) / max(room, 1))]

    return visible


class Ruler(pg.AxisItem):  # type: ignore[misc]
    """An axis with its own ticks; its title is as long as there is room for."""

    def __init__(self, orientation: str, ticks: Ticks = nice, label: str = "") -> None:
        super().__init__(orientation, maxTickLength=4)
        self.enableAutoSIPrefix(False)
        self.ticks = ticks
        self.label_width, self.label_height = 5.0, 1.9
        self.setStyle(tickAlpha=255, autoExpandTextSpace=True, hideOverlappingLabels=False)
        self._texts: dict[float, str] = {}
        if label:
            self.setLabel(label)

    def set_ticks(self, ticks: Ticks, label_width: float = 5.0) -> None:
        """Use other ticks; `label_width` is the room that one takes along a horizontal axis, in text heights."""
        self.ticks, self.label_width = ticks, label_width
        self.picture = None
        self.update()

    def tickValues(self, minVal: float, maxVal: float, size: float) -> list[tuple[float, list[float]]]:  # noqa: N803
        """One level of ticks, so that no label is smaller or fainter than another."""
        font = self.style["tickFont"]
        height = font.pixelSize() if font is not None else 13
        room = size / (height * (self.label_width if self.orientation in ("top", "bottom") else self.label_height))
        low, high = sorted((minVal, maxVal))
        self._texts = dict(self.ticks(low, high, max(int(room), 1)))
        return [(1.0, list(self._texts))]

    @property
    def title(self) -> str:
        """The title as it is shown: where it is too long, without what follows a comma, then cut."""
        metrics, text = QFontMetricsF(self.label.font()), str(self.labelText)
        room = self._length() - 2 * TITLE_MARGIN
        if room <= 0:  # not placed yet
            return text
        shown = text if metrics.horizontalAdvance(text) <= room else text.partition(", ")[0]
        return metrics.elidedText(shown, Qt.TextElideMode.ElideRight, room)

    def _length(self) -> float:
        size = self.size()
        return float(size.width() if self.orientation in ("top", "bottom") else size.height())

    def labelString(self) -> str:
        """The title as rich text."""
        look = ";".join(f"{key}: {value}" for key, value in self.labelStyle.items())
        return f"<span style='{look}'>{html.escape(self.title)}</span>"

    def resizeEvent(self, ev: Any = None) -> None:
        """Show as much of the title as there is room for now."""
        if self.label is not None:
            self.label.setHtml(self.labelString())
        super().resizeEvent(ev)

    def tickStrings(self, values: Sequence[float], scale: float, spacing: float) -> list[str]:
        """The texts that belong to the ticks just chosen."""
        return [self._texts.get(value, "") for value in values]


def style(axis: Any, color: str, line: str, grid: str, font: Any) -> None:
    """Give an axis the colours of a theme."""
    axis.setPen(pg.mkPen(line))
    axis.setTextPen(pg.mkPen(color))
    axis.setTickPen(pg.mkPen(grid))
    axis.setTickFont(font)
    axis.label.setFont(font)
    axis.setLabel(axis.labelText, color=color)
