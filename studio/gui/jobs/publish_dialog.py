"""PublishDialog: asks for a repository, shows what would be sent and what is there, before anything is sent."""

from functools import partial
from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtWidgets import QCheckBox, QDialog, QFormLayout, QHBoxLayout, QLabel, QLineEdit, QVBoxLayout, QWidget

from studio import core
from studio.gui.jobs import tasks
from studio.gui.jobs.compute import Compute
from studio.gui.jobs.fields import grow
from studio.gui.jobs.file_list import FileList
from studio.gui.jobs.turns import Ending, Task
from studio.gui.shell.faults import for_window, message_of
from studio.gui.shell.text import button, label, set_reason, set_tone

WIDTH = 46
"""Text heights across, at least."""

ABOUT = (
    "Sends an export to a repository of a Hugging Face hub, with the token of huggingface_hub (hf auth login). Its "
    "files appear in one commit, and every digest there is checked."
)
FIRST = "Look what is there first"
ASKING = "The hub is being asked"
FATES = {"send": "is sent", "there": "is there already", "replace": "replaces another", "remove": "is removed there"}


class PublishDialog(QDialog):
    """The form, what would be done, and the button.

    Signals:
        publication_wanted(Publication): the user pressed Publish, and nothing forbids it.
    """

    publication_wanted = Signal(object)

    def __init__(self, folder: Path, compute: Compute, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Publish")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setMinimumWidth(WIDTH * self.fontMetrics().height())
        self._folder, self._compute = folder, compute
        self._task: Task | None = None
        self.found: tasks.Foreseen | None = None
        self.repository, self.base_model = QLineEdit("hf://"), QLineEdit()
        self.base_model.setPlaceholderText("ORG/NAME of what was quantized, for the model card")
        self.private = QCheckBox("P&rivate: only you, and those whom you let, see it")
        self.private.setChecked(True)
        self.overwrite = QCheckBox("Repla&ce what is there, and remove weights that are not of this export")
        self.files = FileList(("File", "Size", "What happens"), "Files to publish")
        self.said, self.hint = label("", "", wrap=True), label("", "muted", wrap=True)
        self.look = button("&Look", self._look, help_text="Ask the hub what is there; nothing is sent")
        self.publish = button("&Publish", self._publish, "primary")
        self._growing = QTimer(self, singleShot=True, interval=0)
        self._growing.timeout.connect(partial(grow, self))
        self._build()
        for edit in (self.repository, self.base_model):
            edit.textChanged.connect(lambda _: self._forget())
            edit.returnPressed.connect(self._go_on)
        for box in (self.private, self.overwrite):
            box.toggled.connect(lambda _: self._forget())
        compute.reported.connect(self._reported)
        compute.ended.connect(self._ended)
        self.finished.connect(lambda _: self._stop())
        self._forget()
        self.repository.end(False)

    def _build(self) -> None:
        rows = QVBoxLayout(self)
        rows.setContentsMargins(18, 16, 18, 14)
        rows.setSpacing(12)
        rows.addWidget(label(f"Publish {core.printable(self._folder.name, 60)}", "title"))
        rows.addWidget(label(ABOUT, "muted", wrap=True))
        rows.addLayout(self._form())
        rows.addWidget(self.files, 1)
        rows.addWidget(self.said)
        rows.addWidget(self.hint)
        last = QHBoxLayout()
        last.addStretch(1)
        last.addWidget(self.publish)
        last.addWidget(button("Cancel", self.reject))
        rows.addLayout(last)

    def _form(self) -> QFormLayout:
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        row = QHBoxLayout()
        row.addWidget(self.repository, 1)
        row.addWidget(self.look)
        self.repository.setAccessibleName("Repository")
        self.base_model.setAccessibleName("Base model")
        for title, field in (("R&epository", self.repository), ("&Base model", self.base_model)):
            head = QLabel(title)
            head.setBuddy(field)
            form.addRow(head, row if field is self.repository else field)
        form.addRow("", self.private)
        form.addRow("", self.overwrite)
        return form

    @property
    def url(self) -> str:
        """The repository as it is now."""
        return self.repository.text().strip()

    def _go_on(self) -> None:
        """Enter looks, and publishes what was looked at."""
        (self._publish if self.publish.isEnabled() else self._look)()

    def _forget(self) -> None:
        """Something else is asked for: what was found does not hold any more."""
        self._stop()
        self.found = None
        self.files.clear()
        self._say("")
        set_reason(self.look, "" if self.url.removeprefix("hf://") else "No repository is named: hf://USER/NAME")
        set_reason(self.publish, FIRST)

    def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            self._compute.cancel(task)

    def _look(self) -> None:
        if not self.look.isEnabled():
            return
        self._stop()
        folder, url, base = self._folder, self.url, self.base_model.text().strip()
        how: dict[str, Any] = {"public": not self.private.isChecked(), "overwrite": self.overwrite.isChecked()}
        steps = lambda: tasks.foreseeing(folder, url, base_model=base, **how)  # noqa: E731 - made on the thread
        self._task = Task("publication", "Looking", steps, preview=True, lasting=True)
        self._compute.submit(self._task)
        self._say(f"{ASKING} …")
        set_reason(self.look, ASKING)

    def _reported(self, task: Task, reports: list[Any]) -> None:
        if task is not self._task or reports[-1] is None:
            return
        self.found = found = reports[-1]
        rows, objection = found.preview.rows, found.preview.objection
        self.files.show_files((row.name, row.nbytes, FATES[row.fate]) for row in rows)
        sent = [row for row in rows if row.fate in ("send", "replace")]
        amount = core.size_text(sum(row.nbytes for row in sent))
        self._say(f"{core.counted(len(sent), 'file')} to send, {amount}.", "\n".join(found.job.left))
        if objection:
            self._say(str(objection), for_window(objection.hint), "error")
        set_reason(self.publish, objection.what if objection else "")

    def _ended(self, task: Task, ending: Ending, error: object) -> None:
        if task is not self._task:
            return
        self._task = None
        set_reason(self.look, "")
        if ending == "failed":
            told = message_of(error, "")
            self._say(told.text, told.hint, "error")

    def _say(self, text: str, hint: str = "", tone: str = "") -> None:
        self.said.setText(text)
        set_tone(self.said, tone)
        self._growing.start()
        self.hint.setText(hint)

    def _publish(self) -> None:
        if self.found is not None:
            self.publication_wanted.emit(self.found.job)
            self.accept()
