"""CalibrateDialog: asks which text a model is run on, how much of it, and where the statistics go."""

from pathlib import Path

from PySide6.QtCore import Signal
from PySide6.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QWidget,
)

from studio import core
from studio.gui.jobs.asking_dialog import AskingDialog
from studio.gui.jobs.fields import add_row, count_field, no_text, path_in, with_button, with_words
from studio.gui.shell.ask import ask_file, ask_save
from studio.gui.shell.text import button, label, set_reason

WIDTH = 40
"""Text heights across, at least."""

DEFAULTS = core.Calibration(Path(), Path(), ())
BUNDLED = "the mixed text that comes with the program"
ABOUT = (
    "Runs the model on text, in a process of its own, and notes what the inputs of each layer are like. Methods that "
    "look at inputs then place their errors where they matter least. Text like that of the use is best."
)


class CalibrateDialog(AskingDialog):
    """The form and its button.

    Signals:
        calibration_wanted(Calibration): the user pressed Calibrate.
    """

    calibration_wanted = Signal(object)

    def __init__(self, model: core.Model, max_memory: int, parent: QWidget) -> None:
        super().__init__("Calibrate", WIDTH, parent)
        self._model, self._max_memory = model, max_memory
        self.text, self.out = QLineEdit(), QLineEdit()
        self.text.setPlaceholderText(BUNDLED)
        self.windows, self.length = count_field(DEFAULTS.windows), count_field(DEFAULTS.length)
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
        rows = self.rows("Gather statistics", ABOUT)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        for title, field, content in (
            ("&Text", self.text, with_button(self.text, "Text to run the model on", self._ask_text)),
            ("&Windows", self.windows, with_words(self.windows, "Windows", "pieces of the text, at most")),
            ("&Length", self.length, with_words(self.length, "Length of a window", "tokens in each of them")),
            ("&File", self.out, with_button(self.out, "File of statistics to write", self._ask_out)),
        ):
            add_row(form, title, field, content)
        form.addRow("", self.overwrite)
        rows.addLayout(form)
        rows.addStretch(1)
        rows.addLayout(self._buttons())

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
        there = path_in(self.out).exists()
        self.overwrite.setVisible(there)
        wrong = "There is a file of this name already" if there and not self.overwrite.isChecked() else ""
        if not self.out.text().strip():
            wrong = "No file is named for the statistics"
        wrong = no_text(self.text) or wrong
        self.why.setText(f"{wrong}." if wrong else "")
        set_reason(self.start, wrong)

    def _start(self) -> None:
        text = path_in(self.text) if self.text.text().strip() else core.calibration_text()
        self.calibration_wanted.emit(
            core.Calibration(
                self._model.folder,
                path_in(self.out),
                (text,),
                self.windows.value(),
                self.length.value(),
                max_memory=self._max_memory,
                overwrite=self.overwrite.isChecked(),
            )
        )
        self.accept()


def _suggested(model: core.Model) -> Path:
    """A file beside the folder of the checkpoint, named after it."""
    name = f"{model.name}.statistics.safetensors"
    beside = model.folder.resolve().parent / name
    return Path.home() / name if beside.is_relative_to(core.resources()) else beside
