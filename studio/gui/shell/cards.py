"""Cards: what happened and what to do, at the lower right, never in the way; and the list of all of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QEvent, QModelIndex, QObject, QPersistentModelIndex, Qt, QTimer, Signal
from PySide6.QtGui import QColor, QGuiApplication
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPlainTextEdit, QVBoxLayout, QWidget

from studio.gui.shell.text import button, label, set_tone, tip
from studio.gui.shell.theme import LIGHT, Theme

SHOWN_MS = 6000
MOST = 3
MOST_LISTED = 300
WIDTH = 27
"""Text heights across."""

MARGINS = 24
"""Pixels left and right of what a card says."""

_TONE_WORDS = {"info": "Note", "good": "Done", "warning": "Warning", "error": "Problem"}
SIGNS = {"info": "●", "good": "✓", "warning": "▲", "error": "✕"}
_NOWHERE = QModelIndex()


@dataclass(frozen=True)
class Message:
    """Something to tell.

    `tone`: info, good, warning or error. `hint` says what to do, `details` is for experts, `fixes` are buttons: title
    and what they do. `layer` is the layer that it is about, `run` the kind of run.
    """

    tone: str
    title: str
    text: str = ""
    hint: str = ""
    details: str = ""
    layer: str = ""
    run: str = ""
    fixes: tuple[tuple[str, Callable[[], object]], ...] = ()
    time: datetime = field(default_factory=lambda: datetime.now().astimezone())

    def plain(self) -> str:
        """All of it as text, to be copied."""
        parts = [f"{self.time:%H:%M:%S} {_TONE_WORDS[self.tone]}: {self.title}", self.text, self.hint, self.details]
        return "\n".join(part for part in parts if part)


class Messages(QAbstractTableModel):
    """The last messages of the session, oldest first.

    Signals:
        added(Message): one more.
    """

    added = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.items: list[Message] = []
        self._theme = LIGHT

    def add(self, message: Message) -> None:
        """Append a message; the oldest goes when there are too many."""
        if len(self.items) == MOST_LISTED:
            self.beginRemoveRows(QModelIndex(), 0, 0)
            del self.items[0]
            self.endRemoveRows()
        at = len(self.items)
        self.beginInsertRows(QModelIndex(), at, at)
        self.items.append(message)
        self.endInsertRows()
        self.added.emit(message)

    def let_go(self, message: Message) -> None:
        """Nobody can press its buttons any more: let go of what they would act on, such as a checkpoint."""
        self.items[:] = [replace(one, fixes=()) if one is message else one for one in self.items]

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours."""
        self._theme = theme

    def rowCount(self, parent: QModelIndex | QPersistentModelIndex = _NOWHERE) -> int:
        """Number of messages."""
        return 0 if parent.isValid() else len(self.items)

    def columnCount(self, parent: QModelIndex | QPersistentModelIndex = _NOWHERE) -> int:
        """Time, kind, message, what to do."""
        return 0 if parent.isValid() else 4

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Titles of the columns."""
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return ("Time", "Kind", "What happened", "What to do")[section]
        return None

    def data(self, index: QModelIndex | QPersistentModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """A cell."""
        if not index.isValid():
            return None
        message = self.items[index.row()]
        word = f"{SIGNS[message.tone]} {_TONE_WORDS[message.tone]}"
        texts = (f"{message.time:%H:%M:%S}", word, _one_line(message), message.hint)
        if role == Qt.ItemDataRole.ToolTipRole:
            return tip(message.plain())
        if role == Qt.ItemDataRole.DisplayRole:
            return texts[index.column()]
        if role == Qt.ItemDataRole.ForegroundRole and index.column() == 1:
            theme = self._theme
            tones = {"good": theme.good, "warning": theme.warning, "error": theme.error}
            return QColor(tones.get(message.tone, theme.muted))
        return None


def _one_line(message: Message) -> str:
    return ": ".join(part for part in (message.title, message.text) if part)


class Card(QFrame):
    """One message on the screen. Errors stay, the rest goes after a while unless the mouse rests on it.

    Signals:
        closed(Card): it is to go.
    """

    closed = Signal(object)

    def __init__(self, message: Message, parent: QWidget) -> None:
        super().__init__(parent)
        self.message = message
        self.setProperty("card", True)
        self.setProperty("tone", message.tone)
        self.setFixedWidth(min(WIDTH * parent.fontMetrics().height(), max(parent.width() - 32, 200)))
        self.setAccessibleName(f"{_TONE_WORDS[message.tone]}: {message.title}")
        self.setAccessibleDescription(message.plain())
        rows = QVBoxLayout(self)
        rows.setContentsMargins(14, 10, MARGINS - 14, 10)
        rows.setSpacing(5)
        head = QHBoxLayout()
        head.setSpacing(8)
        sign = label(SIGNS[message.tone], "bold")
        set_tone(sign, message.tone)
        title = label(message.title, "bold", wrap=True)
        for part in (sign, title):
            part.setContentsMargins(0, 4, 0, 0)
            head.addWidget(part, int(part is title), Qt.AlignmentFlag.AlignTop)
        close = button("✕", self.close_card, "flat", "Close")
        close.setAccessibleName("Close message")
        head.addWidget(close, 0, Qt.AlignmentFlag.AlignTop)
        rows.addLayout(head)
        for text, look in ((message.text, ""), (message.hint, "muted")):
            if text:
                rows.addWidget(label(text, look, wrap=True))
        self._details: QPlainTextEdit | None = None
        self._rows = rows
        rows.addLayout(self._buttons(message))
        self._timer = QTimer(self, singleShot=True, interval=SHOWN_MS)
        self._timer.timeout.connect(self.close_card)
        self._passes = message.tone in ("info", "good") and not message.fixes
        if self._passes:
            self._timer.start()

    def _buttons(self, message: Message) -> QVBoxLayout:
        """What can be done, in as many rows as it takes; what is known of a message comes last."""
        fixes = [button(title, partial(self._fix, run), "flat") for title, run in message.fixes]
        known = [button("Details", self._show_details, "flat")] if message.details else []
        if message.tone in ("warning", "error"):
            known.append(button("Copy", lambda: QGuiApplication.clipboard().setText(message.plain()), "flat"))
        rows, row, left = QVBoxLayout(), QHBoxLayout(), 0
        rows.setSpacing(2)
        for made in [*fixes, *known]:
            made.ensurePolished()
            wide = made.sizeHint().width() + row.spacing()
            if wide > left:
                row, left = QHBoxLayout(), self.width() - MARGINS
                row.setAlignment(Qt.AlignmentFlag.AlignRight if made in known else Qt.AlignmentFlag.AlignLeft)
                rows.addLayout(row)
            elif known and made is known[0]:
                row.addStretch(1)
                row.setAlignment(Qt.AlignmentFlag(0))
            row.addWidget(made)
            left -= wide
        return rows

    def _fix(self, run: Callable[[], object]) -> None:
        self.close_card()
        run()

    def _show_details(self) -> None:
        if self._details is None:
            self._details = QPlainTextEdit(self.message.details)
            self._details.setReadOnly(True)
            self._details.setMinimumHeight(140)
            self._rows.insertWidget(self._rows.count() - 1, self._details)
        else:
            self._details.setVisible(not self._details.isVisible())
        self.adjustSize()
        self._timer.stop()

    def enterEvent(self, event: Any) -> None:
        """Stay while it is read."""
        self._timer.stop()

    def leaveEvent(self, event: Any) -> None:
        """Go a while after it was read."""
        if self._passes:
            self._timer.start()

    def close_card(self) -> None:
        """Go."""
        self._timer.stop()
        self.closed.emit(self)


class Cards(QObject):
    """Stacks the newest cards over the lower right corner of a window's contents.

    Signals:
        gone(Message): its card is not there any more.
    """

    gone = Signal(object)

    def __init__(self, host: QWidget, bottom: Callable[[], int]) -> None:
        super().__init__(host)
        self._host, self._bottom = host, bottom
        self.shown: list[Card] = []
        host.installEventFilter(self)

    def show(self, message: Message) -> None:
        """Show a card in the place of one of the same title; the oldest goes when there are too many."""
        self.clear([shown for shown in self.shown if shown.message.title == message.title])
        card = Card(message, self._host)
        card.closed.connect(self._remove)
        card.installEventFilter(self)
        self.shown.append(card)
        while len(self.shown) > MOST:
            self._remove(next((c for c in self.shown if c.message.tone != "error"), self.shown[0]))
        card.show()
        self.place()

    def clear(self, cards: Sequence[Card] | None = None) -> None:
        """Close all cards, or those of `cards` that are still there."""
        for card in list(self.shown):
            if cards is None or card in cards:
                self._remove(card)

    def _remove(self, card: Card) -> None:
        if card in self.shown:
            self.shown.remove(card)
            card.removeEventFilter(self)
            card.hide()
            card.deleteLater()
            self.place()
            self.gone.emit(card.message)

    def place(self) -> None:
        """Put the cards where they belong, the newest lowest; those without room wait, and stand in the log."""
        bottom = self._host.height() - self._bottom() - 12
        for card in reversed(self.shown):
            needed = card.heightForWidth(card.width())
            card.resize(card.width(), needed if needed > 0 else card.sizeHint().height())
            card.move(self._host.width() - card.width() - 16, bottom - card.height())
            card.setVisible(card.y() >= 0 or card is self.shown[-1])
            card.raise_()
            bottom -= card.height() + 8

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Follow the size of the window and of the cards."""
        if event.type() == QEvent.Type.Resize and watched is self._host:
            self.place()
        if event.type() == QEvent.Type.LayoutRequest and watched is not self._host:
            self.place()
        return False
