"""FilterBar: one line to find layers; wrong terms are marked and explained while typing."""

from functools import partial

from PySide6.QtCore import QEvent, QObject, Qt, Signal
from PySide6.QtGui import QAction, QKeyEvent, QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QPushButton, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from studio import core
from studio.gui.layers.layer_filter import Filter, FilterError, parse_filter
from studio.gui.shell.specs import keys_of
from studio.gui.shell.text import button, label, set_tone, tip

EXAMPLES = (
    ("above the line", "err>{line:g}"),
    ("attention", "self_attn"),
    ("feed-forward", "mlp"),
    ("outliers", "sigma>10"),
    ("kept", "fmt:keep"),
    ("failed", "status:failed"),
)
_HELP = """Words are parts of names, all of which must be there; a minus in front leaves out.
fmt:mxfp8  method:hessian  role:linear  kind:mlp.up_proj  status:failed  dtype:bf16
block:8-15,20  expert:0-7
err>0.11  size>50MB  bits<5  sigma>8  snr<20  lost>1%  params>1M"""

_EDITING = (
    Qt.Key.Key_A,
    Qt.Key.Key_C,
    Qt.Key.Key_V,
    Qt.Key.Key_X,
    Qt.Key.Key_Z,
    Qt.Key.Key_Left,
    Qt.Key.Key_Right,
    Qt.Key.Key_Backspace,
    Qt.Key.Key_Delete,
)


class FilterBar(QWidget):
    """The filter field with its count, its complaint, and examples to click.

    Signals:
        changed(Filter): another filter that makes sense.
        left(): Down or Enter: on to the table.
    """

    changed = Signal(object)
    left = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.line = 0.12
        self.field = QLineEdit()
        self.field.setPlaceholderText(f"Filter ({keys_of('find')}):  down_proj  err>0.11  fmt:mxfp8  block:0-3")
        self.field.setClearButtonEnabled(True)
        for clear in self.field.findChildren(QToolButton):
            clear.setAccessibleName("Clear the filter")
        self.field.setAccessibleName("Filter layers")
        self.field.setToolTip(tip(_HELP))
        self.field.textChanged.connect(self._parse)
        self.field.installEventFilter(self)
        self.count = label("", "muted")
        self.complaint = label("", wrap=True)
        set_tone(self.complaint, "error")
        self.complaint.hide()
        self._arrange()

    def _arrange(self) -> None:
        top = self._top = QHBoxLayout()
        top.addWidget(self.field, 1)
        top.addWidget(self.count)
        self.examples = QWidget()
        self.chips: list[QPushButton] = []
        chips = QHBoxLayout(self.examples)
        chips.setContentsMargins(0, 0, 0, 0)
        chips.setSpacing(2)
        chips.addWidget(label("Show:", "muted"))
        for title, term in EXAMPLES:
            chip = button(title, partial(self.toggle_example, term), "flat", term)
            chip.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
            self.chips.append(chip)
            chips.addWidget(chip)
        chips.addStretch(1)
        self.examples.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(3)
        rows.addLayout(top)
        rows.addWidget(self.complaint)
        rows.addWidget(self.examples)

    def offer(self, action: QAction) -> None:
        """Put a button for an action beside the count."""
        made = QToolButton()
        made.setDefaultAction(action)
        made.setAutoRaise(True)
        self._top.addWidget(made)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Show the examples that fit."""
        super().resizeEvent(event)
        room = self.width() - self.fontMetrics().horizontalAdvance("Show:") - 8
        for chip in self.chips:
            room -= chip.sizeHint().width() + 2
            chip.setVisible(room >= 0)

    def toggle_example(self, term: str) -> None:
        """Add an example, with the warning line of now, or take it out again."""
        self.toggle(term.format(line=self.line))

    def toggle(self, term: str) -> None:
        """Add a term, or take it out again."""
        terms = self.field.text().split()
        terms = [other for other in terms if other != term] if term in terms else [*terms, term]
        self.field.setText(" ".join(terms))

    def show_count(self, shown: int, total: int) -> None:
        """How many layers pass."""
        self.count.setText(f"{shown:,} of {total:,}" if shown != total else core.counted(total, "layer"))

    def _parse(self, text: str) -> None:
        try:
            wanted = parse_filter(text)
        except FilterError as error:
            self._complain(str(error))
            return
        self._complain("")
        self.changed.emit(wanted)

    def _complain(self, text: str) -> None:
        self.complaint.setText(text)
        self.complaint.setVisible(bool(text))
        self.field.setProperty("wrong", bool(text))
        self.field.style().unpolish(self.field)
        self.field.style().polish(self.field)

    @property
    def filter(self) -> Filter:
        """The filter as it stands; empty while it makes no sense."""
        try:
            return parse_filter(self.field.text())
        except FilterError:
            return Filter()

    def _override(self, event: QKeyEvent) -> bool:
        """Decide whether a key belongs to the field (accepted) or to the window: Ctrl+E would go to the line's end."""
        if event.key() == Qt.Key.Key_Escape:
            event.accept()
            return True
        if event.modifiers() & Qt.KeyboardModifier.ControlModifier and event.key() not in _EDITING:
            event.ignore()
            return True
        return False

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Escape clears, Down and Enter go to the table; shortcuts of the window work, but for those of editing."""
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.ShortcutOverride:
            return self._override(event)
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            if event.key() == Qt.Key.Key_Escape:
                self.field.clear()
                self.left.emit()
                return True
            if event.key() in (Qt.Key.Key_Down, Qt.Key.Key_Return, Qt.Key.Key_Enter):
                self.left.emit()
                return True
        return False
