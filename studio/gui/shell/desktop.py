"""Desktop: what is handed to the system that the window runs on."""

from pathlib import Path

from PySide6.QtCore import QUrl
from PySide6.QtGui import QDesktopServices, QGuiApplication
from PySide6.QtWidgets import QApplication, QSystemTrayIcon, QWidget


def open_folder(path: Path) -> None:
    """Show a folder in the system's file manager."""
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(path)))


def in_front() -> bool:
    """True while a window of the program has the focus."""
    return QApplication.activeWindow() is not None


class Bell:
    """Asks for a look at a window that is not in front: by its entry in the task bar, and by a message where it can."""

    def __init__(self, window: QWidget) -> None:
        self._window = window
        self._tray: QSystemTrayIcon | None = None

    def ring(self, title: str, text: str) -> None:
        """Say `title` and `text`; nobody would see it without a screen."""
        if QGuiApplication.platformName() == "offscreen":
            return
        QApplication.alert(self._window)
        if QSystemTrayIcon.isSystemTrayAvailable() and QSystemTrayIcon.supportsMessages():
            self._show_message(title, text)

    def hush(self) -> None:
        """The user looked: the icon in the tray goes."""
        if self._tray is not None:
            self._tray.hide()

    def _show_message(self, title: str, text: str) -> None:
        if self._tray is None:
            self._tray = QSystemTrayIcon(self._window.windowIcon(), self._window)
            self._tray.messageClicked.connect(self._raise)
            self._tray.activated.connect(self._raise)
        self._tray.show()
        self._tray.showMessage(title, text, self._window.windowIcon())

    def _raise(self, *_: object) -> None:
        self._window.showNormal() if self._window.isMinimized() else self._window.show()
        self._window.raise_()
        self._window.activateWindow()
        self.hush()
