"""CalibrateDialog: asks which text a model is run on, how much of it, and where the statistics go."""

import os
from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QCheckBox,
    QDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from studio import core
from studio.gui.shell.ask import ask_file, ask_save
from studio.gui.shell.text import button, label, set_reason

WIDTH = 40
"""Text heights across, at least."""

MOST = 1 << 20
DEFAULTS = core.Calibration(Path(), Path(), ())
BUNDLED = "the mixed text that comes with the program"
ABOUT = (
    "Runs the model on text, in a process of its own, and notes what the inputs of each layer are like. Methods that "
    "look at inputs then place their errors where they matter least. Text like that of the use is best."
)


class CalibrateDialog(QDialog):
    """The form and its button.

    Signals:
        calibration_wanted(Calibration): the user pressed Calibrate.
    """

    calibration_wanted = Signal(object)

    def __init__(self, model: core.Model, max_memory: int, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Calibrate")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setMinimumWidth(WIDTH * self.fontMetrics().height())
        self._model, self._max_memory = model, max_memory
        self.text, self.out = QLineEdit(), QLineEdit()
        self.text.setPlaceholderText(BUNDLED)
        self.windows, self.length = _count(DEFAULTS.windows), _count(DEFAULTS.length)
        self.overwrite = QCheckBox("&Replace the file that is there")
        self.start = button("Calibrate", self._start, "primary")
        self.start.setDefault(True)
        self._build()
        self.out.setText(str(_suggested(model)))
        for edit in (self.text, self.out):
            edit.textChanged.connect(lambda _: self._check())
        self.overwrite.toggled.connect(lambda _: self._check())
        self._check()

    def _build(self) -> None:
        rows = QVBoxLayout(self)
        rows.setContentsMargins(18, 16, 18, 14)
        rows.setSpacing(12)
        rows.addWidget(label("Gather statistics", "title"))
        rows.addWidget(label(ABOUT, "muted", wrap=True))
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        for title, field, content in (
            ("&Text", self.text, self._with_button(self.text, "Text to run the model on", self._ask_text)),
            ("&Windows", self.windows, _with_words(self.windows, "Windows", "pieces of the text, at most")),
            ("&Length", self.length, _with_words(self.length, "Length of a window", "tokens in each of them")),
            ("&File", self.out, self._with_button(self.out, "File of statistics to write", self._ask_out)),
        ):
            head = QLabel(title)
            head.setBuddy(field)
            form.addRow(head, content)
        form.addRow("", self.overwrite)
        rows.addLayout(form)
        rows.addStretch(1)
        rows.addLayout(self._buttons())

    def _with_button(self, edit: QLineEdit, name: str, choose: Callable[[], object]) -> QHBoxLayout:
        edit.setAccessibleName(name)
        row = QHBoxLayout()
        row.addWidget(edit, 1)
        row.addWidget(button("Choose…", choose))
        return row

    def _buttons(self) -> QHBoxLayout:
        row = QHBoxLayout()
        self.why = label("", "muted", wrap=True)
        row.addWidget(self.why, 1)
        row.addWidget(self.start)
        row.addWidget(button("Cancel", self.reject))
        return row

    def _ask_text(self) -> None:
        ask_file(self, "Text to run the model on", "Text (*.txt *.md *.py);;All files (*)", self._take_text)

    def _take_text(self, path: Path) -> None:
        self.text.setText(str(path))

    def _ask_out(self) -> None:
        kinds = "Statistics (*.safetensors)"
        ask_save(
            self, "File of statistics", kinds, lambda path: self.out.setText(str(path)), _suggested(self._model).name
        )

    def _check(self) -> None:
        """Say what stands in the way."""
        there = _path(self.out).exists()
        self.overwrite.setVisible(there)
        wrong = "There is a file of this name already" if there and not self.overwrite.isChecked() else ""
        if not self.out.text().strip():
            wrong = "No file is named for the statistics"
        if self.text.text().strip() and not _path(self.text).is_file():
            wrong = "There is no such text"
        self.why.setText(f"{wrong}." if wrong else "")
        set_reason(self.start, wrong)

    def _start(self) -> None:
        text = _path(self.text) if self.text.text().strip() else core.calibration_text()
        self.calibration_wanted.emit(
            core.Calibration(
                self._model.folder,
                _path(self.out),
                (text,),
                self.windows.value(),
                self.length.value(),
                max_memory=self._max_memory,
                overwrite=self.overwrite.isChecked(),
            )
        )
        self.accept()


def _with_words(box: QSpinBox, name: str, words: str) -> QHBoxLayout:
    box.setAccessibleName(name)
    row = QHBoxLayout()
    row.addWidget(box)
    row.addWidget(label(words, "muted"), 1)
    return row


def _count(default: int) -> QSpinBox:
    box = QSpinBox()
    box.setRange(1, MOST)
    box.setValue(default)
    return box


def _path(edit: QLineEdit) -> Path:
    """The path in a field."""
    return Path(os.path.expanduser(edit.text().strip())).absolute()  # noqa: PTH111 - Path raises for an unknown user


def _suggested(model: core.Model) -> Path:
    """A file beside the folder of the checkpoint, named after it."""
    name = f"{model.name}.statistics.safetensors"
    beside = model.folder.resolve().parent / name
    return Path.home() / name if beside.is_relative_to(core.resources()) else beside
