"""Calibrating: from the question which text, to the card that offers to use the statistics."""

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QWidget

from studio import core
from studio.gui.jobs.calibrate_dialog import CalibrateDialog
from studio.gui.jobs.runs import Runs
from studio.gui.layers.document import Document
from studio.gui.shell.cards import Message


class Calibrating(QObject):
    """Asks, runs and reports; `use` takes the file that is to be used.

    Signals:
        told(Message): something to show.
    """

    told = Signal(object)

    def __init__(
        self, document: Document, runs: Runs, use: Callable[[Path], object], window: QWidget, parent: QObject
    ) -> None:
        super().__init__(parent)
        self._document, self._runs, self._use, self._window = document, runs, use, window
        self.dialog: CalibrateDialog | None = None
        runs.calibrated.connect(self._show_end)

    def ask(self) -> None:
        """Show the dialog."""
        model = self._document.model
        assert model is not None
        self.dialog = CalibrateDialog(model, self._runs.machine.max_memory, self._window)
        self.dialog.calibration_wanted.connect(self._runs.calibrate)
        self.dialog.open()

    def _show_end(self, found: core.Calibrated) -> None:
        told = (
            f"{core.counted(found.matrices, 'matrix', 'matrices')}, {core.counted(found.tokens, 'token')} of text",
            f"{core.size_text(found.nbytes)} in {found.seconds:.0f} s by {found.runtime}: {found.path}",
        )
        fixes = (("Use them", lambda: self._use(found.path)),)
        title = f"Statistics {core.printable(found.path.name, 60)} are gathered"
        self.told.emit(Message("good", title, "\n".join(told), _gaps(found), fixes=fixes))


def _gaps(found: core.Calibrated) -> str:
    """What they do not know."""
    idle = core.counted(len(found.idle), "matrix of experts", "matrices of experts")
    unseen = core.counted(len(found.unseen), "matrix is", "matrices are")
    parts = (
        f"{idle} saw no token: more text reaches more." if found.idle else "",
        f"{unseen} not in it: the runtime has them in another form." if found.unseen else "",
    )
    return " ".join(filter(None, parts))
