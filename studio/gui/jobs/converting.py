"""Converting: a checkpoint in another layout, and what is said once of codes that were chosen a second time."""

from PySide6.QtCore import QObject, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QWidget

from studio import core
from studio.gui.jobs.compute import Compute
from studio.gui.jobs.convert_dialog import ConvertDialog
from studio.gui.jobs.job import MEASURE, Job
from studio.gui.jobs.runs import Runs
from studio.gui.jobs.turns import Ending
from studio.gui.layers.document import Document
from studio.gui.shell.cards import Message
from studio.gui.shell.desktop import open_folder
from studio.gui.shell.text import sentence

OFFER = "Convert without loss…"


class Converting(QObject):
    """Asks, runs and reports conversions.

    Signals:
        told(Message): something to show.
    """

    told = Signal(object)

    def __init__(self, document: Document, compute: Compute, runs: Runs, window: QWidget, parent: QObject) -> None:
        super().__init__(parent)
        self._document, self._compute, self._runs, self._window = document, compute, runs, window
        self.dialog: ConvertDialog | None = None
        self._told_of: core.Model | None = None
        runs.converted.connect(self._show_end)
        runs.over.connect(self._tell_of_codes)

    def ask(self) -> None:
        """Show the dialog."""
        if (model := self._document.model) is not None:
            self.dialog = ConvertDialog(model, self._runs.machine, self._compute, self._window)
            self.dialog.conversion_wanted.connect(self._runs.convert)
            self.dialog.open()

    def _tell_of_codes(self, job: Job, ending: Ending) -> None:
        """Say once that layers are quantized already, with the error against what is stored, and offer to keep them."""
        document = self._document
        if job.kind is not MEASURE or ending != "finished" or document.model in (None, self._told_of):
            return
        if told := core.requantized(document.choices):
            self._told_of = document.model
            error = document.store.figures().rel_err
            text = "\n".join(map(sentence, told))
            title = f"Quantized a second time: relative error {error:.2g} against what is stored"
            self.told.emit(Message("warning", title, text, fixes=((OFFER, self.ask),)))

    def _show_end(self, job: core.Export | core.GgufExport, outcome: core.Outcome) -> None:
        target, first = job.target, job.changes[:1]
        text = f"{core.size_text(job.nbytes)} in {target}; {'; '.join(first)}. Every byte was read back and compared."
        place = target if target.is_dir() else target.parent
        fixes = (
            ("Open folder", lambda: open_folder(place)),
            ("Copy path", lambda: QGuiApplication.clipboard().setText(str(target))),
            ("Verify again", lambda: self._runs.verify(target)),
        )
        self.told.emit(Message("good", f"Converted and verified {core.printable(target.name)}", text, fixes=fixes))
