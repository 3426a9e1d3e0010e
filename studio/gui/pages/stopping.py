"""Stopping: a page on which Esc stops what runs."""

from PySide6.QtCore import QEvent, Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QWidget


class Stopping(QWidget):
    """A page that something can run for.

    Signals:
        stop_wanted(): Esc was pressed while it runs.
    """

    stop_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.running = False

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
        return self.running and isinstance(event, QKeyEvent) and event.key() == Qt.Key.Key_Escape
