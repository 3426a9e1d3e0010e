"""Workspace: the page of an open checkpoint: summary, table of layers, views beside it."""

import time
from collections.abc import Iterator
from typing import Any

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QSplitter, QTabWidget, QVBoxLayout, QWidget

from studio.gui import views
from studio.gui.layers.document import Document
from studio.gui.layers.filter_bar import FilterBar
from studio.gui.layers.layer_view import LayerView
from studio.gui.layers.summary import Summary
from studio.gui.pages.metadata import Metadata
from studio.gui.shell.actions import Actions
from studio.gui.shell.settings import Settings
from studio.gui.shell.theme import Theme

REFRESH_MS, SLOWEST_MS, STEP_MS = 100, 1500, 20
WIDE, TALL = 48, 33
"""Text heights across and down, from which on there is room for more plots beside and above each other."""
PAGES = ("overview", "inspect", "compare", "metadata")
Sizes = list[list[int]]
_PLOTS = (
    ("RegimeView", "Scale regimes"),
    ("HistogramView", "Outliers"),
    ("TailView", "Tail"),
    ("ScatterView", "Error × outliers"),
)


class Workspace(QWidget):
    """Places the table and the views, and keeps them on one selection and one set of results."""

    def __init__(self, document: Document, settings: Settings, actions: Actions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.document, self.settings = document, settings
        self.summary = Summary(document)
        self.filter_bar = FilterBar()
        self.layers = LayerView(document, settings)
        self.layers.hide_extra_columns()
        self.metadata = Metadata()
        self.views: dict[str, Any] = {
            name: _view(name) for name in ("ErrorView", *dict(_PLOTS), "InspectorView", "CompareView")
        }
        self._place()
        actions.bind_local(self)
        self._waiting: list[Any] = []
        self._results: list[Any] = []
        self._fresh: set[Any] = set()  # views that show the results of now
        self._began = self._cost = 0.0
        self._again = False
        self._refresh = QTimer(self, singleShot=True, interval=REFRESH_MS)
        self._refresh.timeout.connect(self._refresh_in_steps)
        self._connect()

    def _place(self) -> None:
        left = QWidget()
        rows = QVBoxLayout(left)
        rows.setContentsMargins(10, 0, 0, 6)
        rows.setSpacing(6)
        rows.addWidget(self.filter_bar)
        rows.addWidget(self.layers, 1)
        self.pages = QTabWidget()
        self.pages.setDocumentMode(True)
        self.pages.setAccessibleName("Views")
        _shrinkable(self.pages)
        self.overview = Overview(self.views)
        pages = (self.overview, self.views["InspectorView"], self.views["CompareView"], self.metadata)
        for page, title in zip(pages, ("Overview", "Inspector", "Compare", "Metadata"), strict=True):
            self.pages.addTab(page, title)
        self.split = QSplitter(Qt.Orientation.Horizontal)
        self.split.addWidget(left)
        self.split.addWidget(self.pages)
        self.split.setChildrenCollapsible(False)
        left.setMinimumWidth(300)
        self.pages.setMinimumWidth(320)
        self.reset_layout()
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.setSpacing(0)
        whole.addWidget(self.summary)
        whole.addWidget(self.split, 1)

    def reset_layout(self) -> None:
        """Panes as they were at first."""
        width = max(self.width(), 900)
        self.split.setSizes([round(width * 0.47), round(width * 0.53)])
        self.overview.reset_layout()

    def _connect(self) -> None:
        self.filter_bar.changed.connect(self.layers.set_filter)
        self.filter_bar.left.connect(self.layers.setFocus)
        self.layers.filtered.connect(self._show_count)
        self.layers.activated_layer.connect(self.inspect)
        self.document.opened.connect(self._show_model)
        self.document.selected.connect(self._follow)
        self.document.chosen.connect(lambda _: self.refresh_soon())
        self.document.measured.connect(lambda _: self.refresh_soon())
        for tabs in (self.pages, self.overview.first, self.overview.second):
            tabs.currentChanged.connect(lambda _: self._show_what_came_into_sight())
        for view in self.views.values():
            view.layers_selected.connect(self.document.select)
            view.layer_activated.connect(self.inspect)

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours."""
        for part in (self.summary, self.layers, *self.views.values()):
            part.set_theme(theme)
        self.overview.arrange()

    def _show_model(self) -> None:
        self.filter_bar.field.clear()
        self.filter_bar.examples.show()
        if self.document.model is not None:
            self.metadata.show_model(self.document.model)
            for view in self.views.values():
                view.show_detail(None)
                view.set_selection([])
            self._show_count(len(self.document.store))
            self.refresh()

    def _show_count(self, shown: int) -> None:
        self.filter_bar.show_count(shown, len(self.document.store))

    def _follow(self, names: list[str]) -> None:
        for view in self.views.values():
            view.set_selection(names)

    def refresh_soon(self) -> None:
        """Draw figures and views again, at most ten times a second, and at most a tenth of the time."""
        self._again = bool(self._waiting)
        self._fresh.clear()
        if not self._refresh.isActive() and not self._waiting:
            self._refresh.start(min(max(REFRESH_MS, round(10_000 * self._cost)), SLOWEST_MS))

    def catch_up(self) -> None:
        """Do now what waits for its time: the run is over."""
        self._cost = 0.0
        if self._refresh.isActive():
            self._refresh.start(0)

    def _refresh_in_steps(self) -> None:
        """Figures now, then view after view, so that clicks have their turn in between."""
        if self.document.model is None:
            return
        self._began = time.thread_time()
        self.summary.refresh()
        self._results = self.document.store.shown_results()
        self._waiting = [view for view in self.views.values() if view.isVisible()]
        self._again = False
        QTimer.singleShot(STEP_MS, self, self._refresh_next)

    def _refresh_next(self) -> None:
        if not self._waiting or self.document.model is None:
            self._waiting = []
            return
        view = self._waiting.pop(0)
        view.show_results(self._results)
        if not self._again:
            self._fresh.add(view)
        self._cost = time.thread_time() - self._began  # what is painted in between included
        if self._waiting:
            QTimer.singleShot(STEP_MS, self, self._refresh_next)
        elif self._again:
            self.refresh_soon()

    def refresh(self) -> None:
        """Draw figures and the views in sight again; the others follow when they come into sight."""
        if self.document.model is None:
            return
        self._waiting = []
        self._fresh.clear()
        self.summary.refresh()
        self._show_what_came_into_sight()

    def _show_what_came_into_sight(self) -> None:
        """Draw the views in sight that do not show the results of now."""
        stale = [view for view in self.views.values() if view.isVisible() and view not in self._fresh]
        if not stale or self.document.model is None:
            return
        results = self.document.store.shown_results()
        for view in stale:
            view.show_results(results)
        self._fresh.update(stale)

    def show_page(self, page: str) -> None:
        """Bring a page to the front."""
        self.pages.setCurrentIndex(PAGES.index(page))

    def inspect(self, name: str) -> None:
        """Show one layer in the inspector."""
        self.document.select([name])
        self.show_page("inspect")

    def plots(self) -> Iterator[Any]:
        """All views that can be saved."""
        yield from self.views.values()


class Overview(QWidget):
    """The plots: where there is room, errors above and two groups below; where there is little, one group of tabs."""

    def __init__(self, made: dict[str, Any], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._error = made["ErrorView"]
        self._plots = [(made[name], title) for name, title in _PLOTS]
        self.first, self.second = QTabWidget(), QTabWidget()
        for tabs in (self.first, self.second):
            tabs.setDocumentMode(True)
            tabs.setMinimumHeight(140)
            _shrinkable(tabs)
            tabs.setAccessibleName("Plots")
        self.below = QSplitter(Qt.Orientation.Horizontal)
        self.below.addWidget(self.first)
        self.below.addWidget(self.second)
        self.whole = QSplitter(Qt.Orientation.Vertical)
        self.whole.addWidget(self.below)
        self.whole.setChildrenCollapsible(False)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.whole)
        self._arranging = QTimer(self, singleShot=True, interval=0)
        self._arranging.timeout.connect(self.arrange)
        self._shape: tuple[bool, bool] | None = None
        self._sizes: dict[str, Sizes] = {}  # of the panes of each shape that was seen
        self._arrange(wide=False, tall=True)

    def panes(self) -> dict[str, Sizes]:
        """Sizes of the panes for each shape that was seen: one above the other, and side by side."""
        if self._shape is not None:
            self._sizes[_called(self._shape)] = [self.whole.sizes(), self.below.sizes()]
        return dict(self._sizes)

    def restore_panes(self, sizes: dict[str, Sizes]) -> None:
        """Take over what `panes` gave."""
        self._sizes = dict(sizes)
        self._set_sizes()

    def reset_layout(self) -> None:
        """Panes as they were at first."""
        self._sizes.clear()
        self._set_sizes()

    def _set_sizes(self) -> None:
        kept = self._sizes.get(_called(self._shape)) if self._shape is not None else None
        if kept is not None:
            self.whole.setSizes(kept[0])
            self.below.setSizes(kept[1])
            return
        if self.whole.count() > 1:
            self.whole.setSizes([450, 550])
        self.below.setSizes([560, 440])  # two plots in one view, and one in each of the others

    def _arrange(self, *, wide: bool, tall: bool) -> None:
        if (wide, tall) == self._shape:
            return
        self.panes()
        self._shape = wide, tall
        shown = self.first.currentWidget()
        if tall:
            self.whole.insertWidget(0, self._error)
            self._error.show()
        else:
            self.first.insertTab(0, self._error, "Error by layer")
        for number, (view, title) in enumerate(self._plots):
            (self.second if wide and number else self.first).addTab(view, title)
        self.second.setVisible(wide)
        self.first.setCurrentIndex(max(self.first.indexOf(shown), 0) if shown is not None and tall else 0)
        self._set_sizes()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Two groups of plots where it is wide, the errors above them where it is tall."""
        super().resizeEvent(event)
        self._arranging.start()  # not now: Qt resizes while it styles, and plots must not change places meanwhile

    def arrange(self) -> None:
        """As many groups as there is room for."""
        height = self.fontMetrics().height()
        self._arrange(wide=self.width() >= WIDE * height, tall=self.height() >= TALL * height)


def _called(shape: tuple[bool, bool]) -> str:
    return " ".join(word for word, holds in zip(("wide", "tall"), shape, strict=True) if holds) or "small"


def _shrinkable(tabs: QTabWidget) -> None:
    """Shorten the titles of tabs where there is little room, rather than hide some."""
    tabs.setUsesScrollButtons(False)
    tabs.setElideMode(Qt.TextElideMode.ElideRight)


def _view(name: str) -> Any:
    return getattr(views, name)()
