"""Metadata: what the checkpoint says of itself: configuration, files, and what was odd."""

import json
from typing import Any

from PySide6.QtWidgets import QPlainTextEdit, QVBoxLayout, QWidget

from studio import core
from studio.gui.layers.document import Document
from studio.gui.shell.headed import Headed
from studio.gui.shell.text import label

LONGEST_VALUE = 2000
LONGEST_TEXT = 200_000


class Metadata(QWidget):
    """A page of plain text about the checkpoint."""

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._document = document
        self.setAccessibleName("Metadata")
        rows = QVBoxLayout(self)
        rows.addWidget(label("What the checkpoint says of itself", "title"))
        self.text = QPlainTextEdit()
        Headed(self.text)
        self.text.setReadOnly(True)
        self.text.setAccessibleName("Configuration and files")
        self.text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        rows.addWidget(self.text)
        document.opened.connect(self._show_model)

    def _show_model(self) -> None:
        model = self._document.model
        self.text.setPlainText(_described(model)[:LONGEST_TEXT] if model is not None else "")


def _described(model: core.Model) -> str:
    sections = [
        (
            "Checkpoint",
            [
                core.printable(model.path, 1000),
                core.printable(model.architecture, 200) or "no architecture named",
                model.read_by,
            ],
        ),
        ("Odd", [core.printable(text, 400) for text in model.warnings]),
        ("Quantized already", _codes(model)),
        ("Weights", [f"{core.size_text(file.size):>9}  {core.printable(file.path.name, 200)}" for file in model.files]),
        ("Copied to an export as they are", [core.printable(name, 200) for name in model.side_names]),
        ("config.json", _lines(model.config)),
    ]
    return "\n\n".join("\n".join([title, *(f"    {line}" for line in lines)]) for title, lines in sections if lines)


def _codes(model: core.Model) -> list[str]:
    if model.quantized_by:
        return [core.printable(model.quantized_by, 200)]
    stored = core.stored_codes(model).items()
    return [f"{core.counted(count, 'layer')} as {core.printable(meaning, 200)}" for meaning, count in stored]


def _lines(config: dict[str, Any]) -> list[str]:
    if not config:
        return ["no config.json: only the weights can be exported"]
    shown = json.dumps(config, indent=2, ensure_ascii=True)
    return [core.printable(line, LONGEST_VALUE) for line in shown[:LONGEST_TEXT].split("\n")]
