"""Headed: plain text that is easy to read: heads bold, what a line is about in the colour of links."""

import re

from PySide6.QtCore import QEvent, QObject
from PySide6.QtGui import QFont, QPalette, QSyntaxHighlighter, QTextCharFormat
from PySide6.QtWidgets import QPlainTextEdit

_ABOUT = re.compile(r'[A-Z][a-z ]{2,30}:(?= )| *"[^"]*":')


class Headed(QSyntaxHighlighter):
    """Draws the first line of each paragraph bold, and names before a colon in another colour; follows the palette."""

    def __init__(self, edit: QPlainTextEdit) -> None:
        super().__init__(edit.document())
        self._edit = edit
        self._head, self._about = QTextCharFormat(), QTextCharFormat()
        self._head.setFontWeight(QFont.Weight.DemiBold)
        self._follow()
        edit.installEventFilter(self)

    def _follow(self) -> None:
        self._about.setForeground(self._edit.palette().color(QPalette.ColorRole.Link))
        self.rehighlight()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Another theme is another palette."""
        if watched is self._edit and event.type() == QEvent.Type.PaletteChange:
            self._follow()
        return False

    def highlightBlock(self, text: str) -> None:
        """Draw a line."""
        before = self.currentBlock().previous()
        if not before.isValid() or not before.text():
            self.setFormat(0, len(text), self._head)
        elif about := _ABOUT.match(text):
            self.setFormat(0, about.end(), self._about)
