"""QualityPage: what quantizing costs in tokens, measured, and tried with a prompt."""

from collections.abc import Callable
from typing import Any

from PySide6.QtGui import QAction
from PySide6.QtWidgets import QTabWidget, QVBoxLayout, QWidget

from studio.gui.jobs.job import EVALUATE, GENERATE
from studio.gui.pages.overview import shrinkable
from studio.gui.pages.stopping import Stopping
from studio.gui.pages.try_it import TryIt
from studio.gui.shell.text import set_reason
from studio.gui.views import Views


class QualityPage(Stopping):
    """Two tabs. While a model runs, Esc stops it."""

    def __init__(self, views: Views, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Quality")
        self.view: Any = views["QualityView"]
        self.try_it = TryIt()
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self.tabs.setAccessibleName("Quality")
        shrinkable(self.tabs)
        self.tabs.addTab(self.view, "Evaluation")
        self.tabs.addTab(self.try_it, "Try it")
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.addWidget(self.tabs)

    def note_run(self, kind: str) -> None:
        """A run of this kind goes on; "" for none."""
        self.running = kind in (EVALUATE.key, GENERATE.key)

    def offer(self, action: QAction, reason: Callable[[], str]) -> None:
        """Let the button do what `action` does, and be as ready as it is; `reason` says why it is not.

        Who pressed it stays beside it when it is no longer ready: Qt would go on to what comes next in the window.
        """

        def follow() -> None:
            pressed = self.view.evaluate_button
            if reason() and self.window().focusWidget() is pressed:
                self.view.setFocus()
            set_reason(pressed, reason(), action.statusTip())
            self.try_it.set_reason(reason())

        action.changed.connect(follow)
        self.view.evaluate_wanted.connect(action.trigger)
        follow()
