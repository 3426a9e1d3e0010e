"""KeptRow: how much work is kept, where, and a button to forget what no window shows."""

from PySide6.QtCore import QUrl
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QHBoxLayout, QWidget

from studio import core
from studio.gui.keeping.shelf import Shelf
from studio.gui.shell.ask import confirm
from studio.gui.shell.text import Elided, button, tip

FORGOTTEN = "Plans, undo and results of all checkpoints that are not open go. Saved plans and exports stay."


class KeptRow(QWidget):
    """One line of the settings."""

    def __init__(self, shelf: Shelf) -> None:
        super().__init__()
        self._shelf = shelf
        self.about = Elided()
        self.setToolTip(tip(f"{shelf.folder}\nAt most {core.size_text(shelf.limit)}"))
        self.forget = button("Forget…", self._ask, "", "Forget what is kept of checkpoints that are not open")
        across = QHBoxLayout(self)
        across.setContentsMargins(0, 0, 0, 4)
        across.addWidget(self.about, 1)
        self.show_folder = button("Show folder", self._show_folder, "flat", str(shelf.folder))
        across.addWidget(self.show_folder)
        across.addWidget(self.forget)
        self.refresh()

    def refresh(self, done: str = "") -> None:
        """Say how much there is."""
        count, nbytes = self._shelf.size()
        kept = f"{core.counted(count, 'checkpoint')}, {core.size_text(nbytes)}" if count else "Nothing is kept"
        self.about.set_text("; ".join(filter(None, (kept, done))))
        for made in (self.forget, self.show_folder):
            made.setEnabled(count > 0)

    def _show_folder(self) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._shelf.folder)))

    def _ask(self) -> None:
        confirm(self.window(), "Forget the work on checkpoints?", FORGOTTEN, "Forget it", self._forget)

    def _forget(self) -> None:
        open_now = self._shelf.forget()
        self.refresh("that is open now" if open_now else "")
