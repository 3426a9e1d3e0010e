"""LookingDialog: asks for a place behind a network, looks what is there when told to, and then offers to go on."""

from typing import Any

from PySide6.QtWidgets import QHBoxLayout, QLayout, QWidget

from studio.gui.jobs.asking_dialog import AskingDialog
from studio.gui.jobs.compute import Compute
from studio.gui.jobs.file_list import FileList
from studio.gui.jobs.turns import Ending, Steps, Task
from studio.gui.shell.faults import message_of
from studio.gui.shell.text import button, label, set_reason, set_tone

WIDTH = 46
"""Text heights across, at least."""

FIRST = "Look what is there first"
AGAIN = "If it does not answer, it is asked again for half a minute."


class LookingDialog(AskingDialog):
    """Fields and a button to look; the files that are there; and a button to go on with what was found.

    A dialog adds its fields with `look` to what `build` begins, calls `forget` when one changes, and says what looking
    does (`steps`), what hinders it (`hindrance`), what was found (`show_found`), and what comes of it (`go`).
    """

    key, looking = "look", "The store is being asked"

    def __init__(self, compute: Compute, title: str, verb: str, files: FileList, parent: QWidget) -> None:
        super().__init__(title, WIDTH, parent)
        self._compute = compute
        self._task: Task | None = None
        self.found: Any = None
        self.files = files
        self.said, self.hint = label("", "", wrap=True), label("", "muted", wrap=True)
        self.look = button("&Look", self._look)
        self.go_button = button(verb, self._go, "primary")
        compute.reported.connect(self._reported)
        compute.ended.connect(self._ended)
        self.finished.connect(lambda _: self._stop())

    # what a dialog does

    def hindrance(self) -> str:
        """Why looking makes no sense yet; empty when it does."""
        raise NotImplementedError

    def steps(self) -> Steps:
        """Look; what is yielded last was found. Runs on the background thread, as all that it was given is there."""
        raise NotImplementedError

    def show_found(self, found: Any) -> str:
        """Show what is there; returns what forbids to go on."""
        raise NotImplementedError

    def go(self, found: Any) -> None:
        """Go on with what was found."""
        raise NotImplementedError

    # what it looks like

    def build(self, heading: str, about: str, fields: QLayout) -> None:
        """Lay it all out."""
        rows = self.rows(heading, about)
        rows.addLayout(fields)
        rows.addWidget(self.files, 1)
        rows.addWidget(self.said)
        rows.addWidget(self.hint)
        last = QHBoxLayout()
        last.addStretch(1)
        last.addWidget(self.go_button)
        last.addWidget(button("Cancel", self.reject))
        rows.addLayout(last)

    def say(self, text: str, hint: str = "", tone: str = "") -> None:
        """A line on what is there, and one below it."""
        self.said.setText(text)
        set_tone(self.said, tone)
        self.hint.setText(hint)

    # looking

    def go_on(self) -> None:
        """Enter looks, and goes on with what was looked at."""
        (self._go if self.go_button.isEnabled() else self._look)()

    def forget(self) -> None:
        """Something else is asked for: what was found does not hold any more."""
        self._stop()
        self.found = None
        self.files.clear()
        self.say("")
        set_reason(self.look, self.hindrance())
        set_reason(self.go_button, FIRST)

    def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            self._compute.cancel(task)

    def _look(self) -> None:
        if not self.look.isEnabled():
            return
        self._stop()
        steps = self.steps()
        self._task = Task(self.key, "Looking", lambda: steps, preview=True, lasting=True)
        self._compute.submit(self._task)
        self.say(f"{self.looking} …", AGAIN)
        set_reason(self.look, self.looking)

    def _reported(self, task: Task, reports: list[Any]) -> None:
        found = next(filter(None, reports), None)  # more places to stop may come after it
        if task is self._task and found is not None:
            self.found = found
            set_reason(self.go_button, self.show_found(self.found))

    def _ended(self, task: Task, ending: Ending, error: object) -> None:
        if task is not self._task:
            return
        self._task = None
        set_reason(self.look, "")
        if ending == "failed":
            told = message_of(error, "")
            self.say(told.text, told.hint, "error")

    def _go(self) -> None:
        if self.found is not None and self.go_button.isEnabled():
            self.go(self.found)
            self.accept()
