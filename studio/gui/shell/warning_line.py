"""WarningLine: the error above which a layer is marked; the setting, the filter and the error plot agree on it."""

from PySide6.QtCore import QObject

from studio.gui.layers.document import Document
from studio.gui.pages.workspace import Workspace
from studio.gui.shell.settings import Settings


class WarningLine(QObject):
    """Keeps the line of the setting in all that draw it, and takes it over from where it is dragged."""

    def __init__(self, document: Document, workspace: Workspace, settings: Settings, parent: QObject) -> None:
        super().__init__(parent)
        self._document, self._workspace, self._settings = document, workspace, settings
        self._plot = workspace.views["ErrorView"]
        self._plot.warning_changed.connect(self._change)
        settings.changed.connect(lambda key: self._show() if key == "warning_line" else None)
        self._show()

    def _change(self, value: float) -> None:
        self._settings["warning_line"] = round(min(max(value, 0.0), 1.0), 4)

    def _show(self) -> None:
        value = self._settings["warning_line"]
        self._document.warning_line = self._workspace.filter_bar.line = value
        self._plot.set_warning_line(value)
        self._workspace.layers.table.touch_all()
