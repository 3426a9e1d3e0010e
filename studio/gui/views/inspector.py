"""InspectorView: one layer from its tail down to a single block, in two formats or methods beside each other."""

from typing import Any

import numpy as np
from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QActionGroup, QKeyEvent
from PySide6.QtWidgets import QComboBox, QVBoxLayout, QWidget

from studio import core
from studio.gui.views.block_panel import BlockPanel
from studio.gui.views.columns import short
from studio.gui.views.distributions import sigma_text
from studio.gui.views.figure import Figure
from studio.gui.views.inspector_panels import (
    CodesPanel,
    MapPanel,
    RowsPanel,
    TailPanel,
    WithinPanel,
    side_colors,
    sides,
)
from studio.gui.views.labels import Entry
from studio.gui.views.method_box import MethodBox
from studio.gui.views.panel import PanelGrid
from studio.gui.views.view import View

NOTHING = "B: none"
BRIGHTEST = 99.5
"""Percentile of the cells that is drawn brightest, so that one bad block does not darken all others."""


class InspectorView(View):
    """A layer closely: A as it is chosen, B by another format or method. Holding the backslash shows B in place of A.

    Signals:
        block_wanted(str, int, int, int): layer, matrix, row and block of A to look at; answer with `show_block`.
        other_wanted(str, str): layer, and what to show as B: "format", "format/method", "/method", "" for nothing.
        and those of `View`.
    """

    block_wanted = Signal(str, int, int, int)
    other_wanted = Signal(str, str)

    TITLE = "Inspector"
    HOW = "Select a layer and press Enter, or double-click it in any plot."
    EMPTY = f"Nothing to look at yet.\n{HOW}"

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._nothing = self.EMPTY
        self.other_box = QComboBox()
        self.other_box.addItem(NOTHING, "")
        for name in core.FORMATS:
            self.other_box.addItem(f"B: {name}", name)
        self.other_box.setAccessibleName("Format to compare with")
        self.other_box.activated.connect(self._choose_other)
        self.other_method = MethodBox("B")
        self.other_method.activated.connect(lambda _: self._want_other())
        self.controls.addWidget(self.other_box)
        self.controls.addWidget(self.other_method)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.built = self.flipped = False
        self.numbers = "rows"
        self._fill_numbers()

    def _build(self) -> None:
        """Make the panels once there is something to show in them: seven plots take a while."""
        self.built = True
        self.tail, self.within, self.codes, self.by_row = TailPanel(), WithinPanel(), CodesPanel(), RowsPanel()
        self.map_a, self.map_b, self.block = MapPanel("A"), MapPanel("B"), BlockPanel()
        self.grid = PanelGrid(
            [self.map_a, self.map_b, self.block, self.codes, self.within, self.by_row, self.tail], self.body
        )
        layout = QVBoxLayout(self.body)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.grid)
        self._connect()
        self._theme_panels()

    def _connect(self) -> None:
        self.map_b.plot.box.setXLink(self.map_a.plot.box)
        self.map_b.plot.box.setYLink(self.map_a.plot.box)
        for panel in (self.map_a, self.map_b):
            panel.block_picked.connect(self._want_block_at)
        self.by_row.row_picked.connect(self.map_a.show_row)
        self.block.place_wanted.connect(self._want_place)

    def _fill_numbers(self) -> None:
        self.menu.addSeparator()
        group = QActionGroup(self)
        for text, numbers in (("Rows", "rows"), ("Codes", "codes"), ("Block", "block"), ("Tail", "tail")):
            action = group.addAction(f"Numbers of: {text.lower()}")
            action.setCheckable(True)
            action.setChecked(numbers == self.numbers)
            action.triggered.connect(lambda _=False, numbers=numbers: self.set_numbers(numbers))
            self.menu.addAction(action)

    # Data

    def selection_changed(self) -> None:
        """Ask for the detail of the layer that is selected, the current one of many."""
        if self.selection and (self.detail is None or self.detail.name != self.selection[-1]):
            self.detail_wanted.emit(self.selection[-1])

    def results_changed(self) -> None:
        """Ask again when the layer on show was chosen another format or method."""
        result = next((r for r in self.results if self.detail and r.name == self.detail.name), None)
        if result is not None and self.detail and not self._shows_as_chosen(result):
            self.detail_wanted.emit(result.name)

    def _shows_as_chosen(self, result: core.LayerResult) -> bool:
        """True when A is what was made of a layer, or what error feedback started from."""
        side = self.detail.a if self.detail else None
        method = core.method_of(result.method).otherwise if _feeds_back(result) else result.method
        return (side.title if side else core.KEEP) == core.choice_text(result.format, method)

    def show_nothing(self, reason: str) -> None:
        """Show no layer, and say why."""
        self._nothing = f"{reason}\n{self.HOW}"
        super().show_detail(None)

    def show_detail(self, detail: core.LayerDetail | None) -> None:
        """Show another layer, or none."""
        self._nothing = self.EMPTY
        super().show_detail(detail)

    def busy(self, text: str) -> None:
        """Say what is being worked on; an empty text says that it is done."""
        if self.detail is None:
            self.empty.setText(text or self._nothing)
        else:
            self.summary.set_text(text or self._summary(self.detail))

    def theme_changed(self) -> None:
        """Draw with `theme`."""
        if self.built:
            self._theme_panels()
            self.detail_changed()

    def _theme_panels(self) -> None:
        for panel in self.grid.panels:
            panel.set_theme(self.theme)
        self.grid.set_font_px(self.theme.font_px)

    def detail_changed(self) -> None:
        """Draw everything again."""
        detail = self.detail
        if detail is None:
            self.head.set_text(self.TITLE)
            self.show_empty(self._nothing)
            return
        if not self.built:
            self._build()
        self.head.set_text(short(detail.name, 48))
        same = detail.b.format if detail.b else ""
        self.other_box.setCurrentIndex(max(self.other_box.findData(same), 0))
        self._show_panels(detail)
        self.show_filled(self._summary(detail), self._legend(detail))

    def _show_panels(self, detail: core.LayerDetail) -> None:
        whole_blocks = detail.tiers is not None
        wanted = {
            self.map_a: detail.a is not None,
            self.map_b: detail.b is not None,
            self.block: detail.a is not None,
            self.codes: any(side.uses for _, side in sides(detail)),
            self.within: whole_blocks,
            self.by_row: bool(sides(detail)),
            self.tail: True,
        }
        self.grid.show_panels([panel for panel, shown in wanted.items() if shown])
        self.tail.show_detail(detail)
        if whole_blocks:
            self.within.show_detail(detail)
        self.codes.show_detail(detail)
        self.by_row.show_detail(detail)
        self._show_maps()
        if not self._shows(self.block.block):
            self.block.show_worst(detail.a.worst if detail.a else ())

    def _show_maps(self) -> None:
        detail = self.detail
        if detail is None:
            return
        cells = [side.error_map.cells.reshape(-1) for _, side in sides(detail)]
        top = max((float(np.percentile(part, BRIGHTEST)) for part in cells if part.size), default=0.0)
        first, second = (detail.b, detail.a) if self.flipped and detail.b else (detail.a, detail.b)
        letters = "BA" if self.flipped and detail.b else "AB"
        for panel, side, letter in zip((self.map_a, self.map_b), (first, second), letters, strict=True):
            panel.show_side(detail, side, top, f"{letter}, {side.title}" if side else "")
        self._mark_block()

    def show_block(self, block: core.BlockDetail | None) -> None:
        """Show one block of A."""
        self.catch_up()
        if block is None or self.detail is None or not self._shows(block):
            return
        self.block.show_block(block)
        self._mark_block()
        if self.table_action.isChecked() and self.numbers == "block":
            self._show_body()

    def _shows(self, block: core.BlockDetail | None) -> bool:
        """True for a block of the layer, format and method on show."""
        detail = self.detail
        return bool(detail and detail.a and block and (block.layer, block.title) == (detail.name, detail.a.title))

    def _mark_block(self) -> None:
        block, detail = self.block.block, self.detail
        if block is not None and detail is not None:
            row = block.matrix * (detail.rows // detail.matrices) + block.row
            for panel in (self.map_a, self.map_b):
                panel.mark(row, block.column, len(block.source))

    # What the user does

    def _choose_other(self) -> None:
        if not self.other_box.currentData():
            self.other_method.choose("")
        self._want_other()

    def _want_other(self) -> None:
        if self.detail is not None:
            wanted = core.choice_text(self.other_box.currentData(), self.other_method.method)
            self.other_wanted.emit(self.detail.name, wanted)

    def _want_block_at(self, row: int, column: int) -> None:
        self.setFocus()
        if self.detail and self.detail.a:
            matrix, inside = divmod(row, self.detail.rows // self.detail.matrices)
            self.block_wanted.emit(self.detail.name, matrix, inside, column // self.detail.a.block)

    def _want_place(self, place: core.Place) -> None:
        if self.detail:
            self.block_wanted.emit(self.detail.name, place.matrix, place.row, place.block)

    def set_numbers(self, numbers: str) -> None:
        """Choose what the table and CSV hold: "rows", "codes", "block" or "tail"."""
        self.numbers = numbers
        if self.table_action.isChecked() and self.detail is not None:
            self._show_body()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Holding the backslash shows B in the place of A."""
        if event.key() == Qt.Key.Key_Backslash and not event.isAutoRepeat():
            self._flip(True)
        elif event.key() != Qt.Key.Key_Backslash:
            super().keyPressEvent(event)

    def keyReleaseEvent(self, event: QKeyEvent) -> None:
        """Letting go of the backslash shows A again."""
        if event.key() == Qt.Key.Key_Backslash and not event.isAutoRepeat():
            self._flip(False)
        elif event.key() != Qt.Key.Key_Backslash:
            super().keyReleaseEvent(event)

    def focusOutEvent(self, event: Any) -> None:
        """A key that is let go elsewhere is let go."""
        self._flip(False)
        super().focusOutEvent(event)

    def _flip(self, flipped: bool) -> None:
        if flipped != self.flipped and self.built:
            self.flipped = flipped
            self._show_maps()

    def fit(self) -> None:
        """All panels show all of their data."""
        for panel in self.grid.panels if self.built else ():
            panel.fit()

    def canvas(self) -> QWidget:
        """All panels, also those scrolled out of sight."""
        return self.grid.content if self.built else self.body

    # Words and numbers

    def about(self) -> str:
        """The layer and its figures."""
        return f"{core.printable(self.detail.name)}: {self.summary.text()}" if self.detail else ""

    def _summary(self, detail: core.LayerDetail) -> str:
        shape = "×".join(map(str, detail.shape))
        reach = detail.max_abs / detail.sigma if detail.sigma else 0.0
        facts = (
            f"{shape} {detail.dtype}, σ {detail.sigma:.3g}, largest {sigma_text(reach)}, kurtosis {detail.kurtosis:.3g}"
        )
        errors = [f"{letter} {side.title} {side.rel_err:.4f}" for letter, side in sides(detail)]
        if not detail.a:
            errors.append("kept as it is")
        if detail.a and detail.b and detail.a.rel_err:
            errors[-1] += f" ({detail.b.rel_err / detail.a.rel_err - 1:+.0%})".replace("-", "−")
        if any(result.name == detail.name and _feeds_back(result) for result in self.results):
            errors.append("without its error feedback, which takes a run of the model")
        return ", ".join([*errors, facts])

    def _legend(self, detail: core.LayerDetail) -> list[Entry]:
        colors = dict(zip("AB", side_colors(self.theme), strict=True))
        hint = ", hold \\ to flip" if detail.a and detail.b else ""
        return [
            Entry(f"{letter} {side.title}{hint if letter == 'B' else ''}", colors[letter])
            for letter, side in sides(detail)
        ]

    def figure(self) -> Figure:
        """The numbers chosen by `set_numbers`."""
        detail = self.detail
        if detail is None:
            return super().figure()
        if self.numbers == "block":
            return self.block.figure()
        if self.numbers == "tail":
            return Figure("Tail", ("beyond, sigma", "share of weights"), list(zip(*detail.tail, strict=True)))
        if self.numbers == "codes":
            return _codes(detail)
        heads = tuple(f"relative error {letter} {side.title}" for letter, side in sides(detail))
        columns = [side.row_error.tolist() for _, side in sides(detail)]
        return Figure("Rows", ("row", *heads), list(zip(range(detail.rows), *columns, strict=True)) if columns else [])


def _feeds_back(result: core.LayerResult) -> bool:
    return bool(result.method) and core.method_of(result.method).needs == "factor"


def _codes(detail: core.LayerDetail) -> Figure:
    shown = [(letter, side) for letter, side in sides(detail) if side.uses]
    longest = max((side.levels for _, side in shown), key=len, default=())
    heads = tuple(f"weights {letter} {side.title}" for letter, side in shown)
    rows = [
        (level, *(side.uses[i] if i < len(side.uses) else "" for _, side in shown)) for i, level in enumerate(longest)
    ]
    return Figure("Codes", ("code value", *heads), rows)
