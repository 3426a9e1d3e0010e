"""BlockPanel: one block of a row: its weights, the values they can become, and what they became."""

import math

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QPointF, Signal
from PySide6.QtWidgets import QToolButton

from studio import core
from studio.gui.shell.theme import Theme
from studio.gui.views.axes import nice, whole
from studio.gui.views.figure import Figure
from studio.gui.views.inspector_panels import side_colors
from studio.gui.views.labels import Line
from studio.gui.views.panel import Panel
from studio.gui.views.plot import Marks


class BlockPanel(Panel):
    """Weights as rings, what each became as a dot on one of the levels, with steps to the next worst block.

    Signals:
        place_wanted(object): the `core.Place` of a block to show.
    """

    place_wanted = Signal(object)

    def __init__(self) -> None:
        super().__init__("One block", "place in the block", "weight", whole, nice)
        self.block: core.BlockDetail | None = None
        self._worst: tuple[core.Place, ...] = ()
        self._at = -1
        self.facts = Line()
        self.plot.vertical_grid = False
        self.previous, self.next = (self._button(text, step, name) for text, step, name in _STEPS)
        self.head.addWidget(self.previous)
        self.head.addWidget(self.next)
        self.rows.insertWidget(1, self.facts)

    def _button(self, text: str, step: int, name: str) -> QToolButton:
        button = QToolButton()
        button.setText(text)
        button.setToolTip(name)
        button.setAccessibleName(name)
        button.setAutoRaise(True)
        button.clicked.connect(lambda: self._step(step))
        return button

    def show_worst(self, worst: tuple[core.Place, ...]) -> None:
        """Ask for the worst of these blocks, and offer the others."""
        self._worst, self._at, self.block = worst, -1, None
        self.clear()
        self.title.set_text("One block: click the map, or step through the worst")
        self.facts.set_text("")
        self._enable()
        if worst:
            self._step(1)

    def show_block(self, block: core.BlockDetail | None) -> None:
        """Draw a block."""
        self.block = block
        self.clear()
        if block is None:
            return
        self.title.set_text(f"Row {block.row:,}, columns {block.column:,} to {block.column + len(block.source) - 1:,}")
        self.facts.set_text(facts(block))
        x = np.arange(len(block.source))
        for level in block.levels:
            self.add(pg.InfiniteLine(level, angle=0, pen=pg.mkPen(self.theme.border)), -10)
        ends = np.column_stack([block.source, block.decoded]).reshape(-1)
        stems = pg.PlotCurveItem(np.repeat(x, 2), ends, connect="pairs", pen=pg.mkPen(self.theme.error, width=2))
        self.add(stems, 1)
        ring = pg.mkPen(self.theme.text, width=2)
        self.add(Marks(x, np.array(block.decoded), size=8, brush=side_colors(self.theme)[0], pen=None), 2)
        self.add(Marks(x, np.array(block.source), size=9, brush=None, pen=ring), 3)
        self.fit()

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours."""
        super().set_theme(theme)
        self.facts.set_color(self.theme.muted)
        style = f"QToolButton {{ color: {self.theme.text} }} QToolButton:disabled {{ color: {self.theme.border} }}"
        for button in (self.previous, self.next):
            button.setStyleSheet(style)
        if self.block:
            self.show_block(self.block)

    def fit(self) -> None:
        """The whole block with all of its levels."""
        if self.block:
            values = (*self.block.source, *self.block.decoded, *self.block.levels)
            low, high = min(values), max(values)
            room = (high - low) * 0.06 or 1.0
            self.plot.show_range((-0.8, len(self.block.source) - 0.2), (low - room, high + room))

    def tip_at(self, point: QPointF) -> list[str]:
        """The weight here, its code, and what became of it."""
        place = round(point.x())
        if self.block is None or not 0 <= place < len(self.block.source):
            return []
        block = self.block
        source, decoded = block.source[place], block.decoded[place]
        return [
            f"column {block.column + place:,}",
            f"weight {source:.6g} became {decoded:.6g}",
            f"{code_text(block, place)}, error {source - decoded:+.3g}".replace("-", "−"),
        ]

    def figure(self) -> Figure:
        """Weight by weight."""
        heads = ("column", "weight", "code", "became", "error")
        if self.block is None:
            return Figure("Block", heads, [])
        block = self.block
        rows = [
            (block.column + i, w, code_text(block, i), q, w - q)
            for i, (w, q) in enumerate(zip(block.source, block.decoded, strict=True))
        ]
        return Figure("Block", heads, rows)

    def _step(self, step: int) -> None:
        self._at = min(max(self._at + step, 0), len(self._worst) - 1)
        self._enable()
        self.place_wanted.emit(self._worst[self._at])

    def _enable(self) -> None:
        self.previous.setEnabled(self._at > 0)
        self.next.setEnabled(self._at + 1 < len(self._worst))


_STEPS = (("◀", -1, "The next worse block"), ("▶", 1, "The next of the worst blocks"))


def facts(block: core.BlockDetail) -> str:
    """Scale, multiplier and error of a block in one line."""
    parts = [f"scale {block.scale:.4g}" + (f" (0x{block.scale_code:02X})" if block.scale_code is not None else "")]
    if block.bias is not None:
        parts.append(f"bias {block.bias:.4g}")
    if block.g != 1.0:
        parts.append(f"g {block.g:.4g}")
    error = f"relative error {block.rel_err:.4f}" if math.isfinite(block.rel_err) else "all weights are zero"
    return ", ".join([block.title, *parts, error])


def code_text(block: core.BlockDetail, place: int) -> str:
    """A code in bits, and its value before scaling."""
    code, factor = block.codes[place], block.scale * block.g
    if block.bias is not None:
        return f"code {code} × {block.scale:.3g} {block.bias:+.3g}"
    bits = 4 if block.levels else 8
    value = block.decoded[place] / factor if factor else 0.0
    return f"code {code:0{bits}b} = {value:g}"
