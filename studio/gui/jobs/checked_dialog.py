"""CheckedDialog: a form, the checks of what it asks for, and the button that they enable."""

from collections.abc import Sequence

from PySide6.QtCore import QTimer
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLayout, QVBoxLayout, QWidget

from studio import core
from studio.gui.jobs.asking_dialog import AskingDialog
from studio.gui.jobs.compute import Compute
from studio.gui.jobs.export_checks import Check, line_of
from studio.gui.jobs.export_form import ExportForm
from studio.gui.jobs.turns import Ending, Steps, Task
from studio.gui.shell.scrolled import Scrolled
from studio.gui.shell.text import button, label, set_reason

CHECK_MS = 150
_URGENCY = {"error": 0, "warning": 1, "": 2, "good": 3}
"""What is in the way stands first, and what is odd before what is good: a long list is cut off on a small screen."""
WIDTH = 42
"""Text heights across, at least."""


class CheckedDialog(AskingDialog):
    """Checks whenever the form changes, on the background thread, and shows what checking yields.

    A dialog says what checking does (`steps`), shows what it found (`show_found`), and does what it is for (`go`).
    """

    verb = "Export"

    def __init__(self, form: ExportForm, title: str, compute: Compute, parent: QWidget) -> None:
        super().__init__(self.verb, WIDTH, parent)
        self._compute = compute
        self._task: Task | None = None
        self._timer = QTimer(self, singleShot=True, interval=CHECK_MS)
        self._timer.timeout.connect(self._check)
        self.form = form
        self._build(title)
        form.changed.connect(self.check_soon)
        compute.reported.connect(self._reported)
        compute.ended.connect(self._ended)

    # what a dialog does

    def steps(self) -> Steps:
        """Check what the form asks for; runs on the background thread."""
        raise NotImplementedError

    def show_found(self, found: object) -> None:
        """Show what checking found so far."""
        raise NotImplementedError

    def go(self) -> None:
        """Do what every check allows."""
        raise NotImplementedError

    def written_command(self) -> str | None:
        """The command that does the same; None where there is none."""
        raise NotImplementedError

    def forget(self) -> None:
        """What was found is no longer asked for."""

    def still_wanted(self) -> bool:
        """True when what is being checked holds for what the form asks for now, too."""
        return False

    # what it looks like

    def _build(self, title: str) -> None:
        form = self.form
        self.folder, self.name, self.replace, self.shards = form.folder, form.name, form.replace, form.shards
        self.layouts, self.reasons, self.set_target = form.layouts, form.reasons, form.set_target
        rows = self.rows(title)
        content = QWidget()
        inside = QVBoxLayout(content)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.setSpacing(rows.spacing())
        inside.addWidget(form)
        inside.addWidget(self._check_card(), 1)
        rows.addWidget(Scrolled(content), 1)
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
        self.export = button(self.verb, self.go, "primary")
        self.export.setDefault(True)
        self.command = button("Copy as command", self._copy_command, "flat")
        self.buttons: QLayout = row
        row.addWidget(self.command)
        row.addWidget(self.why, 1)
        row.addWidget(self.export)
        row.addWidget(button("Cancel", self.reject))
        return row

    def _copy_command(self) -> None:
        if wrong := self.form.wrong_place():
            self.why.setText(f"{wrong.text}.")
            return
        text = self.written_command()
        if text:
            QGuiApplication.clipboard().setText(text)
        self.why.setText("Copied." if text else self.too_long())

    def too_long(self) -> str:
        """Why there is no command."""
        return ""

    # checks

    def check_soon(self) -> None:
        """Something else is asked for."""
        self.forget()
        if not self.still_wanted():
            self._task = None
        set_reason(self.export, "Checks are running")
        self._timer.start()

    def _check(self) -> None:
        if self._task is not None:
            return
        if wrong := self.form.wrong_place():
            self.show_checks([wrong], None)
            return
        steps = self.steps()
        self._task = Task("export check", "Checking", lambda: steps, preview=True)
        self._compute.submit(self._task)

    def _reported(self, task: Task, found: Sequence[object]) -> None:
        for one in found:
            if task is self._task:
                self.show_found(one)

    def _ended(self, task: Task, ending: Ending, error: object) -> None:
        if task is not self._task:
            return
        self._task = None
        if ending == "failed":
            self.show_checks([Check("error", str(getattr(error, "what", error)))], None)
        elif ending == "stopped":
            hint = "Change anything here, and they run again."
            self.show_checks([Check("error", "The checks were stopped", hint)], None)

    def show_checks(self, checks: Sequence[Check], nbytes: int | None) -> None:
        """Show lines; the button goes with `nbytes` when none of them is in the way."""
        while (item := self.checks.takeAt(0)) is not None:
            if (widget := item.widget()) is not None:
                widget.deleteLater()
        for check in sorted(checks, key=lambda check: _URGENCY[check.tone]):
            self.checks.addWidget(line_of(check))
        wrong = next((check.text for check in checks if check.tone == "error"), "")
        set_reason(self.export, wrong if nbytes is not None or wrong else "Checks are running")
        self.why.setText("")
        self.export.setText(f"{self.verb} {core.size_text(nbytes)}" if nbytes is not None else self.verb)
