"""ExportDialog: where to, in which layout; checks run while the user types, and say what stands in the way."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PySide6.QtCore import QEvent, Qt, QTimer, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QComboBox,
    QDialog,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from studio import core
from studio.gui.jobs import tasks
from studio.gui.jobs.compute import Compute, Task
from studio.gui.jobs.runs import for_window
from studio.gui.layers.document import Document
from studio.gui.layers.editing import Editing
from studio.gui.layers.store import KEPT
from studio.gui.shell.actions import keys_of
from studio.gui.shell.ask import ask_folder
from studio.gui.shell.text import button, label, set_reason, set_tone

CHECK_MS = 150
WIDTH = 42
"""Text heights across, at least."""
SHARDS = {"1 GB": 10**9, "2 GB": 2 * 10**9, "5 GB": 5 * 10**9, "10 GB": 10**10, "One file": 10**15}
SHARD = "5 GB"
_SIGNS = {"good": "✓", "warning": "▲", "error": "✕", "": "⋯"}
_TOKENIZERS = ("tokenizer", "tekken", "tiktoken", "vocab", "spiece", "sentencepiece")


@dataclass(frozen=True)
class Check:
    """One line of the checks: good, warning or error, what was found, what to do."""

    tone: str
    text: str
    hint: str = ""
    fixes: tuple[str, ...] = field(default=())


class ExportDialog(QDialog):
    """Asks for folder, name, layout and size of shards.

    Signals:
        export_wanted(Export): the user pressed Export, and every check passed.
        worst_wanted(): show the layers above the warning line.
    """

    export_wanted = Signal(object)
    worst_wanted = Signal()

    def __init__(self, document: Document, compute: Compute, editing: Editing, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Export")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setMinimumWidth(WIDTH * self.fontMetrics().height())
        self._document, self._compute, self._editing = document, compute, editing
        self._task: Task | None = None
        self.job: core.Export | None = None
        self._timer = QTimer(self, singleShot=True, interval=CHECK_MS)
        self._timer.timeout.connect(self._check)
        self._growing = QTimer(self, singleShot=True, interval=0)
        self._growing.timeout.connect(self._grow)
        self._built = False
        self._build()
        self._built = True
        compute.reported.connect(self._reported)
        compute.ended.connect(self._ended)
        self._check_soon()

    # what it looks like

    def _build(self) -> None:
        rows = QVBoxLayout(self)
        rows.setContentsMargins(18, 16, 18, 14)
        rows.setSpacing(12)
        rows.addWidget(label("Export packed safetensors", "title"))
        form = QGridLayout()
        form.setSpacing(8)
        form.setColumnStretch(1, 1)
        self._build_place()
        fields = (
            self._folder_row(),
            self._name_row(),
            self._layout_rows(),
            self._reader_row(),
            self._shard_row(),
            self._option_rows(),
        )
        buddies = (
            ("&In", self.folder),
            ("&Name", self.name),
            ("Layout", None),
            ("&Written for", self.reader),
            ("&Shards up to", self.shards),
            ("", None),
        )
        for row, (content, (name, buddy)) in enumerate(zip(fields, buddies, strict=True)):
            head = QLabel(name)
            if buddy is not None:
                head.setBuddy(buddy)
            form.addWidget(head, row, 0, Qt.AlignmentFlag.AlignTop)
            form.addLayout(content, row, 1)
        rows.addLayout(form)
        self.checks = QVBoxLayout()
        self.checks.setSpacing(4)
        card = QFrame()
        card.setProperty("card", True)
        inside = QVBoxLayout(card)
        inside.addWidget(label("Checks", "bold"))
        inside.addLayout(self.checks)
        inside.addStretch(1)
        card.setMinimumHeight(150)
        rows.addWidget(card, 1)
        rows.addLayout(self._button_row())

    def _build_place(self) -> None:
        self.folder, self.name = QLineEdit(), QLineEdit()
        self.folder.setAccessibleName("Folder that the export appears in")
        self.name.setAccessibleName("Name of the export")
        model, plan = self._document.model, self._document.state.plan
        assert model is not None
        suggested = model.folder.resolve().parent / f"{model.name}-{plan.format}"
        if str(suggested).startswith(str(core.resources())):
            suggested = Path.home() / suggested.name
        self.set_target(suggested)
        for edit in (self.folder, self.name):
            edit.textChanged.connect(self._place_changed)

    def _place_changed(self) -> None:
        """What may be replaced or discarded was said of another folder."""
        self.replace.setChecked(False)
        self.discard.setChecked(False)
        self._check_soon()

    def _folder_row(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.addWidget(self.folder, 1)
        row.addWidget(button("Choose…", self._choose))
        return row

    def _choose(self) -> None:
        place = self.target.parent
        start = place if place.is_dir() else None
        ask_folder(self, "Folder that the export appears in", lambda path: self.folder.setText(str(path)), start)

    def _name_row(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.addWidget(self.name, 1)
        return row

    def _layout_rows(self) -> QVBoxLayout:
        rows = QVBoxLayout()
        rows.setSpacing(2)
        self._group = QButtonGroup(self)
        self.layouts: dict[str, QRadioButton] = {}
        self.reasons: dict[str, Any] = {}
        for name, layout in core.LAYOUTS.items():
            choice = QRadioButton(layout.title)
            choice.setAccessibleDescription(_read_by(layout))
            choice.toggled.connect(self._check_soon)
            self._group.addButton(choice)
            about = label(_read_by(layout), "small", wrap=True)
            about.setContentsMargins(22, 0, 0, 4)
            rows.addWidget(choice)
            rows.addWidget(about)
            self.layouts[name], self.reasons[name] = choice, about
        next(iter(self.layouts.values())).setChecked(True)
        return rows

    def _reader_row(self) -> QHBoxLayout:
        self.reader = QComboBox()
        self.reader.setAccessibleName("Runtime that it is written for")
        self.reader.setToolTip("What this runtime can not load is kept or stored otherwise; the checks say what.")
        self.reader.currentTextChanged.connect(self._check_soon)
        self._group.buttonToggled.connect(lambda _button, on: self._offer_readers() if on else None)
        self._offer_readers()
        row = QHBoxLayout()
        row.addWidget(self.reader)
        row.addStretch(1)
        return row

    def _offer_readers(self) -> None:
        """The runtimes of the layout that is chosen, the one that it is for first."""
        self.reader.clear()
        for name in core.LAYOUTS[self.layout_name].readers:
            self.reader.addItem(core.RUNTIMES[name].title, name)

    def _shard_row(self) -> QHBoxLayout:
        self.shards = QComboBox()
        self.shards.addItems(list(SHARDS))
        self.shards.setCurrentText(SHARD)
        self.shards.setAccessibleName("Largest shard")
        self.shards.currentTextChanged.connect(self._check_soon)
        row = QHBoxLayout()
        row.addWidget(self.shards)
        row.addStretch(1)
        return row

    def _option_rows(self) -> QVBoxLayout:
        rows = QVBoxLayout()
        self.replace = QCheckBox("&Replace the export that is there")
        self.discard = QCheckBox("&Discard what a stopped run left")
        for box in (self.replace, self.discard):
            box.toggled.connect(self._check_soon)
            box.hide()
            rows.addWidget(box)
        return rows

    def _button_row(self) -> QHBoxLayout:
        row = QHBoxLayout()
        self.why = label("", "muted", wrap=True)
        self.export = button("Export", self._export, "primary")
        self.export.setDefault(True)
        self.command = button("Copy as command", self._copy_command, "flat")
        row.addWidget(self.command)
        row.addWidget(self.why, 1)
        row.addWidget(self.export)
        row.addWidget(button("Cancel", self.reject))
        return row

    # what it asks

    @property
    def target(self) -> Path:
        """The folder to write."""
        place = os.path.expanduser(self.folder.text().strip())  # noqa: PTH111 - Path raises for an unknown user
        return Path(place).absolute() / self.name.text().strip()

    def set_target(self, path: Path) -> None:
        """Ask for this folder."""
        self.folder.setText(str(path.parent))
        self.name.setText(path.name)

    def _wrong_place(self) -> Check | None:
        """Why the two fields name no folder to write."""
        if not self.folder.text().strip():
            return Check("error", "No folder is given", "Type the one that the export appears in, or choose it.")
        if wrong := core.wrong_name(self.name.text().strip()):
            return Check("error", wrong, "The folder of this name is made in the one above.")
        return None

    @property
    def layout_name(self) -> str:
        """The layout chosen."""
        return next(name for name, choice in self.layouts.items() if choice.isChecked())

    def _arguments(self) -> dict[str, Any]:
        return {
            "model": self._document.model,
            "plan": self._document.plan,
            "choices": list(self._document.choices),
            "layout": core.LAYOUTS[self.layout_name],
            "target": self.target,
            "overwrite": self.replace.isChecked(),
            "restart": self.discard.isChecked(),
            "reader": self.reader.currentData() or "",
            "shard_nbytes": SHARDS[self.shards.currentText()],
        }

    def _copy_command(self) -> None:
        if wrong := self._wrong_place():
            self.why.setText(f"{wrong.text}.")
            return
        shard = SHARDS[self.shards.currentText()]
        options: dict[str, str | bool] = {
            "layout": self.layout_name,
            "for": self.reader.currentData() if self.reader.currentIndex() > 0 else "",
            "shard-size": f"{shard // 10**9}G" if shard != SHARDS[SHARD] else "",
            "overwrite": self.replace.isChecked(),
            "restart": self.discard.isChecked(),
        }
        text = self._editing.command(self.target, options)
        if text:
            QGuiApplication.clipboard().setText(text)
        too_many = f"Too many choices by hand: save the plan ({keys_of('save_plan')}), then copy again."
        self.why.setText("Copied." if text else too_many)

    # checks

    def _check_soon(self) -> None:
        self.job = None
        if self._built:
            set_reason(self.export, "Checks are running")
        self._timer.start()

    def _check(self) -> None:
        if wrong := self._wrong_place():
            self._task = None
            self._show([wrong], None)
            return
        arguments = self._arguments()
        self._task = Task("export check", "Checking", lambda: tasks.checking_export(arguments), preview=True)
        self._compute.submit(self._task)

    def _reported(self, task: Task, found: list[Any]) -> None:
        if task is self._task:
            refusals, result = found[-1]
            self._show_refusals(refusals)
            self.job = result if isinstance(result, core.Export) else None
            self._show(self._checks(result), self.job)

    def _ended(self, task: Task, ending: str, error: object) -> None:
        if task is self._task and ending == "failed":
            self._show([Check("error", str(getattr(error, "what", error)))], None)

    def _show_refusals(self, refusals: dict[str, str]) -> None:
        for name, reason in refusals.items():
            self.layouts[name].setEnabled(not reason or self.layouts[name].isChecked())
            self.reasons[name].setText(f"Not for this plan: {reason}" if reason else _read_by(core.LAYOUTS[name]))
            set_tone(self.reasons[name], "warning" if reason else "")

    def _checks(self, result: object) -> list[Check]:
        found = []
        if isinstance(result, core.Export):
            count = len(result.shards)
            files = core.counted(count, "shard")
            found.append(Check("good", f"{core.size_text(result.nbytes)} in {files}, and there is room for it"))
            found.append(Check("good", "The folder can be written; it appears whole or not at all"))
            if old := result.replaced:
                text = f"Replaces the export that is there: {old.files_text}, {core.size_text(old.nbytes)}"
                found.append(Check("warning", text, "They go once the new one is whole."))
            found.append(Check("good", f"{result.layout.title} stores every format that is used"))
            found.append(self._side_files(result))
            told = [*result.changes, *result.cautions]
            found += [Check("warning", sentence[:1].upper() + sentence[1:]) for sentence in told]
            found += [_claim_check(claim) for claim in result.claims]
        elif isinstance(result, core.StudioError):
            found.append(Check("error", str(result), for_window(result.hint)))
        self._offer_options(result)
        return [*found, *self._warnings()]

    def _side_files(self, job: core.Export) -> Check:
        names = job.model.side_names
        beside = core.counted(len(names), "file beside the weights is", "files beside the weights are")
        if any(word in name for name in names for word in _TOKENIZERS):
            return Check("good", f"{beside} copied, the tokenizer among them")
        return Check("warning", "There is no tokenizer beside the weights", "Runtimes need one: add it to the folder.")

    def _offer_options(self, result: object) -> None:
        hint = result.hint if isinstance(result, core.StudioError) else ""
        self.replace.setVisible(self.replace.isChecked() or "--overwrite" in hint)
        self.discard.setVisible(self.discard.isChecked() or "--restart" in hint)

    def _warnings(self) -> list[Check]:
        store, line = self._document.store, self._document.warning_line
        figures = store.figures()
        found = []
        if figures.done < figures.chosen:
            left = core.counted(figures.chosen - figures.done, "layer is", "layers are")
            found.append(Check("warning", f"{left} not measured yet", "The export quantizes them all the same."))
        above = int((store.rel_err > line).sum())
        if above:
            hint = "Close this, press W to select them, and choose a finer format."
            count = core.counted(above, "layer is", "layers are")
            found.append(Check("warning", f"{count} above the warning line of {line:g}", hint))
        elif figures.done:
            found.append(Check("good", f"No layer is above the warning line of {line:g}"))
        if (store.state == KEPT).all():
            found.append(Check("error", "Every layer is kept", "Choose a format first."))
        return found

    def _show(self, checks: list[Check], job: core.Export | None) -> None:
        while (item := self.checks.takeAt(0)) is not None:
            if (widget := item.widget()) is not None:
                widget.deleteLater()
        for check in checks:
            self.checks.addWidget(_line(check))
        wrong = next((check.text for check in checks if check.tone == "error"), "")
        set_reason(self.export, wrong)
        self.why.setText("")
        self.export.setText(f"Export {core.size_text(job.nbytes)}" if job else "Export")
        self._growing.start()

    def event(self, event: QEvent) -> bool:
        """Grow whenever what is inside wants another size, as lines do once they have their fonts."""
        if event.type() == QEvent.Type.LayoutRequest:
            self._growing.start()
        return super().event(event)

    def _grow(self) -> None:
        """Take the height that all lines need at this width."""
        if (layout := self.layout()) is not None:
            self.resize(self.width(), max(self.height(), layout.totalHeightForWidth(self.width())))

    def _export(self) -> None:
        if self.job is not None:
            self.export_wanted.emit(self.job)
            self.accept()


def _read_by(layout: "core.Layout") -> str:
    return f"Read by {', '.join(core.RUNTIMES[name].title for name in layout.readers)}"


def _claim_check(claim: core.Claim) -> Check:
    tone = "good" if claim.verdict == "runs" else "warning"
    text = f"{claim.runtime}: {'runs' if tone == 'good' else claim.reason}"
    return Check(tone, text, claim.evidence or for_window(claim.change))


def _line(check: Check) -> QWidget:
    made = QWidget()
    columns = QHBoxLayout(made)
    columns.setContentsMargins(0, 0, 0, 0)
    sign = label(_SIGNS[check.tone], "bold")
    sign.setFixedWidth(18)
    set_tone(sign, check.tone)
    text = QVBoxLayout()
    text.setSpacing(0)
    text.addWidget(label(check.text, wrap=True))
    if check.hint:
        text.addWidget(label(check.hint, "muted", wrap=True))
    columns.addWidget(sign, 0, Qt.AlignmentFlag.AlignTop)
    columns.addLayout(text, 1)
    return made
