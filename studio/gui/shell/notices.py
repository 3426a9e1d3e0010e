"""Notices: who went elsewhere while a long run went on is told that it is over, and how it ended."""

from collections.abc import Callable
from typing import Protocol

from PySide6.QtCore import QObject, Qt
from PySide6.QtGui import QGuiApplication

from studio.gui.jobs.job import Job
from studio.gui.jobs.runs import Runs
from studio.gui.jobs.turns import Ending
from studio.gui.shell.desktop import in_front
from studio.gui.shell.settings import Settings

LONG_SECONDS = 60.0


class Ring(Protocol):
    """What reaches a user who looks elsewhere."""

    def ring(self, title: str, text: str) -> None:
        """Say it."""

    def hush(self) -> None:
        """The user looks."""


class Notices(QObject):
    """Rings when a run of over a minute ends while no window of the program is in front, if the settings say so."""

    def __init__(
        self, runs: Runs, settings: Settings, bell: Ring, parent: QObject, seen: Callable[[], bool] = in_front
    ) -> None:
        super().__init__(parent)
        self._settings, self._bell, self._seen = settings, bell, seen
        runs.over.connect(self._tell)
        QGuiApplication.instance().applicationStateChanged.connect(self._follow)  # type: ignore[union-attr]

    def _tell(self, job: Job, ending: Ending) -> None:
        if self._settings["notices"] and job.seconds > LONG_SECONDS and not self._seen():
            self._bell.ring(*job.notice(ending))

    def _follow(self, state: Qt.ApplicationState) -> None:
        if state == Qt.ApplicationState.ApplicationActive:
            self._bell.hush()
