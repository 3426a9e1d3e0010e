"""Labels and buttons that show plain text only, whatever a name from a checkpoint holds."""

import html
from collections.abc import Callable

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QLabel, QPushButton, QSizePolicy, QWidget


def label(text: str = "", look: str = "", *, wrap: bool = False) -> QLabel:
    """A label of plain text. `look` is one of muted, small, title, hero, bold, or empty."""
    made = QLabel()
    made.setTextFormat(Qt.TextFormat.PlainText)
    made.setText(text)
    made.setWordWrap(wrap)
    if look:
        made.setProperty(look, True)
    return made


def capital(text: str) -> str:
    """`text` with a capital; a name of a layer or a file that it begins with stays as it is."""
    first = text.split(" ", 1)[0]
    named = "." in first.rstrip(".") or "_" in first or "/" in first
    return text if named else text[:1].upper() + text[1:]


def sentence(text: str) -> str:
    """`text` with a capital and a full stop."""
    return capital(text) + ("." if text and text[-1] not in ".!?…" else "")


def tip(text: str) -> str:
    """`text` as a tooltip that shows it letter for letter: Qt takes what looks like HTML for HTML."""
    return f"<p style='white-space:pre-wrap'>{html.escape(text)}</p>" if "<" in text or "&" in text else text


def button(text: str, clicked: Callable[[], object], look: str = "", help_text: str = "") -> QPushButton:
    """A button. `look` is primary, flat or empty; `&` in `text` marks its mnemonic."""
    made = QPushButton(text)
    made.clicked.connect(lambda _checked=False: clicked())
    made.setAutoDefault(False)
    if look:
        made.setProperty(look, True)
    if help_text:
        made.setToolTip(tip(help_text))
    return made


def set_tone(widget: QWidget, tone: str) -> None:
    """Give a widget the colour of good, warning, error or info; empty for none."""
    if widget.property("tone") != tone:
        widget.setProperty("tone", tone)
        widget.style().unpolish(widget)
        widget.style().polish(widget)


def set_primary(made: QPushButton, *, primary: bool) -> None:
    """Let a button stand out as the step that comes next, or not."""
    if made.property("primary") != primary:
        made.setProperty("primary", primary)
        made.style().unpolish(made)
        made.style().polish(made)


def set_reason(made: QPushButton, reason: str, otherwise: str = "") -> None:
    """Enable a button, or disable it and say why."""
    made.setEnabled(not reason)
    made.setToolTip(tip(reason or otherwise))


def draw_empty(ground: QWidget, text: str, color: str) -> None:
    """Write in the middle of an empty list why it is empty, and what comes next."""
    painter = QPainter(ground)
    painter.setPen(QColor(color))
    room = ground.rect().adjusted(12, 12, -12, -12)
    painter.drawText(room, int(Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap), text)


class Elided(QWidget):
    """One line of plain text that shortens, in its middle unless `mode` says where, when there is little room."""

    def __init__(self, text: str = "", mode: Qt.TextElideMode = Qt.TextElideMode.ElideMiddle) -> None:
        super().__init__()
        self._mode = mode
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._text = ""
        self.set_text(text)

    def text(self) -> str:
        """The whole text."""
        return self._text

    def set_text(self, text: str) -> None:
        """Show another text."""
        if text != self._text:
            self._text = text
            self.setAccessibleName(text)
            self.setToolTip(tip(text) if len(text) > 40 else "")
            self.update()

    def sizeHint(self) -> QSize:
        """As wide as the text, one line high."""
        return QSize(self.fontMetrics().horizontalAdvance(self._text) + 2, self.fontMetrics().height() + 2)

    def minimumSizeHint(self) -> QSize:
        """Any width."""
        return QSize(20, self.fontMetrics().height() + 2)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw what fits."""
        painter = QPainter(self)
        shown = self.fontMetrics().elidedText(self._text, self._mode, self.width())
        role = self.foregroundRole()
        painter.setPen(self.palette().color(role))
        painter.drawText(self.rect(), int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft), shown)
