"""Session: what is remembered between starts: recent checkpoints, the last one, places and sizes of the window."""

from pathlib import Path

from PySide6.QtCore import QByteArray
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QMainWindow

from studio.gui.shell.places import Place, is_address, lasting_text
from studio.gui.shell.scrolled import fitting
from studio.gui.shell.settings import RECENTS, Settings

DEFAULT_SIZE = (1280, 800)


class Session:
    """Reads and writes what the settings file remembers of earlier sessions."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def recents(self) -> list[str]:
        """Paths and addresses opened before, the newest first."""
        return self._settings.texts("recents")[:RECENTS] if self._settings["recents"] else []

    @property
    def last(self) -> Path | None:
        """What was open when the last session ended, if it is to be opened again; it may be gone."""
        found = self._settings.texts("last")
        return Path(found[0]) if found and self._settings["restore"] else None

    def note_opened(self, place: Place) -> None:
        """Remember that `place` was opened; of an address nothing is fetched again without being asked for."""
        text = lasting_text(place)
        if self._settings["recents"]:
            self._settings.keep_texts("recents", [text, *(old for old in self.recents if old != text)][:RECENTS])
        self._settings.keep_texts("last", [] if is_address(place) else [text])

    def note_closed(self) -> None:
        """Remember that nothing was open at the end."""
        self._settings.keep_texts("last", [])

    def restore(self, window: QMainWindow) -> None:
        """Put the window where it was, or in the middle when that is off the screen."""
        window.resize(*DEFAULT_SIZE)
        state = self._settings.state("window")
        if state is not None:
            window.restoreGeometry(state)
        screen = QGuiApplication.primaryScreen().availableGeometry()
        if not any(shown.availableGeometry().intersects(window.frameGeometry()) for shown in QGuiApplication.screens()):
            window.move(screen.topLeft())
        window.resize(fitting(window, window.size()))

    def keep(self, window: QMainWindow, parts: dict[str, QByteArray]) -> None:
        """Store places and sizes."""
        self._settings.keep_state("window", window.saveGeometry())
        for name, state in parts.items():
            self._settings.keep_state(name, state)
        self._settings.sync()

    def part(self, name: str) -> QByteArray | None:
        """The stored layout of a part."""
        return self._settings.state(name)
