"""QualityPage: what quantizing costs in tokens, measured, and tried with a prompt."""

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QEvent, Qt, Signal
from PySide6.QtGui import QAction, QKeyEvent
from PySide6.QtWidgets import QTabWidget, QVBoxLayout, QWidget

from studio.gui.jobs.job import EVALUATE, GENERATE
from studio.gui.pages.overview import shrinkable
from studio.gui.pages.try_it import TryIt
from studio.gui.shell.text import set_reason
from studio.gui.views import Views


class QualityPage(QWidget):
    """Two tabs. While a model runs, Esc stops it.

    Signals:
        stop_wanted(): Esc was pressed while a model runs.
    """

    stop_wanted = Signal()

    def __init__(self, views: Views, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Quality")
        self._running = False
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
        self._running = kind in (EVALUATE.key, GENERATE.key)

    def offer(self, action: QAction, reason: Callable[[], str]) -> None:
        """Let the button do what `action` does, and be as ready as it is; `reason` says why it is not."""

        def follow() -> None:
            set_reason(self.view.evaluate_button, reason(), action.statusTip())
            self.try_it.set_reason(reason())

        action.changed.connect(follow)
        self.view.evaluate_wanted.connect(action.trigger)
        follow()

    def event(self, event: QEvent) -> bool:
        """Keep Esc from clearing the filter while it has something to stop."""
        if event.type() == QEvent.Type.ShortcutOverride and self._stops(event):
            event.accept()
            return True
        return super().event(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Esc stops what runs."""
        if self._stops(event):
            self.stop_wanted.emit()
        else:
            super().keyPressEvent(event)

    def _stops(self, event: QEvent) -> bool:
        return self._running and isinstance(event, QKeyEvent) and event.key() == Qt.Key.Key_Escape
