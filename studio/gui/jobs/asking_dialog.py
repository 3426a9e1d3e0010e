"""AskingDialog: what all dialogs that ask before a job have in common: their size, their margins, their heading."""

from PySide6.QtCore import QEvent, QSize, Qt, QTimer
from PySide6.QtWidgets import QDialog, QVBoxLayout, QWidget

from studio.gui.shell.scrolled import fitting
from studio.gui.shell.text import label


class AskingDialog(QDialog):
    """A dialog of its own size: `width` text heights across at least, and as high as its lines need, if that fits."""

    def __init__(self, title: str, width: int, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle(title)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setMinimumWidth(width * self.fontMetrics().height())
        self._growing = QTimer(self, singleShot=True, interval=0)
        self._growing.timeout.connect(self._grow)

    def rows(self, heading: str, about: str = "") -> QVBoxLayout:
        """The layout, which begins with a heading and what it is about."""
        rows = QVBoxLayout(self)
        rows.setContentsMargins(18, 16, 18, 14)
        rows.setSpacing(12)
        rows.addWidget(label(heading, "title"))
        if about:
            rows.addWidget(label(about, "muted", wrap=True))
        return rows

    def event(self, event: QEvent) -> bool:
        """Grow whenever what is inside wants another size, as lines do once they have their fonts."""
        if event.type() == QEvent.Type.LayoutRequest:
            self._growing.start()
        return super().event(event)

    def _grow(self) -> None:
        if (layout := self.layout()) is not None:
            height = max(self.height(), layout.totalHeightForWidth(self.width()))
            self.resize(fitting(self, QSize(self.width(), height)))
