"""View: what all views share - a head, a legend, the plot or its numbers, saving, and a word when there is nothing."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from PySide6.QtCore import QPoint, Qt, Signal
from PySide6.QtGui import (
    QAction,
    QColor,
    QContextMenuEvent,
    QCursor,
    QGuiApplication,
    QPainter,
    QPaintEvent,
    QResizeEvent,
    QShowEvent,
)
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QMenu,
    QSizePolicy,
    QStackedWidget,
    QToolButton,
    QToolTip,
    QVBoxLayout,
    QWidget,
)

from studio import core
from studio.gui.shell.ask import ask_save
from studio.gui.shell.theme import LIGHT, Theme
from studio.gui.views.figure import Figure
from studio.gui.views.labels import Entry, Legend, Line, Paragraph, tip
from studio.gui.views.number_table import NumberTable
from studio.gui.views.picture import SUFFIXES, Caption, Picture

LOW = 15
"""Text heights down to which a summary has a line of its own."""


class View(QWidget):
    """A titled plot over layers. A subclass fills `body`, and overrides `results_changed`, `selection_changed`.

    Signals:
        layers_selected(list): names of layers that the user picked.
        layer_activated(str): a layer that was double-clicked, or chosen with Enter.
        detail_wanted(str): a layer of which `show_detail` could show more.
        save_failed(str): a sentence about a file that could not be written.
    """

    layers_selected = Signal(list)
    layer_activated = Signal(str)
    detail_wanted = Signal(str)
    save_failed = Signal(str)

    TITLE = ""
    EMPTY = ""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.theme: Theme = LIGHT
        self.results: list[core.LayerResult] = []
        self.selection: list[str] = []
        self.detail: core.LayerDetail | None = None
        self.subject: Callable[[], tuple[str, str]] = lambda: ("", "")
        """Tells the names of the model and of the plan."""
        self._late: set[str] = set()
        self.plotted = False
        self.setAccessibleName(self.TITLE)
        self.setMinimumSize(240, 160)
        self.head = Line(bold=True)
        self.head.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
        self.head.set_text(self.TITLE)
        self.summary = Paragraph()
        self.legend = Legend()
        self.legend.hide()
        self.signs: list[QWidget] = [self.legend]
        self.controls = QHBoxLayout()
        self.controls.setSpacing(4)
        self.body = QWidget()
        self.empty = _empty()
        self.stack = QStackedWidget()
        for page in (self.empty, self.body):
            self.stack.addWidget(page)
        self.menu = QMenu(self)
        self._for_plots: list[QAction] = []
        self.table_action = self._fill_menu()
        self._arrange()
        self._show_empty(self.EMPTY)

    @cached_property
    def table(self) -> NumberTable:
        """The numbers, made when they are first asked for."""
        made = NumberTable(self.TITLE)
        self.stack.addWidget(made)
        return made

    def _arrange(self) -> None:
        self.more = more = QToolButton()
        more.setText("⋯")
        more.setToolTip("Save, copy, show as table")
        more.setAccessibleName(f"Menu of {self.TITLE}")
        more.setAutoRaise(True)
        more.setMenu(self.menu)
        more.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self._top = QHBoxLayout()
        self._top.setSpacing(10)
        self._top.addWidget(self.head)
        self._top.addStretch(0)
        self._top.addLayout(self.controls)
        self._top.addWidget(more)
        column = QVBoxLayout(self)
        column.setContentsMargins(8, 4, 8, 4)
        column.setSpacing(2)
        column.addLayout(self._top)
        column.addWidget(self.summary)
        column.addWidget(self.legend)
        column.addWidget(self.stack, 1)

    def _fill_menu(self) -> QAction:
        for text, run in (
            ("Copy image", self.copy_image),
            ("Save as PNG…", lambda: self._ask_and_save(".png")),
            ("Save as SVG…", lambda: self._ask_and_save(".svg")),
            ("Save as CSV…", lambda: self._ask_and_save(".csv")),
            ("Fit to data", self.fit),
        ):
            action = self.menu.addAction(text)
            action.triggered.connect(_quietly(run))
            self._for_plots.append(action)
        self.menu.aboutToShow.connect(self._enable_menu)
        shown = self.menu.addAction("Show as table")
        shown.setCheckable(True)
        shown.toggled.connect(self.set_table_shown)
        return shown

    def _enable_menu(self) -> None:
        """An empty view has nothing to copy or to save."""
        for action in self._for_plots:
            action.setEnabled(self.stack.currentWidget() is not self.empty)

    # What the window calls

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours and another text size."""
        self.theme = theme
        font = self.font()
        font.setPixelSize(theme.font_px)
        self.setFont(font)
        self.head.set_color(theme.text)
        self.summary.set_color(theme.muted)
        no_arrow = "QToolButton::menu-indicator { image: none; width: 0 }"
        self.more.setStyleSheet(f"QToolButton {{ color: {theme.text} }} {no_arrow}")
        self.empty.setStyleSheet(f"color: {theme.muted}; background: {theme.surface}; padding: 12px")
        if self.plotted:
            self.theme_changed()

    def show_results(self, results: Sequence[core.LayerResult]) -> None:
        """Show the results of a run, in file order."""
        self.results = list(results)
        self._draw_later("results")

    def show_detail(self, detail: core.LayerDetail | None) -> None:
        """Show more of a layer."""
        self.detail = detail
        self._draw_later("detail")

    def set_selection(self, names: Sequence[str]) -> None:
        """Mark layers; emits nothing, except for the detail that is missing."""
        self.selection = list(names)
        self._draw_later("selection")

    def set_table_shown(self, shown: bool) -> None:
        """Show the numbers as a table, or the plot again."""
        self.catch_up()
        if self.table_action.isChecked() != shown:
            self.table_action.setChecked(shown)
            return
        if self.stack.currentWidget() is not self.empty:
            self._show_body()

    def save(self, path: Path) -> None:
        """Write the plot to a .png or .svg file, its numbers to .csv. Raises OSError, ValueError for another suffix."""
        if path.suffix not in SUFFIXES:
            raise ValueError(f"[save] the name must end in {', '.join(SUFFIXES)}, got {path.name!r}")
        self.catch_up()
        if path.suffix == ".csv":
            path.write_text(self.figure().csv(), encoding="utf-8")
        else:
            self.picture().write(path)

    def copy_image(self) -> None:
        """Put the plot on the clipboard."""
        self.catch_up()
        QGuiApplication.clipboard().setImage(self.picture().image())

    def picture(self) -> Picture:
        """The plot with all that others need to read it."""
        self.plot_now()
        signs = [sign for sign in self.signs if not sign.isHidden()]
        return Picture(self.canvas(), self.caption(), signs, self.theme)

    def caption(self) -> Caption:
        """What stands above a saved picture: title and model, plan, summary."""
        model, plan = self.subject()
        title = " - ".join(part for part in (self.TITLE, model) if part)
        return Caption(title, tuple(line for line in (plan, self.about()) if line))

    # What a subclass says

    def make_plots(self) -> None:
        """Fill `body`: not before there is something to show, because a plot takes as long as a window."""

    def has_content(self) -> bool:
        """Whether there is something to show, so that plots are made for it."""
        return bool(self.results or self.selection or self.detail)

    def figure(self) -> Figure:
        """The numbers shown."""
        return Figure(self.TITLE, ("layer",), [])

    def about(self) -> str:
        """What the plot says, in a sentence."""
        return self.summary.text()

    def canvas(self) -> QWidget:
        """What is saved as a picture."""
        return self.body

    def fit(self) -> None:
        """Zoom out to all of the data."""

    def results_changed(self) -> None:
        """Draw `results`."""

    def selection_changed(self) -> None:
        """Draw `selection`."""

    def detail_changed(self) -> None:
        """Draw `detail`."""

    def theme_changed(self) -> None:
        """Draw with `theme`."""

    # What a subclass uses

    def show_empty(self, text: str) -> None:
        """Say what comes next instead of a plot."""
        self._show_empty(text)
        self._summarize("")
        self.legend.set_entries((), self.theme.muted)

    def show_filled(self, summary: str, legend: Sequence[Entry] = ()) -> None:
        """Show the plot, or the table if that is chosen, under a summary."""
        self._summarize(summary)
        self.setAccessibleDescription(summary)
        self.legend.set_entries(legend, self.theme.muted)
        if self.stack.currentWidget() is self.empty or self.table_action.isChecked():
            self._show_body()

    def show_key(self, key: QWidget) -> None:
        """Place the key of a map's colours where the legend is; saved pictures have it too."""
        layout = self.layout()
        if isinstance(layout, QVBoxLayout):
            layout.insertWidget(layout.indexOf(self.stack), key)
            self.signs.append(key)

    def _summarize(self, text: str) -> None:
        self.summary.set_text(text)
        self._fit_lines()

    def say(self, lines: Sequence[str], where: QPoint | None = None) -> None:
        """Show a tooltip at the mouse; no lines take it away."""
        if lines:
            QToolTip.showText(where or QCursor.pos(), tip(lines), self)
        else:
            QToolTip.hideText()

    def pick(self, names: Sequence[str], add: bool = False) -> None:
        """Select layers because the user did, and tell it; `add` keeps what is selected, and lets go of what was."""
        chosen = list(names)
        if add:
            chosen = [name for name in self.selection if name not in set(names)]
            chosen += [name for name in names if name not in set(self.selection)]
        self.set_selection(chosen)
        self.layers_selected.emit(chosen)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """The summary stands beside the title where there is room, otherwise below it."""
        super().resizeEvent(event)
        self._fit_lines()

    def paintEvent(self, event: QPaintEvent) -> None:
        """The ground, and a frame around the view that has the focus."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(self.theme.surface))
        if self.hasFocus():
            painter.setPen(QColor(self.theme.accent))
            painter.drawRect(self.rect().adjusted(0, 0, -1, -1))

    def _fit_lines(self) -> None:
        """The summary stands where there is room for it; in a low view its room is the plot's."""
        beside = self._summary_fits()
        self._place_summary(beside=beside)
        tall = self.height() > LOW * self.fontMetrics().height()
        self.summary.setVisible(bool(self.summary.text()) and (beside or tall))

    def _summary_fits(self) -> bool:
        """Whether title, summary and controls have room beside each other."""
        others = self.head.sizeHint().width() + self.controls.sizeHint().width() + self.more.sizeHint().width()
        return others + self.summary.line_width() + 60 < self.width()

    def _place_summary(self, *, beside: bool) -> None:
        layout = self.layout()
        if isinstance(layout, QVBoxLayout) and beside != (self._top.indexOf(self.summary) >= 0):
            if beside:
                self._top.insertWidget(1, self.summary, 1)
            else:
                layout.insertWidget(1, self.summary)

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        """Offer saving, copying and the table."""
        self.menu.popup(event.globalPos())

    def showEvent(self, event: QShowEvent) -> None:
        """Draw what changed while nobody looked."""
        super().showEvent(event)
        self.catch_up()

    def plot_now(self) -> None:
        """Make the plots, if they are not there yet."""
        if not self.plotted:
            self.plotted = True
            self.make_plots()
            self.theme_changed()

    def catch_up(self) -> None:
        """Draw what was put off because the view was hidden, or because there was nothing to show."""
        if not self.plotted and not self.has_content():
            return
        late, self._late = self._late, set()
        if late:
            self.plot_now()
        for what in ("results", "selection", "detail"):
            if what in late:
                getattr(self, f"{what}_changed")()

    def _draw_later(self, what: str) -> None:
        """Draw now, or, while hidden, once it is shown: a view that nobody sees costs nothing."""
        self._late.add(what)
        if self.isVisible():
            self.catch_up()

    def _show_empty(self, text: str) -> None:
        self.empty.setText(text)
        self.setAccessibleDescription(text)
        self.stack.setCurrentWidget(self.empty)

    def _show_body(self) -> None:
        shown = self.table_action.isChecked()
        if shown:
            self.table.show_figure(self.figure(), self.theme.font_px)
        self.stack.setCurrentWidget(self.table if shown else self.body)

    def _ask_and_save(self, suffix: str) -> None:
        parts = (self.subject()[0], self.TITLE.lower().replace(" ", "-"))
        name = "-".join(part.replace("/", "-") for part in parts if part) + suffix
        ask_save(self, f"Save {self.TITLE.lower()}", f"*{suffix}", self.save_or_tell, name)

    def save_or_tell(self, path: Path) -> None:
        """Save, and say so in the line under the title when that does not work."""
        try:
            self.save(path)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            text = f"{core.printable(path.name)} could not be written: {reason}"
            self._summarize(text)
            self.save_failed.emit(text)


def _quietly(run: Callable[[], None]) -> Callable[[Any], None]:
    return lambda *_: run()


def _empty() -> QLabel:
    label = QLabel()
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setAlignment(Qt.AlignmentFlag.AlignCenter)
    label.setWordWrap(True)
    return label
