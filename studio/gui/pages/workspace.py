"""Workspace: the page of an open checkpoint: summary, table of layers, views beside it."""

import time
from collections.abc import Iterator
from typing import Any

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import QSplitter, QTabWidget, QVBoxLayout, QWidget

from studio import core
from studio.gui import views
from studio.gui.layers.document import Document
from studio.gui.layers.filter_bar import FilterBar
from studio.gui.layers.layer_view import LayerView
from studio.gui.layers.summary import Summary
from studio.gui.pages.overview import Overview, shrinkable
from studio.gui.pages.registry import PAGES
from studio.gui.shell.actions import Actions
from studio.gui.shell.settings import Settings
from studio.gui.shell.theme import Theme

REFRESH_MS, SLOWEST_MS, STEP_MS = 100, 1500, 20


class Workspace(QWidget):
    """Places the table and the views, and keeps them on one selection and one set of results.

    It is empty until `make` is through.
    """

    def __init__(self, document: Document, settings: Settings, actions: Actions, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.document, self.settings, self._actions = document, settings, actions
        self.views: dict[str, Any] = {}
        self.shown: dict[str, QWidget] = {}

    def make(self) -> Iterator[None]:
        """Make all that it holds, view by view and page by page, so that the window has its turn at each step."""
        self._make_table()
        self._place()
        yield
        for name in views.__all__:
            self.views[name] = getattr(views, name)()
            yield
        for page in PAGES:
            self.shown[page.key] = page.make(self.document, self.views)
            self.pages.addTab(self.shown[page.key], page.title)
            yield
        self.reset_layout()
        self._actions.bind_local(self)
        self._connect()

    def _make_table(self) -> None:
        document, settings = self.document, self.settings
        self.summary = Summary(document)
        self.filter_bar = FilterBar()
        self.layers = LayerView(document, settings)
        self.layers.hide_extra_columns()
        self.filter_bar.offer(self._actions["by_kind"])
        self._waiting: list[Any] = []
        self._results: list[Any] = []
        self._fresh: set[Any] = set()  # views that show the results of now
        self._began = self._cost = 0.0
        self._again = False
        self._refresh = QTimer(self, singleShot=True, interval=REFRESH_MS)
        self._refresh.timeout.connect(self._refresh_in_steps)

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
        shrinkable(self.pages)
        self.split = QSplitter(Qt.Orientation.Horizontal)
        self.split.addWidget(left)
        self.split.addWidget(self.pages)
        self.split.setChildrenCollapsible(False)
        left.setMinimumWidth(300)
        self.pages.setMinimumWidth(320)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.setSpacing(0)
        whole.addWidget(self.summary)
        whole.addWidget(self.split, 1)

    @property
    def overview(self) -> Overview:
        """The page with the plots over all layers."""
        page = self.shown["overview"]
        assert isinstance(page, Overview)
        return page

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
        self.document.selected.connect(lambda _: self._follow())
        self.document.chosen.connect(lambda _: self.refresh_soon())
        self.document.measured.connect(lambda _: self.refresh_soon())
        for tabs in (self.pages, self.overview.first, self.overview.second):
            tabs.currentChanged.connect(lambda _: self._show_what_came_into_sight())
        for view in self.views.values():
            view.layers_selected.connect(self.document.select)
            view.layer_activated.connect(self.inspect)
            view.subject = self.subject

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours."""
        for part in (self.summary, self.layers, *self.views.values()):
            part.set_theme(theme)
        self.overview.arrange()

    def _show_model(self) -> None:
        self.filter_bar.field.clear()
        self.filter_bar.examples.show()
        if self.document.model is not None:
            for view in self.views.values():
                view.show_detail(None)
                view.set_selection([])
            self._show_count(len(self.document.store))
            self.refresh()

    def _show_count(self, shown: int) -> None:
        self.filter_bar.show_count(shown, len(self.document.store))

    def _follow(self) -> None:
        for view in self.views.values():
            view.set_selection(self.document.selection)

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
        QTimer.singleShot(0, self, self._show_what_came_into_sight)

    def _show_what_came_into_sight(self) -> None:
        """Draw the views in sight that do not show the results of now, so that clicks have their turn in between."""
        stale = [view for view in self.views.values() if view.isVisible() and view not in self._fresh]
        if not stale or self.document.model is None:
            return
        stale[0].show_results(self.document.store.shown_results())
        self._fresh.add(stale[0])
        if len(stale) > 1:
            QTimer.singleShot(0, self, self._show_what_came_into_sight)

    @property
    def page(self) -> str:
        """The key of the page at the front."""
        return PAGES[self.pages.currentIndex()].key

    def show_page(self, page: str) -> None:
        """Bring a page to the front."""
        self.pages.setCurrentWidget(self.shown[page])

    def inspect(self, name: str) -> None:
        """Show one layer in the inspector; when it is one of several that are selected, they stay so."""
        self.document.make_current(name)
        self.show_page("inspect")

    def subject(self) -> tuple[str, str]:
        """Names of the model and of the plan, which stand in every picture."""
        model, state = self.document.model, self.document.state
        if model is None:
            return "", ""
        edits = len(state.edits)
        by_hand = f", {core.counted(edits, 'layer')} chosen by hand" if edits else ""
        chosen = core.choice_text(state.plan.format, state.plan.method)
        return core.printable(model.name, 60), f"{state.plan.name or 'own'} plan, {chosen}{by_hand}"
