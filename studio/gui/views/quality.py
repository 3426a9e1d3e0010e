"""QualityView: what quantizing costs in tokens, a bar per model, and the numbers."""

from collections.abc import Sequence

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QFrame, QPushButton, QScrollArea, QSplitter, QVBoxLayout, QWidget

from studio import core
from studio.gui.views.figure import Figure
from studio.gui.views.labels import Entry
from studio.gui.views.number_table import NumberTable
from studio.gui.views.quality_bars import AGAINST_FIRST, AGAINST_SOURCE, PERPLEXITY, QualityBars
from studio.gui.views.view import View


class QualityView(View):
    """Bars with whiskers above a table.

    Signals:
        evaluate_wanted(): ask what to evaluate.
        report_wanted(), command_wanted(): save what was found, copy the command that finds it.
        and those of `View`.
    """

    evaluate_wanted = Signal()
    report_wanted = Signal()
    command_wanted = Signal()

    TITLE = "Quality"
    EMPTY = "Nothing is evaluated yet."

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.rows: tuple[core.Evaluated, ...] = ()
        self.source: core.Evaluated | None = None
        self._moved = False
        self.evaluate_button = QPushButton("Evaluate…")
        self.evaluate_button.setProperty("primary", True)
        self.evaluate_button.clicked.connect(lambda: self.evaluate_wanted.emit())
        self.controls.addWidget(self.evaluate_button)
        self.menu.addSeparator()
        self.report_action = self.menu.addAction("Save report…")
        self.report_action.triggered.connect(lambda: self.report_wanted.emit())
        self.command_action = self.menu.addAction("Copy as command")
        self.command_action.triggered.connect(lambda: self.command_wanted.emit())
        self._for_plots += [self.report_action, self.command_action]

    def has_content(self) -> bool:
        """Only what was evaluated, for which the plots are made at once."""
        return False

    def make_plots(self) -> None:
        """Bars, and the numbers below."""
        self.bars, self.numbers = QualityBars(), NumberTable(f"{self.TITLE} in numbers")
        self.numbers.horizontalHeader().setStretchLastSection(False)
        scroll = QScrollArea()
        scroll.setWidget(self.bars)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        for ground in (scroll.viewport(), self.bars):
            ground.setAutoFillBackground(False)
        self.split = QSplitter(Qt.Orientation.Vertical)
        self.split.setChildrenCollapsible(False)
        self.split.addWidget(scroll)
        self.split.addWidget(self.numbers)
        self.split.splitterMoved.connect(lambda *_: setattr(self, "_moved", True))
        rows = QVBoxLayout(self.body)
        rows.setContentsMargins(0, 4, 0, 0)
        rows.addWidget(self.split)

    # What the window calls

    def show_evaluated(
        self,
        source: core.Evaluated | None,
        rows: Sequence[core.Evaluated],
        about: str,
        waiting: Sequence[str] = (),
    ) -> None:
        """Show what is known of models; `about` says on what it was found, `waiting` names those that follow."""
        self.source, self.rows = source, tuple(rows)
        self.plot_now()
        self.bars.show_rows(rows, waiting)
        self._show_numbers()
        signs = [Entry(WHISKERS, self.theme.text, "line"), Entry(WORSE, self.theme.text, "none")]
        self.show_filled(about, signs)
        QTimer.singleShot(0, self, self._divide)
        self.setAccessibleDescription(f"{about} {self.bars.accessibleDescription()}")

    def show_nothing(self, why: str = "") -> None:
        """Say what comes next, or why there is nothing."""
        self.source, self.rows = None, ()
        self.show_empty(why or self.EMPTY)

    def _divide(self) -> None:
        """Give the bars what they need, and the table the rest, but for what the user chose."""
        whole = self.split.height()
        self.numbers.setVisible(bool(self._all()) and whole > TALL * self.theme.font_px)
        if not self._moved and whole > 0:
            bars = min(self.bars.minimumHeight() + 4, round(whole * MOST_FOR_BARS))
            self.split.setSizes([bars, whole - bars])

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Divide what there is anew."""
        super().resizeEvent(event)
        if self.plotted:
            QTimer.singleShot(0, self, self._divide)

    def _show_numbers(self) -> None:
        self.numbers.show_figure(self._short(), self.theme.font_px)
        self.numbers.resizeColumnsToContents()
        for column in range(self.numbers.model().columnCount()):
            self.numbers.setColumnWidth(column, self.numbers.columnWidth(column) + PADDING)

    def theme_changed(self) -> None:
        """Draw with `theme`."""
        if self.plotted:
            self.bars.set_theme(self.theme)
            self._show_numbers()

    # Numbers

    def canvas(self) -> QWidget:
        """Without the table."""
        return self.bars

    def _all(self) -> list[core.Evaluated]:
        return [*filter(None, [self.source]), *self.rows]

    def _short(self) -> Figure:
        """What fits beside the bars, noise in the same cell."""
        metrics = [metric for metric in METRICS if any(map(metric.of, self._all()))]
        heads = (
            "model",
            *(metric.head for metric in metrics),
            "bits per weight",
            "weight error",
            "seconds",
            "format",
            "method",
        )
        rows = [
            (
                core.printable(row.name, 60),
                *(metric.text(row) for metric in metrics),
                "" if row.bits_per_weight is None else f"{row.bits_per_weight:.2f}",
                "" if row.rel_err is None else f"{row.rel_err:.4f}",
                f"{row.seconds:,.0f}",
                row.format,
                row.method,
            )
            for row in self._all()
        ]
        return Figure(self.TITLE, heads, rows)

    def figure(self) -> Figure:
        """All numbers, the noise of each in a column of its own."""
        heads = [head for metric in METRICS for head in (metric.title, f"noise of {metric.head}")]
        rows = [
            (
                *(row.name, row.format, row.method),
                *("" if value is None else value for value in (row.bits_per_weight, row.rel_err)),
                *(value for metric in METRICS for value in metric.numbers(row)),
                *(row.tokens, row.seconds),
            )
            for row in self._all()
        ]
        fixed = ("model", "format", "method", "bits per weight", "weight error")
        return Figure(self.TITLE, (*fixed, *heads, "tokens", "seconds"), rows)


WHISKERS, WORSE = "noise: one standard error by a bootstrap over windows", "longer bars are worse"
TALL = 24
"""Text heights down from which on there is room for numbers below the bars."""
PADDING, MOST_FOR_BARS = 10, 0.75
METRICS = (PERPLEXITY, *AGAINST_SOURCE, AGAINST_FIRST)
