"""RegimeView: where the block scales fall with two tiers and with three, and why small weights need the third."""

from typing import Any

import numpy as np
from PySide6.QtCore import QRectF, Qt, QTimer
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QBoxLayout, QGridLayout, QLabel, QVBoxLayout, QWidget

from studio import core
from studio.gui.shell.specs import keys_of
from studio.gui.views.columns import short
from studio.gui.views.error_bars import Bar, ErrorBars
from studio.gui.views.figure import Figure
from studio.gui.views.labels import Line
from studio.gui.views.scale_plot import PLACES, ScalePlot, value_text, zone_of
from studio.gui.views.view import View

SLICE = 50
"""Layers whose regimes are worked out between two looks at the mouse and the keys."""

NARROW = 560
TIERS = ("nvfp4-2t", "nvfp4-3t")
TITLES = (("Two tiers, {}", "max|block| / 6"), ("Three tiers, {}", "max|block| / 6 / g"))


class RegimeView(View):
    """Scale histograms of both tiers side by side, their errors, the dead zone, and a sentence that explains them.

    The selected layers, or all. What was run is measured; the other tier is estimated from the results, and predicted
    exactly from the block maxima once the detail of a single layer is there. Dragging over scales selects the layers
    that have blocks there.

    Signals: see `View`.
    """

    TITLE = "Scale regimes"
    EMPTY = (
        "No layer in NVFP4 has been quantized yet.\n"
        f"Choose an NVFP4 format and quantize ({keys_of('quantize')}): "
        "this shows whether the block scales still have precision."
    )

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.tiers: core.Tiers = core.no_tiers()
        self._exact = False
        self._seen: dict[str, core.LayerResult] = {}
        self._whole = core.no_tiers()
        self._waiting: list[core.LayerResult] = []
        self._timer = QTimer(self, interval=0)
        self._timer.timeout.connect(self._work)

    def make_plots(self) -> None:
        """A sentence, the scales with two tiers and with three, their errors, and a note."""
        self.sentence = QLabel()
        self.sentence.setTextFormat(Qt.TextFormat.PlainText)
        self.sentence.setWordWrap(True)
        self.heads = (Line(bold=True), Line(bold=True))
        self.plots = (ScalePlot(), ScalePlot())
        self.bars = ErrorBars()
        self.note = QLabel()
        self.note.setTextFormat(Qt.TextFormat.PlainText)
        self.note.setWordWrap(True)
        self._grid = QGridLayout()
        self._grid.setSpacing(4)
        layout = QVBoxLayout(self.body)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.setDirection(QBoxLayout.Direction.TopToBottom)
        layout.addWidget(self.sentence)
        layout.addLayout(self._grid, 1)
        layout.addWidget(self.bars)
        layout.addWidget(self.note)
        self._narrow: bool | None = None
        for number, plot in enumerate(self.plots):
            plot.hovered.connect(lambda point, plot=plot: self.say(plot.tip_at(point)))
            plot.left.connect(lambda: self.say([]))
            plot.box.banded.connect(lambda rect, add, number=number: self._banded(number, rect, add))
        self._arrange_plots()

    def _place(self, *, narrow: bool) -> None:
        if narrow == self._narrow:
            return
        self._narrow = narrow
        for number, (head, plot) in enumerate(zip(self.heads, self.plots, strict=True)):
            row, column = (2 * number, 0) if narrow else (0, number)
            self._grid.addWidget(head, row, column)
            self._grid.addWidget(plot, row + 1, column)
        for row in range(4):
            self._grid.setRowStretch(row, 1 if row in ((1, 3) if narrow else (1,)) else 0)
        for column in range(2):
            self._grid.setColumnStretch(column, 0 if narrow and column else 1)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Side by side, or one above the other where it is narrow and high."""
        super().resizeEvent(event)
        if self.plotted:
            self._arrange_plots()

    def _arrange_plots(self) -> None:
        self._place(narrow=self.width() < NARROW and self.height() > 1.1 * self.width())
        self.note.setVisible(self.height() > 26 * self.theme.font_px)

    # Data

    def results_changed(self) -> None:
        """Take what is new, in slices."""
        now = {result.name: result for result in self.results if result.format in TIERS and result.scale_counts}
        if any(now.get(name) is not result for name, result in self._seen.items()):
            self._seen, self._whole, self._waiting = {}, core.no_tiers(), []
        self._waiting += [result for name, result in now.items() if name not in self._seen]
        self._seen = now
        if len(self._waiting) <= SLICE:
            self._work()
        else:
            self._timer.start()
        self.redraw()

    def _work(self) -> None:
        """Work out the next slice."""
        chosen, self._waiting = self._waiting[:SLICE], self._waiting[SLICE:]
        if chosen:
            self._whole = self._whole + core.estimate(chosen)
        if not self._waiting and self._timer.isActive():
            self._timer.stop()
            self.redraw()

    def selection_changed(self) -> None:
        """Show the selected layers, and ask for the block maxima of a single one."""
        self.redraw()
        chosen = self._chosen()
        if len(chosen) == 1 and (self.detail is None or self.detail.name != chosen[0].name):
            self.detail_wanted.emit(chosen[0].name)

    def detail_changed(self) -> None:
        """Take the prediction from block maxima instead of the estimate."""
        self.redraw()

    def theme_changed(self) -> None:
        """Draw with `theme`."""
        for part in (*self.plots, self.bars):
            part.set_theme(self.theme)
        for head in self.heads:
            head.set_color(self.theme.text)
        self.sentence.setIndent(0)
        self.sentence.setStyleSheet(f"color: {self.theme.text}; padding: 2px 0")
        self.note.setStyleSheet(f"color: {self.theme.muted}")
        self.redraw()

    def _chosen(self) -> list[core.LayerResult]:
        return [self._seen[name] for name in self.selection if name in self._seen]

    def _detail(self) -> core.LayerDetail | None:
        """The detail, when it is about the one layer selected."""
        detail = self.detail
        if detail is None or detail.tiers is None or self.selection != [detail.name]:
            return None
        return detail

    def redraw(self) -> None:
        """Draw everything again."""
        detail, chosen = self._detail(), self._chosen()
        if detail is not None and detail.tiers is not None:
            self.tiers = detail.tiers
        elif chosen:
            self.tiers = core.estimate(chosen[: 5 * SLICE])
        else:
            self.tiers = self._whole
        if not self.tiers.two.blocks:
            self.show_empty(self.EMPTY if not self._seen else "Working out the regimes…")
            return
        self.sentence.setText(self.tiers.sentence())
        self._draw_plots()
        self._draw_bars(detail)
        self.show_filled(self._summary(chosen, detail))
        self.setAccessibleDescription(self.tiers.sentence())

    def _draw_plots(self) -> None:
        regimes = (self.tiers.two, self.tiers.three)
        tallest = max(100 * float(r.counts.max()) / max(r.blocks, 1) for r in regimes)
        for plot, head, (title, formula), regime, form in zip(
            self.plots, self.heads, TITLES, regimes, TIERS, strict=True
        ):
            what = title.format("measured" if regime.measured is not None else _source(regime))
            head.set_text(f"{what}: {formula}", what)
            plot.show_regime(regime, self.theme, self.theme.format_color(form), tallest * 1.35)

    def _draw_bars(self, detail: core.LayerDetail | None) -> None:
        found = []
        for name, regime, form in zip(
            ("two tiers", "three tiers"), (self.tiers.two, self.tiers.three), TIERS, strict=True
        ):
            found.append(Bar(name, self.theme.format_color(form), regime.predicted, regime.measured))
        lost = [f"{regime.vanished_share:.1%}" for regime in (self.tiers.two, self.tiers.three)]
        note = f"Weights that become zero: {lost[0]} with two tiers, {lost[1]} with three."
        if detail is not None:
            note = f"Dead zone: {detail.dead_share:.1%} of the weights are below 1/24 of their block's maximum. {note}"
        self.bars.show_bars(found, note)
        self.note.setText(note)

    def _summary(self, chosen: list[core.LayerResult], detail: core.LayerDetail | None) -> str:
        if detail is not None:
            who = short(detail.name)
        elif len(chosen) == 1:
            who = short(chosen[0].name)
        else:
            who = core.counted(self.tiers.layers, "selected layer" if chosen else "layer")
        blocks = f"{who}, {core.counted(self.tiers.two.blocks, 'block')} of 16"
        largest = self.tiers.max_abs  # 0: an export does not tell
        return f"{blocks}, largest weight {largest:.3g}" if largest else blocks

    def _banded(self, number: int, rect: QRectF, add: bool) -> None:
        """Take the layers that were run with these tiers and have blocks inside."""
        inside = (PLACES[1:] > rect.left()) & (PLACES[:-1] < rect.right())
        layers = [layer for layer in self._seen.values() if layer.format == TIERS[number]]
        if layers:
            counts = np.array([layer.scale_counts[: len(inside)] for layer in layers])
            self.pick([layers[i].name for i in np.flatnonzero(counts[:, inside].sum(axis=1))], add)

    def figure(self) -> Figure:
        """Blocks by scale byte."""
        pairs = zip(self.tiers.two.counts, self.tiers.three.counts, strict=True)
        rows: list[Any] = [
            (f"0x{byte:02X}", value_text(byte), zone_of(byte), int(a), int(b)) for byte, (a, b) in enumerate(pairs)
        ]
        return Figure(self.TITLE, ("byte", "scale", "zone", "blocks, two tiers", "blocks, three tiers"), rows)


def _source(regime: core.Regime) -> str:
    return "predicted" if regime.exact else "estimated"
