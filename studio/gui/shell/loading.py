"""Loading: after the first picture the heavy parts are imported; what needs no Qt, on the background thread."""

import importlib
from collections.abc import Iterator

from PySide6.QtCore import QObject, QTimer, Signal

from studio.gui import views
from studio.gui.jobs.compute import Compute
from studio.gui.jobs.turns import Task
from studio.gui.shell.faults import fault_of

STUDIO = "studio.gui.shell.studio"
WITHOUT_QT = ("numpy", "numpy.ma", "studio.core", "studio.gui.jobs.tasks")
PARTS = ("layers.layer_view", "pages.workspace", "keeping.keeping", "jobs.runs", "jobs.evaluating", "jobs.exporting")
WITH_QT = ("pyqtgraph", *views.MODULES.values(), *(f"studio.gui.{part}" for part in PARTS), STUDIO)
"""One after the other; a large one comes in parts."""


class Loading(QObject):
    """Imports the heavy parts once, without keeping the window waiting for longer than one of them.

    Qt's types are made when they are first named. Two threads that name types at the same time end the program, so
    whatever names one is imported on the thread of the window.

    Signals:
        ended(object): all parts are here (None), or the error that one of them ended with.
    """

    ended = Signal(object)

    def __init__(self, compute: Compute, parent: QObject) -> None:
        super().__init__(parent)
        self._compute = compute
        self._modules = iter(WITH_QT)
        compute.ended.connect(self._go_on)

    def start(self) -> None:
        """Begin, on the background thread."""
        self._compute.submit(Task("load", "Loading", _importing))

    def _go_on(self, task: Task, ending: str, error: object) -> None:
        if task.key != "load":
            return
        if ending == "finished":
            self._import_next()
        elif ending == "failed":
            self.ended.emit(error)

    def _import_next(self) -> None:
        name = next(self._modules, "")
        if not name:
            self.ended.emit(None)
            return
        try:
            importlib.import_module(name)
        except ImportError as error:
            self.ended.emit(fault_of(error))
            return
        QTimer.singleShot(0, self, self._import_next)


def _importing() -> Iterator[str]:
    yield from (module.__name__ for module in map(importlib.import_module, WITHOUT_QT))
