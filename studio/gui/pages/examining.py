"""Examining: runs the doctor on the open checkpoint or any folder, and writes repaired copies."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtWidgets import QDialog, QVBoxLayout, QWidget

from studio import core
from studio.gui.jobs import tasks
from studio.gui.jobs.job import EXAMINE, REPAIR, Job
from studio.gui.jobs.runs import Runs
from studio.gui.jobs.turns import Ending
from studio.gui.layers.document import Document
from studio.gui.pages.doctor import NOTHING_OPEN, DoctorPage
from studio.gui.pages.findings_table import verdict
from studio.gui.shell.ask import ask_folder, ask_new_folder
from studio.gui.shell.cards import Message
from studio.gui.shell.desktop import open_folder
from studio.gui.shell.theme import LIGHT, Theme

WIDTH, HEIGHT = 62, 40
"""Text heights of the window of its own."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is examined, and what it is compared with."""

    path: Path
    source: Path | None = None

    @property
    def title(self) -> str:
        """Both names."""
        beside = f", compared with {core.printable(self.source.name, 60)}" if self.source else ""
        return f"{core.printable(self.path.name, 60)}{beside}"


class Examining(QObject):
    """Asks what to examine, runs it, and shows it on the page, or, where nothing is open, in a window of its own.

    Signals:
        told(Message): something to show.
        shown(): the page is to come to the front.
    """

    told = Signal(object)
    shown = Signal()

    def __init__(self, document: Document, runs: Runs, page: DoctorPage, window: QWidget, parent: QObject) -> None:
        super().__init__(parent)
        self._document, self._runs, self._page, self._window = document, runs, page, window
        self._theme = LIGHT
        self._subject: Subject | None = None
        self.dialog: QDialog | None = None
        self.open: Callable[[Path], object] = lambda _path: None
        self._view = page
        self._connect(page)
        document.opened.connect(self._start_anew)
        runs.changed.connect(self._follow)

    def _connect(self, page: DoctorPage) -> None:
        page.examine_wanted.connect(self._examine_again)
        page.own_wanted.connect(self._examine_open)
        page.folder_wanted.connect(self.ask)
        page.source_wanted.connect(self._ask_source)
        page.repair_wanted.connect(self._ask_target)
        page.stop_wanted.connect(self._runs.stop)

    def set_theme(self, theme: Theme) -> None:
        """Draw with other colours."""
        self._theme = theme
        for page in {self._page, self._view}:
            page.set_theme(theme)

    # what is asked

    def ask(self) -> None:
        """Ask for a folder, and examine it."""
        ask_folder(self._asker, "A folder to examine", self.examine, self._document.near)

    @property
    def _asker(self) -> QWidget:
        return self.dialog or self._window

    def _ask_source(self) -> None:
        subject = self._subject
        if subject is not None:
            ask_folder(
                self._asker,
                "The checkpoint that it was made from",
                lambda path: self._examine(Subject(subject.path, path)),
                subject.path.parent,
            )

    def _ask_target(self) -> None:
        subject = self._subject
        if subject is not None:
            ask_new_folder(
                self._asker,
                "A new folder for the repaired copy",
                "Write",
                partial(self.repair, subject),
                subject.path.with_name(f"{subject.path.name}-repaired"),
            )

    def _examine_again(self) -> None:
        if self._subject is not None:
            self._examine(self._subject)
        else:
            self._examine_open()

    def _examine_open(self) -> None:
        if self._document.model is not None:
            self.examine(self._document.model.path)

    @property
    def _is_elsewhere(self) -> bool:
        """True when something is open and another folder was examined."""
        model = self._document.model
        return model is not None and self._subject is not None and self._subject.path != model.path

    # what is run

    def examine(self, path: Path) -> None:
        """Examine a folder or a file."""
        self._examine(Subject(path))

    def _examine(self, subject: Subject) -> None:
        self._show_view()
        steps = partial(tasks.examining, subject.path, subject.source)
        if self._runs.run(Job(EXAMINE, "Examining", steps, over=self._over, hear=self._hear)):
            self._subject = subject
            self._view.begin(subject.title, compared=subject.source is not None, elsewhere=self._is_elsewhere)

    def repair(self, subject: Subject, target: Path) -> None:
        """Write a repaired copy."""
        steps = partial(tasks.repairing, self._runs.machine, subject.path, target, subject.source)
        if self._runs.run(Job(REPAIR, "Repairing", steps, over=self._over, hear=self._hear_repair)):
            self._view.repairing()

    def _hear(self, event: object) -> None:
        match event:
            case core.FindingMade(finding):
                self._view.add(finding)
            case core.Examined(examination):
                self._view.show_found(examination.findings)

    def _hear_repair(self, event: object) -> None:
        if isinstance(event, core.Repaired):
            self.told.emit(self._message(event))
            if event.target is not None:
                self._subject = Subject(event.target, self._subject.source if self._subject else None)
                self._view.title.set_text(self._subject.title)
                self._view.show_found(event.after.findings)

    def _message(self, event: core.Repaired) -> Message:
        target = event.target
        if target is None:
            hint = "Findings say what helps; with the source more can be mended."
            return Message("info", "Nothing can be mended for certain, and nothing was written", hint=hint)
        done = "\n".join(f"{one.what}: {core.counted(one.count, 'place')} ({one.kind})" for one in event.repairs)
        left = f"\nNot in the copy: {'; '.join(event.left_out)}" if event.left_out else ""
        fixes = (("Open it", lambda: self.open(target)), ("Show the folder", lambda: open_folder(target)))
        return Message("good", f"{core.printable(target.name, 60)} is repaired", f"{done}{left}", fixes=fixes)

    def _over(self, ending: Ending, job: Job) -> None:
        found = self._view.table.findings.found
        if ending == "finished":
            self._view.end(*verdict(found))
        elif ending == "stopped":
            self._view.end("Stopped: this is what was found so far." if job.kind is EXAMINE else "Stopped.", "warning")
        else:
            self._view.end(f"{job.title} failed; the message says why.", "error")

    # where it is shown

    def _show_view(self) -> None:
        """The page where a checkpoint is open, a window of its own where none is."""
        if self._document.model is not None:
            self._leave_dialog()
            self.shown.emit()
        elif self.dialog is None:
            self._view = DoctorPage()
            self._view.set_theme(self._theme)
            self._connect(self._view)
            self.dialog = QDialog(self._window)
            self.dialog.setWindowTitle("Doctor")
            self.dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
            QVBoxLayout(self.dialog).addWidget(self._view)
            high = self.dialog.fontMetrics().height()
            self.dialog.resize(WIDTH * high, HEIGHT * high)
            self.dialog.finished.connect(lambda _: self._leave_dialog())
            self.dialog.show()
        self._follow()

    def _leave_dialog(self) -> None:
        dialog, self.dialog = self.dialog, None
        if dialog is not None:
            if self._view.running:
                self._runs.stop()
            self._view = self._page
            dialog.close()

    def _start_anew(self) -> None:
        self._leave_dialog()
        self._subject = None
        self._page.clear()
        self._follow()

    def _follow(self) -> None:
        nothing = "" if self._subject or self._document.model is not None else NOTHING_OPEN
        self._view.set_reason("work is running" if self._runs.active else nothing)
