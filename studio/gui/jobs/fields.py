"""Fields: what the dialogs of jobs ask with: paths beside a button, and counts beside words."""

import os
from collections.abc import Callable
from pathlib import Path

from PySide6.QtWidgets import QFormLayout, QHBoxLayout, QLabel, QLineEdit, QSpinBox, QWidget

from studio.gui.shell.text import button, label

MOST = 1 << 20


def count_field(value: int, least: int = 1) -> QSpinBox:
    """A count from `least` on."""
    box = QSpinBox()
    box.setRange(least, MOST)
    box.setValue(value)
    return box


def with_words(box: QSpinBox, name: str, words: str) -> QHBoxLayout:
    """A count, called `name`, and what it counts."""
    box.setAccessibleName(name)
    row = QHBoxLayout()
    row.addWidget(box)
    row.addWidget(label(words, "muted"), 1)
    return row


def with_button(edit: QLineEdit, name: str, choose: Callable[[], object]) -> QHBoxLayout:
    """A path, called `name`, and a button to choose another."""
    edit.setAccessibleName(name)
    row = QHBoxLayout()
    row.addWidget(edit, 1)
    row.addWidget(button("Choose…", choose))
    return row


def add_row(form: QFormLayout, title: str, field: QWidget, content: QHBoxLayout) -> None:
    """Add a row whose title, with a mnemonic, belongs to `field` in `content`."""
    head = QLabel(title)
    head.setBuddy(field)
    form.addRow(head, content)


def path_in(edit: QLineEdit) -> Path:
    """The path in a field."""
    return Path(os.path.expanduser(edit.text().strip())).absolute()  # noqa: PTH111 - Path raises for an unknown user


def no_text(edit: QLineEdit) -> str:
    """Why the file in a field can be no text to run a model on, "" for one that may be, or for none."""
    path = path_in(edit)
    if not edit.text().strip():
        return ""
    if path.is_dir():
        return "The text is a folder: choose a file"
    if not path.is_file():
        return "There is no such text"
    return "" if path.stat().st_size else "The text is empty"
