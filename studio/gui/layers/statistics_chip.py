"""StatisticsChip: says in the status bar which statistics are in use, and offers others."""

from PySide6.QtWidgets import QMenu, QToolButton, QWidget

from studio import core
from studio.gui.layers.document import Document
from studio.gui.layers.method_words import GAIN
from studio.gui.shell.actions import Actions
from studio.gui.shell.text import tip

LONGEST = 40
ACTIONS = ("open_statistics", "calibrate", "drop_statistics")


class StatisticsChip(QToolButton):
    """A button with the actions that have to do with statistics; there while a checkpoint is open that can use them."""

    def __init__(self, document: Document, actions: Actions, parent: QWidget) -> None:
        super().__init__(parent)
        self._document = document
        menu = QMenu(self)
        menu.setToolTipsVisible(True)
        menu.addActions([actions[key] for key in ACTIONS])
        self.setMenu(menu)
        self.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.setProperty("chip", True)
        document.opened.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show what is in use now."""
        document, path = self._document, self._document.statistics
        self.setVisible(document.model is not None and not document.exported and not document.model.quantized_by)
        shown = f"Statistics: {core.printable(path.name, LONGEST)}" if path else "No statistics"
        self.setText(f"{shown} ▾".replace("&", "&&"))
        self.setToolTip(tip(f"What is known of the inputs of layers is from {path}." if path else GAIN))
        self.setAccessibleName(shown)
