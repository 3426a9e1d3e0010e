"""Scrolled: what is as high as its content where the screen has room for that, and scrolls where it has not."""

from PySide6.QtCore import QEvent, QObject, QSize, Qt
from PySide6.QtWidgets import QFrame, QScrollArea, QWidget

TITLE_BAR = 40
"""Pixels that a desktop takes above a window; how many is known only once it is shown."""


class Scrolled(QScrollArea):
    """A content that is never cut off at the bottom of a dialog, however large the text is."""

    def __init__(self, content: QWidget) -> None:
        super().__init__()
        self._content = content
        self.setWidgetResizable(True)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        policy = self.sizePolicy()
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)
        self.setWidget(content)
        self.viewport().setAutoFillBackground(False)
        content.setAutoFillBackground(False)

    def heightForWidth(self, width: int) -> int:
        """That of the content."""
        return self._content.heightForWidth(width) if self._content.hasHeightForWidth() else self.sizeHint().height()

    def sizeHint(self) -> QSize:
        """That of the content."""
        return self._content.sizeHint()

    def minimumSizeHint(self) -> QSize:
        """As wide as the content, and of any height."""
        return QSize(self._content.minimumSizeHint().width(), 2 * TITLE_BAR)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Whatever is around it learns that the content wants another size."""
        if event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return super().eventFilter(watched, event)


def fitting(widget: QWidget, size: QSize) -> QSize:
    """The part of `size` that the screen of a window has room for, below its title."""
    return size.boundedTo(widget.screen().availableSize() - QSize(0, TITLE_BAR))
