"""Whereabouts: which paths are still there, asked on threads of their own: a network mount that died never answers."""

import os.path
import threading
from collections.abc import Callable, Iterable

from PySide6.QtCore import QObject, Signal


class Whereabouts(QObject):
    """Nothing waits for an answer; one that never comes keeps no other from coming, nor the program from ending.

    Signals:
        known(str, bool): whether there is something at a path.
    """

    known = Signal(str, bool)

    def __init__(self, parent: QObject | None = None, exists: Callable[[str], bool] = os.path.exists) -> None:
        super().__init__(parent)
        self._exists = exists
        self._asked: set[str] = set()

    def ask(self, paths: Iterable[str]) -> None:
        """Look for paths; those that are being looked for are not asked about again."""
        for path in paths:
            if path not in self._asked:
                self._asked.add(path)
                threading.Thread(target=self._look, args=(path,), name="whereabouts", daemon=True).start()

    def _look(self, path: str) -> None:
        there = self._exists(path)
        self._asked.discard(path)
        self._tell(path, there)

    def _tell(self, path: str, there: bool) -> None:
        try:
            self.known.emit(path, there)
        except RuntimeError:  # the window is gone
            return
