"""Exporting: from the question where to, over the checks, to the card that says how to run the result."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QWidget

from studio import core
from studio.gui.jobs.compute import Compute
from studio.gui.jobs.export_dialog import ExportDialog
from studio.gui.jobs.runs import Runs
from studio.gui.layers.document import Document
from studio.gui.layers.editing import Editing
from studio.gui.shell.ask import ask_folder
from studio.gui.shell.cards import Message
from studio.gui.shell.desktop import open_folder


class Exporting(QObject):
    """Asks, runs and reports exports.

    `quality` gives what an evaluation found of the plan of now, if any; `publish` asks where an export is to go.

    `convert` asks for a conversion instead, as for an export that is open: its codes are chosen already.

    Signals:
        told(Message): something to show.
    """

    told = Signal(object)

    def __init__(
        self, document: Document, compute: Compute, runs: Runs, editing: Editing, window: QWidget, parent: QObject
    ) -> None:
        super().__init__(parent)
        self._document, self._compute, self._runs, self._editing = document, compute, runs, editing
        self._window = window
        self.dialog: ExportDialog | None = None
        self.quality: Callable[[], core.Quality | None] = lambda: None
        self.publish: Callable[[Path], object] = lambda _folder: None
        self.convert: Callable[[], object] = lambda: None
        runs.exported.connect(self._show_end)

    def ask(self) -> None:
        """Show the export dialog."""
        if self._document.exported:
            self.convert()
            return
        self.dialog = ExportDialog(self._document, self._compute, self._editing, self._window)
        self.dialog.export_wanted.connect(self._export)
        self.dialog.conversion_wanted.connect(self.convert)
        self.dialog.open()

    def _export(self, job: core.Export, lifted: Any) -> None:
        """Export; the model card says what an evaluation found of these formats and methods."""
        if quality := self.quality():
            with suppress(core.PlanError):  # the layout takes other formats
                job = core.with_quality(job, quality)
        self._runs.export(job, lifted)

    def ask_verify(self) -> None:
        """Verify the export that is open, or ask which."""
        model = self._document.model
        if model is not None and self._document.exported:
            self._runs.verify(model.folder)
            return
        ask_folder(self._window, "Verify an export", self._runs.verify, self._document.near)

    def _show_end(self, job: core.Export, outcome: core.Outcome) -> None:
        command, failing = core.start_command(job.layout, job.target, job.choices), _failing(job)
        folder = str(job.target)
        text = (
            f"{core.size_text(job.nbytes)} in {folder}. Every byte was read back and every weight decoded.\n"
            f"{_where(job)}\n{failing or command}"
        )
        copy = ("Copy command", lambda: QGuiApplication.clipboard().setText(command))
        fixes = (
            *(() if failing else (copy,)),
            ("Open folder", lambda: open_folder(job.target)),
            ("Publish…", lambda: self.publish(job.target)),
            ("Verify again", lambda: self._runs.verify(Path(folder))),
        )
        self.told.emit(Message("good", f"Exported and verified {core.printable(job.target.name)}", text, fixes=fixes))


def _failing(job: core.Export) -> str:
    """Why the runtime that the command is of does not run the export; empty where nothing is known against it."""
    known = (claim for claim in job.claims if claim.verdict == "fails")
    return next((str(claim) for claim in known if claim.runtime.startswith(core.START_RUNTIMES[job.layout.name])), "")


def _where(job: core.Export) -> str:
    runs = [claim.runtime for claim in job.claims if claim.verdict == "runs"]
    return f"Runs on {', '.join(runs)}." if runs else "No runtime was tried with this architecture and layout."
