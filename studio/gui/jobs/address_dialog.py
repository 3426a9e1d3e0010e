"""AddressDialog: asks for the address of a model, and shows what lies there before any of it is fetched."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtWidgets import QComboBox, QDialog, QHBoxLayout, QVBoxLayout, QWidget

from studio import core
from studio.gui.jobs.compute import Compute
from studio.gui.jobs.fields import grow
from studio.gui.jobs.file_list import FileList
from studio.gui.jobs.turns import Ending, Task
from studio.gui.shell.faults import message_of
from studio.gui.shell.text import button, label, set_reason, set_tone

WIDTH = 46
"""Text heights across, at least."""

ABOUT = (
    "hf://ORG/NAME on a hub, https://HOST/FOLDER on a web server, s3://BUCKET/FOLDER in a bucket. Looking lists files "
    "and sizes, opening fetches headers only. Weights are fetched when they are quantized or looked at."
)
FIRST = "Look what is there first"
LOOKING = "The store is being asked"


class AddressDialog(QDialog):
    """An address, what is there, and a button to open it.

    Signals:
        address_wanted(str): the user pressed Open.
    """

    address_wanted = Signal(str)

    def __init__(self, compute: Compute, known: Sequence[str], parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Open address")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setMinimumWidth(WIDTH * self.fontMetrics().height())
        self._compute, self._task = compute, None
        self.found: core.Listing | None = None
        self.address = QComboBox()
        self.address.setEditable(True)
        self.address.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.address.setAccessibleName("Address")
        self.address.addItems(list(known))
        self.address.setCurrentIndex(-1)
        self.files = FileList(("File", "Size"), "Files at the address")
        self.said = label("", "", wrap=True)
        self.hint = label("", "muted", wrap=True)
        self._growing = QTimer(self, singleShot=True, interval=0)
        self._growing.timeout.connect(partial(grow, self))
        self._build()
        self.address.currentTextChanged.connect(lambda _: self._forget())
        compute.reported.connect(self._reported)
        compute.ended.connect(self._ended)
        self.finished.connect(lambda _: self._stop())
        self._forget()

    _task: Task | None

    def _build(self) -> None:
        rows = QVBoxLayout(self)
        rows.setContentsMargins(18, 16, 18, 14)
        rows.setSpacing(12)
        rows.addWidget(label("Open a model behind an address", "title"))
        rows.addWidget(label(ABOUT, "muted", wrap=True))
        row = QHBoxLayout()
        row.addWidget(self.address, 1)
        self.look = button("&Look", self._look, help_text="List files and sizes")
        row.addWidget(self.look)
        rows.addLayout(row)
        rows.addWidget(self.files, 1)
        rows.addWidget(self.said)
        rows.addWidget(self.hint)
        last = QHBoxLayout()
        last.addStretch(1)
        self.open_there = button("&Open", self._open, "primary")
        last.addWidget(self.open_there)
        last.addWidget(button("Cancel", self.reject))
        rows.addLayout(last)
        if (line := self.address.lineEdit()) is not None:
            line.setPlaceholderText("hf://ORG/NAME")
            line.returnPressed.connect(self._go_on)

    @property
    def text(self) -> str:
        """The address as it is now."""
        return self.address.currentText().strip()

    def _go_on(self) -> None:
        """Enter looks, and opens what was looked at."""
        (self._open if self.found else self._look)()

    def _forget(self) -> None:
        """Another address: nothing is known of it."""
        self._stop()
        self.found = None
        self.files.clear()
        wrong = "" if not self.text or core.is_url(self.text) else "An address begins with hf://, https:// or s3://."
        self._say(wrong)
        set_reason(self.look, wrong or ("" if self.text else "No address is given"))
        set_reason(self.open_there, FIRST)

    def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            self._compute.cancel(task)

    def _look(self) -> None:
        if not self.look.isEnabled():
            return
        self._stop()
        address = self.text
        self._task = Task("address", "Looking", lambda: core.listing(address), preview=True, lasting=True)
        self._compute.submit(self._task)
        self._say(f"{LOOKING} …")
        set_reason(self.look, LOOKING)

    def _reported(self, task: Task, reports: list[Any]) -> None:
        if task is not self._task or reports[-1] is None:
            return
        self.found = found = reports[-1]
        self.files.show_files((name, nbytes, "") for name, nbytes in found.files)
        count = core.counted(len(found.files), "file")
        self._say(f"{count}, {core.size_text(found.nbytes)}; weights {core.size_text(found.weights)}.", found.caution)
        set_reason(self.open_there, "")

    def _ended(self, task: Task, ending: Ending, error: object) -> None:
        if task is not self._task:
            return
        self._task = None
        set_reason(self.look, "")
        if ending == "failed":
            told = message_of(error, "", "")
            self._say(told.text or told.title, told.hint, "error")

    def _say(self, text: str, hint: str = "", tone: str = "") -> None:
        self.said.setText(text)
        set_tone(self.said, tone)
        self._growing.start()
        self.hint.setText(hint)

    def _open(self) -> None:
        if self.found is not None:
            self.address_wanted.emit(self.text)
            self.accept()
