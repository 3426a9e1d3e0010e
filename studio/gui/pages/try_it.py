"""TryIt: a prompt, and what source and quantized model make of it side by side, the first differing token marked."""

from PySide6.QtCore import QEvent, Qt, Signal
from PySide6.QtGui import QTextCharFormat, QTextCursor
from PySide6.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QLineEdit,
    QPlainTextEdit,
    QSpinBox,
    QSplitter,
    QTextEdit,
    QVBoxLayout,
    QWidget,
)

from studio import core
from studio.gui.shell.text import Elided, button, label, set_reason, set_tone

MOST_TOKENS = 4096
WARMEST = 5.0
DEFAULTS = core.Prompt("")
HOW = (
    "Write a prompt and press Try. Both models are loaded into a process of their own, which takes a while the first "
    "time; the first token that differs is marked."
)
QUESTION = "In the form that the model's chat template gives a question"
NOTHING = "Write a prompt first"


class Reply(QWidget):
    """A title, and the text that one side writes: plain text, whatever it holds."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.title, self.text = Elided(name), QPlainTextEdit()
        self.text.setReadOnly(True)
        self.text.setUndoRedoEnabled(False)
        self.text.setTabChangesFocus(True)
        self.text.setAccessibleName(f"Text of the {name.lower()}")
        self.text.setPlaceholderText(f"What the {name.lower()} model writes appears here.")
        self._mark: tuple[int, int] | None = None
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(3)
        rows.addWidget(self.title)
        rows.addWidget(self.text, 1)

    def begin(self, title: str) -> None:
        """Nothing is written yet."""
        self.title.set_text(title)
        self.text.clear()
        self._mark = None
        self._show_mark()

    def add(self, text: str, *, differs: bool) -> None:
        """One more token."""
        cursor = QTextCursor(self.text.document())
        cursor.movePosition(QTextCursor.MoveOperation.End)
        start = cursor.position()
        cursor.insertText(_visible(text) if differs else text)
        if differs:
            self._mark = start, cursor.position()
            self._show_mark()

    @property
    def marked(self) -> str:
        """The text that is marked."""
        return "".join(selection.cursor.selectedText() for selection in self.text.extraSelections())

    def _show_mark(self) -> None:
        marks = []
        if self._mark is not None:
            mark = QTextEdit.ExtraSelection()
            mark.cursor = QTextCursor(self.text.document())
            mark.cursor.setPosition(self._mark[0])
            mark.cursor.setPosition(self._mark[1], QTextCursor.MoveMode.KeepAnchor)
            mark.cursor.setKeepPositionOnInsert(True)  # what follows is not marked
            mark.format = self._format()
            marks = [mark]
        self.text.setExtraSelections(marks)

    def _format(self) -> QTextCharFormat:
        made = QTextCharFormat()
        made.setBackground(self.palette().highlight())
        made.setForeground(self.palette().highlightedText())
        made.setFontUnderline(True)
        return made

    def changeEvent(self, event: QEvent) -> None:
        """Mark in the colours of another theme."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.PaletteChange:
            self._show_mark()


class TryIt(QWidget):
    """The prompt, how to go on from it, and both replies.

    Signals:
        reply_wanted(Prompt): the user wants to see it continued.
        stop_wanted(): no more of it.
    """

    reply_wanted = Signal(object)
    stop_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Try it")
        self.prompt, self.chat = QLineEdit(), QCheckBox("As a &question")
        self.prompt.setPlaceholderText("A prompt to go on from")
        self.prompt.setAccessibleName("Prompt")
        self.chat.setToolTip(QUESTION)
        self.length, self.temperature = QSpinBox(), QDoubleSpinBox()
        self.go, self.stop = button("Try", self._ask, "primary"), button("Cancel", self.stop_wanted.emit)
        self.said = label(HOW, "muted", wrap=True)
        self.source, self.model = Reply("Source"), Reply("Quantized")
        self._running, self._reason = False, ""
        self._set_up()
        self._place()
        self.prompt.textChanged.connect(lambda _: self._enable())
        self.prompt.returnPressed.connect(self.go.click)
        self._enable()

    def _set_up(self) -> None:
        self.length.setRange(1, MOST_TOKENS)
        self.length.setValue(DEFAULTS.length)
        self.length.setSuffix(" tokens")
        self.length.setAccessibleName("Tokens at most")
        self.length.setToolTip("How many tokens to write at most")
        self.temperature.setRange(0.0, WARMEST)
        self.temperature.setSingleStep(0.1)
        self.temperature.setAccessibleName("Temperature")
        self.temperature.setToolTip("0 takes the likeliest token; above, tokens are drawn, the same way for both")

    def _place(self) -> None:
        first, second = QHBoxLayout(), QHBoxLayout()
        for part in (self.prompt, self.go, self.stop):
            first.addWidget(part, int(part is self.prompt))
        for widget in (self.length, label("Temperature", "muted"), self.temperature, self.chat):
            second.addWidget(widget)
        second.addStretch(1)
        self.split = QSplitter(Qt.Orientation.Horizontal)
        self.split.setChildrenCollapsible(False)
        for reply in (self.source, self.model):
            self.split.addWidget(reply)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(8, 6, 8, 6)
        rows.setSpacing(6)
        rows.addLayout(first)
        rows.addLayout(second)
        rows.addWidget(self.split, 1)
        rows.addWidget(self.said)
        self.setMinimumSize(240, 160)

    def _ask(self) -> None:
        self.reply_wanted.emit(
            core.Prompt(
                self.prompt.text(), self.chat.isChecked(), self.length.value(), round(self.temperature.value(), 2)
            )
        )

    # What the window calls

    def set_reason(self, reason: str) -> None:
        """Why nothing can be tried now, "" when it can."""
        self._reason = reason
        self._enable()

    def _enable(self) -> None:
        set_reason(self.go, self._reason or ("" if self.prompt.text() else NOTHING), "Continue the prompt")
        self.go.setVisible(not self._running)
        self.stop.setVisible(self._running)

    def begin(self, source: str, model: str) -> None:
        """Both sides begin; without a source there is one side."""
        self._running = True
        self._enable()
        self.source.setVisible(bool(source))
        for reply, title in ((self.source, source), (self.model, model)):
            reply.begin(title)
        self.say("Loading both models …" if source else "Loading the model …")
        if self.prompt.hasFocus() or self.go.hasFocus():
            self.stop.setFocus()

    def offer_chat(self, offered: bool) -> None:
        """Whether the model has a template for questions."""
        self.chat.setEnabled(offered)
        self.chat.setToolTip(QUESTION if offered else "This model has no chat template")
        if not offered:
            self.chat.setChecked(False)

    def add(self, token: core.Token) -> None:
        """One token of one side."""
        reply = self.source if token.side == "source" else self.model
        reply.add(token.text, differs=token.differs)
        if token.differs:
            self.say(_difference(token.index))

    def end(self, text: str, tone: str = "") -> None:
        """Both sides are through, or were stopped."""
        focused = self.stop.hasFocus()
        self._running = False
        self._enable()
        self.say(text, tone)
        if focused:
            self.prompt.setFocus()

    def say(self, text: str, tone: str = "") -> None:
        """Show a sentence below both texts."""
        set_tone(self.said, tone)
        self.said.setText(text)

    def clear(self) -> None:
        """Another checkpoint is open."""
        self._running = False
        self._enable()
        self.source.show()
        self.offer_chat(True)
        for reply, title in ((self.source, "Source"), (self.model, "Quantized")):
            reply.begin(title)
        self.say(HOW)


def _visible(token: str) -> str:
    """A token as it can be marked: of an end of line alone nothing would be seen."""
    return token.replace("\n", "↵\n", 1) if token.isspace() else token


def _difference(index: int) -> str:
    return f"The first difference is token {index + 1:,}: it is marked in both texts."


def verdict(differs_at: int | None, *, compared: bool) -> str:
    """How both texts compare."""
    if not compared:
        return "There is no source to compare with: Evaluate asks which it is."
    return "Both texts are the same, token by token." if differs_at is None else _difference(differs_at)
