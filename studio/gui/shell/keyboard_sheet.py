"""KeyboardSheet: all shortcuts on one page."""

from PySide6.QtCore import Qt
from PySide6.QtGui import QKeySequence
from PySide6.QtWidgets import QDialog, QGridLayout, QHBoxLayout, QScrollArea, QVBoxLayout, QWidget

from studio.gui.shell.actions import Actions
from studio.gui.shell.specs import MENUS
from studio.gui.shell.text import button, label

Group = tuple[str, list[tuple[str, str]]]
COLUMN, THREE_COLUMNS, LINES = 30, 76, 62
"""Text heights: width of a column, width of a window from which on there are three, height of two columns."""

_MORE = (
    (
        "In the table",
        (("Left, Right", "Fold or unfold a block"), ("Enter", "Inspect the layer"), ("Click on a head", "Sort")),
    ),
    ("In plots", (("Drag", "Select layers"), ("Wheel", "Zoom"), ("Double click", "Inspect the layer"))),
)


class KeyboardSheet(QDialog):
    """The shortcuts, by menu, in two columns, or in three where the window is wide."""

    def __init__(self, actions: Actions, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Keyboard")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        room, height = parent.window().size(), self.fontMetrics().height()
        count = 3 if room.width() > THREE_COLUMNS * height else 2
        self.resize(min(count * COLUMN * height, room.width()), min(LINES * height * 2 // count, room.height()))
        groups = [(menu, _shortcuts(actions, menu)) for menu in MENUS]
        groups += [(title, list(lines)) for title, lines in _MORE]
        columns = QHBoxLayout()
        columns.setSpacing(36)
        for part in _balanced([group for group in groups if group[1]], count):
            columns.addLayout(_column(part), 1)
        page = QWidget()
        page.setLayout(columns)
        scroll = QScrollArea()
        scroll.setWidget(page)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        rows = QVBoxLayout(self)
        rows.addWidget(scroll)
        close = button("Close", self.accept)
        rows.addWidget(close, 0, Qt.AlignmentFlag.AlignRight)
        close.setFocus()


def _shortcuts(actions: Actions, menu: str) -> list[tuple[str, str]]:
    form = QKeySequence.SequenceFormat.NativeText
    return [
        (" or ".join(key.toString(form) for key in actions[spec.key].shortcuts()), spec.shown.rstrip("…"))
        for spec in actions.in_menu(menu)
        if actions[spec.key].shortcuts()
    ]


def _balanced(groups: list[Group], count: int) -> list[list[Group]]:
    """The groups in order, over so many columns of about the same height."""
    whole, before = sum(len(lines) + 2 for _, lines in groups), 0.0
    columns: list[list[Group]] = [[] for _ in range(count)]
    for title, lines in groups:
        middle = before + (len(lines) + 2) / 2
        columns[min(int(count * middle / whole), count - 1)].append((title, lines))
        before += len(lines) + 2
    return columns


def _column(groups: list[Group]) -> QGridLayout:
    grid = QGridLayout()
    grid.setVerticalSpacing(3)
    grid.setHorizontalSpacing(14)
    row = 0
    for title, lines in groups:
        grid.addWidget(label(title, "title"), row, 0, 1, 2)
        for keys, text in lines:
            row += 1
            grid.addWidget(label(text), row, 0)
            grid.addWidget(label(keys, "muted"), row, 1)
        row += 1
        grid.setRowMinimumHeight(row, 12)
        row += 1
    grid.setRowStretch(row, 1)
    grid.setColumnStretch(0, 1)
    return grid
