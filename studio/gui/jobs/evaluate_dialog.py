"""EvaluateDialog: asks what to run on which text, and says how much that takes."""

from collections.abc import Iterable, Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QGridLayout,
    QHBoxLayout,
    QLineEdit,
    QWidget,
)

from studio import core
from studio.gui.jobs.asking_dialog import AskingDialog
from studio.gui.jobs.estimate import duration
from studio.gui.jobs.fields import add_row, count_field, no_text, path_in, with_button, with_words
from studio.gui.jobs.wanted import Wanted
from studio.gui.shell.ask import ask_file, ask_folder
from studio.gui.shell.text import Elided, button, label, set_reason

WIDTH = 44
"""Text heights across, at least."""

SHORTEST = 2
COLUMNS = 4
DEFAULTS = core.Reading(())
BUNDLED = "the text for evaluations that comes with the program"
ABOUT = (
    "Runs each model on a text, in a process of its own, and compares what it predicts with the source. "
    "What is chosen for a layer by hand or by a rule holds in every format and method. "
    "What a stopped evaluation ran is kept for the next one of the same."
)


class EvaluateDialog(AskingDialog):
    """The form and its button.

    Signals:
        evaluation_wanted(Wanted): the user pressed Evaluate.
    """

    evaluation_wanted = Signal(object)

    def __init__(
        self, model: core.Model, plan: core.Plan | None, before: Wanted | None, rate: float, parent: QWidget
    ) -> None:
        """Ask about a plan for `model`, or, without one, about an export.

        before: what was asked last. rate: tokens per second of the last evaluation, 0 where none is known.
        """
        super().__init__("Evaluate", WIDTH, parent)
        self._model, self._plan, self._rate = model, plan, rate
        self.text, self.source = QLineEdit(), QLineEdit()
        self.text.setPlaceholderText(BUNDLED)
        self.source.setPlaceholderText("without it only perplexity is found")
        before = before or Wanted(DEFAULTS)
        self.windows, self.length = count_field(before.reading.windows, 1), count_field(before.reading.length, SHORTEST)
        self.formats, self.methods = _boxes(core.FORMATS, before.formats), _boxes(core.METHODS, before.methods)
        self.start = button("Evaluate", self._start, "primary")
        self.start.setDefault(True)
        self.why, self.cost = label("", "muted", wrap=True), label("", "muted", wrap=True)
        self._build()
        self.text.setText(str(before.reading.texts[0]) if before.reading.texts else "")
        self.source.setText(str(before.source or ""))
        self._follow()
        self._check()

    def _build(self) -> None:
        rows = self.rows("Evaluate what quantizing costs in tokens", ABOUT)
        form = QFormLayout()
        form.setLabelAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        if self._plan is not None:
            what = f"{core.printable(self._model.name, 60)} by the plan of now: {self._plan.format} {self._plan.method}"
            form.addRow("What", Elided(what))
            form.addRow("And in these formats", _grid(self.formats))
            form.addRow("by these methods", _grid(self.methods))
        else:
            form.addRow("What", Elided(f"The export {core.printable(self._model.name, 60)}"))
            name, title = "Checkpoint that it was made from", "&Source"
            add_row(form, title, self.source, with_button(self.source, name, self._ask_source))
        add_row(form, "&Text", self.text, with_button(self.text, "Text to run models on", self._ask_text))
        add_row(form, "&Windows", self.windows, with_words(self.windows, "Windows", "pieces of the text, at most"))
        add_row(form, "&Length", self.length, with_words(self.length, "Length of a window", "tokens in each of them"))
        rows.addLayout(form)
        rows.addWidget(self.cost)
        rows.addStretch(1)
        rows.addLayout(self._buttons())

    def _buttons(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.addWidget(self.why, 1)
        row.addWidget(self.start)
        row.addWidget(button("Cancel", self.reject))
        return row

    def _follow(self) -> None:
        for edit in (self.text, self.source):
            edit.textChanged.connect(lambda _: self._check())
        for count in (self.windows, self.length):
            count.valueChanged.connect(lambda _: self._check())
        for box in (*self.formats, *self.methods):
            box.toggled.connect(lambda _: self._check())

    def _ask_text(self) -> None:
        kinds = "Text (*.txt *.md *.py);;All files (*)"
        ask_file(self, "Text to run models on", kinds, lambda path: self.text.setText(str(path)))

    def _ask_source(self) -> None:
        near = self._model.folder.parent
        ask_folder(self, "The checkpoint it was made from", lambda path: self.source.setText(str(path)), near)

    def _check(self) -> None:
        """Say what it takes, and what stands in the way."""
        wrong = no_text(self.text)
        if self._plan is None and self.source.text().strip() and not path_in(self.source).exists():
            wrong = "There is no such source"
        self.why.setText(f"{wrong}." if wrong else "")
        set_reason(self.start, wrong)
        self.cost.setText(self._cost())

    def _cost(self) -> str:
        wanted = self.wanted()
        reading = wanted.reading
        compared = self._plan is not None or wanted.source is not None
        models = len(wanted.plans(self._plan)) if self._plan is not None else 1
        tokens = (models + compared) * reading.windows * reading.length
        runs = core.counted(models, "model and the source", "models and the source") if compared else "1 model"
        disk = core.size_text(core.evaluation_nbytes(self._model, reading))
        time = f"about {duration(tokens / self._rate)}, going by the last one" if self._rate else _UNKNOWN
        amount = core.counted(tokens, "token")
        return f"At most {amount} through {runs}: {time}. It takes up to {disk} of disk while it runs."

    def wanted(self) -> Wanted:
        """What the form says."""
        texts = (path_in(self.text),) if self.text.text().strip() else ()
        reading = core.Reading(texts, self.windows.value(), self.length.value())
        source = path_in(self.source) if self._plan is None and self.source.text().strip() else None
        return Wanted(reading, _ticked(self.formats), _ticked(self.methods), source)

    def _start(self) -> None:
        self.evaluation_wanted.emit(self.wanted())
        self.accept()


_UNKNOWN = "how long that takes is known after the first windows"


def _boxes(names: Iterable[str], ticked: Sequence[str]) -> list[QCheckBox]:
    made = [QCheckBox(name) for name in names]
    for box in made:
        box.setChecked(box.text() in ticked)
    return made


def _ticked(boxes: Sequence[QCheckBox]) -> tuple[str, ...]:
    return tuple(box.text() for box in boxes if box.isChecked())


def _grid(boxes: Sequence[QCheckBox]) -> QGridLayout:
    grid = QGridLayout()
    grid.setHorizontalSpacing(14)
    for number, box in enumerate(boxes):
        grid.addWidget(box, number // COLUMNS, number % COLUMNS)
    grid.setColumnStretch(COLUMNS, 1)
    return grid
