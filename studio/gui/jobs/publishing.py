"""Publishing: from the question where to, over sending, to the card that says where an export is now."""

from functools import partial
from pathlib import Path

from PySide6.QtCore import QObject, QUrl, Signal
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QWidget

from studio import core
from studio.gui.jobs.compute import Compute
from studio.gui.jobs.job import PUBLISH, Job
from studio.gui.jobs.publish_dialog import PublishDialog
from studio.gui.jobs.runs import Runs
from studio.gui.layers.document import Document
from studio.gui.shell.ask import ask_folder
from studio.gui.shell.cards import Message


class Publishing(QObject):
    """Asks, runs and reports.

    Signals:
        told(Message): something to show.
    """

    told = Signal(object)

    def __init__(self, document: Document, compute: Compute, runs: Runs, window: QWidget, parent: QObject) -> None:
        super().__init__(parent)
        self._document, self._compute, self._runs, self._window = document, compute, runs, window
        self.dialog: PublishDialog | None = None

    def ask_which(self) -> None:
        """Publish the export that is open, or ask which."""
        model = self._document.model
        if model is not None and self._document.exported and not core.is_remote(model.path):
            self.ask(model.folder)
        else:
            ask_folder(self._window, "Publish an export", self.ask, self._document.near)

    def ask(self, folder: Path) -> None:
        """Show the dialog."""
        self.dialog = PublishDialog(folder, self._compute, self._window)
        self.dialog.publication_wanted.connect(self._publish)
        self.dialog.open()

    def _publish(self, job: core.Publication) -> None:
        self._runs.run(Job(PUBLISH, "Publishing", partial(core.publish, job), hear=self._hear))

    def _hear(self, event: object) -> None:
        if not isinstance(event, core.Published):
            return
        seen = "Only you, and those whom you let, see it" if event.private else "Everybody sees it"
        count = core.counted(event.files, "file")
        text = f"{count}, {core.size_text(event.nbytes)}, {event.sent:,} of them sent now. {seen}. {event.page}"
        open_page = ("Open its page", lambda: QDesktopServices.openUrl(QUrl(event.page)))
        title = f"Published {event.url.removeprefix('hf://')}, and every file there checked"
        self.told.emit(Message("good", title, text, fixes=(open_page,)))
