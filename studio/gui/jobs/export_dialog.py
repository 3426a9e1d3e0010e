"""ExportDialog: asks where to and in which layout; checks run meanwhile, and say what stands in the way."""

from functools import partial
from pathlib import Path
from typing import Any

from PySide6.QtCore import QEvent, Qt, QTimer, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QDialog, QFrame, QHBoxLayout, QVBoxLayout, QWidget

from studio import core
from studio.gui.jobs import tasks
from studio.gui.jobs.compute import Compute
from studio.gui.jobs.export_checks import Check, checks_of, checks_of_layers, line_of
from studio.gui.jobs.export_form import ExportForm
from studio.gui.jobs.fields import grow
from studio.gui.jobs.turns import Ending, Task
from studio.gui.layers.document import Document
from studio.gui.layers.editing import Editing
from studio.gui.shell.specs import keys_of
from studio.gui.shell.text import button, label, set_reason

CHECK_MS = 150
WIDTH = 42
"""Text heights across, at least."""


class ExportDialog(QDialog):
    """The form, the checks and the button that they enable.

    Signals:
        export_wanted(Export, dict): the user pressed Export, and every check passed; what `core.prepare` needs to
            prepare it lifted, empty unless it is to be.
    """

    export_wanted = Signal(object, object)

    def __init__(self, document: Document, compute: Compute, editing: Editing, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Export")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setMinimumWidth(WIDTH * self.fontMetrics().height())
        self._document, self._compute, self._editing = document, compute, editing
        self._task: Task | None = None
        self.job: core.Export | None = None
        self._arguments: dict[str, Any] = {}
        self._timer = QTimer(self, singleShot=True, interval=CHECK_MS)
        self._timer.timeout.connect(self._check)
        self._growing = QTimer(self, singleShot=True, interval=0)
        self._growing.timeout.connect(partial(grow, self))
        self._build()
        self.form.changed.connect(self._check_soon)
        compute.reported.connect(self._reported)
        compute.ended.connect(self._ended)
        self._check_soon()

    # what it looks like

    def _build(self) -> None:
        self.form = form = ExportForm(_suggested(self._document), self)
        self.folder, self.name, self.replace = form.folder, form.name, form.replace
        self.shards = form.shards
        self.layouts, self.reasons, self.set_target = form.layouts, form.reasons, form.set_target
        rows = QVBoxLayout(self)
        rows.setContentsMargins(18, 16, 18, 14)
        rows.setSpacing(12)
        rows.addWidget(label("Export packed safetensors", "title"))
        rows.addWidget(form)
        rows.addWidget(self._check_card(), 1)
        rows.addLayout(self._button_row())

    def _check_card(self) -> QFrame:
        self.checks = QVBoxLayout()
        self.checks.setSpacing(4)
        card = QFrame()
        card.setProperty("card", True)
        inside = QVBoxLayout(card)
        inside.addWidget(label("Checks", "bold"))
        inside.addLayout(self.checks)
        inside.addStretch(1)
        card.setMinimumHeight(150)
        return card

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

    def _copy_command(self) -> None:
        if wrong := self.form.wrong_place():
            self.why.setText(f"{wrong.text}.")
            return
        text = self._editing.command(self.form.target, self.form.options())
        if text:
            QGuiApplication.clipboard().setText(text)
        too_many = f"Too many choices by hand: save the plan ({keys_of('save_plan')}), then copy again."
        self.why.setText("Copied." if text else too_many)

    # checks

    def _check_soon(self) -> None:
        self.job = None
        set_reason(self.export, "Checks are running")
        self._timer.start()

    def _check(self) -> None:
        if wrong := self.form.wrong_place():
            self._task = None
            self._show([wrong], None)
            return
        document = self._document
        plan = {"model": document.model, "plan": document.plan, "choices": list(document.choices)}
        self._arguments = arguments = {**plan, **self.form.arguments()}
        self._task = Task("export check", "Checking", lambda: tasks.checking_export(arguments), preview=True)
        self._compute.submit(self._task)

    def _reported(self, task: Task, found: list[Any]) -> None:
        if task is not self._task:
            return
        refusals, result, obstacle = found[-1]
        self.job = result if isinstance(result, core.Export) else None
        self.form.show_refusals(refusals)
        self.form.show_lift(obstacle)
        self.form.offer_options(result.hint if isinstance(result, core.StudioError) else "")
        self._show([*checks_of(result), *checks_of_layers(self._document)], self.job)

    def _ended(self, task: Task, ending: Ending, error: object) -> None:
        if task is not self._task:
            return
        self._task = None
        if ending == "failed":
            self._show([Check("error", str(getattr(error, "what", error)))], None)
        elif ending == "stopped":
            self._show([Check("error", "The checks were stopped", "Change anything here, and they run again.")], None)

    def _show(self, checks: list[Check], job: core.Export | None) -> None:
        while (item := self.checks.takeAt(0)) is not None:
            if (widget := item.widget()) is not None:
                widget.deleteLater()
        for check in checks:
            self.checks.addWidget(line_of(check))
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

    def _export(self) -> None:
        if self.job is not None:
            self.export_wanted.emit(self.job, self._arguments if self.form.lift.isChecked() else {})
            self.accept()


def _suggested(document: Document) -> Path:
    """A folder beside the checkpoint, named after it and the format."""
    model = document.model
    assert model is not None
    name = f"{model.name}-{document.state.plan.format}"
    if core.is_remote(model.path):
        return Path.home() / name
    suggested = model.folder.resolve().parent / name
    return Path.home() / suggested.name if suggested.is_relative_to(core.resources()) else suggested
