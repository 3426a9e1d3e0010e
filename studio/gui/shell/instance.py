"""Instance: one window per user; a second start hands its path to the first and ends."""

import getpass
import hashlib
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from PySide6.QtCore import QDir, QLockFile, QObject, Qt
from PySide6.QtWidgets import QWidget

from studio.gui.shell.places import Place, lasting_text, place_of

if TYPE_CHECKING:
    from PySide6.QtNetwork import QLocalServer

WAIT_MS = 1000
END = b"\0"


def _name() -> str:
    place = (
        os.environ.get("DISPLAY", "") + os.environ.get("WAYLAND_DISPLAY", "") + os.environ.get("QT_QPA_PLATFORM", "")
    )
    return "nvfp4-studio-" + hashlib.sha256(f"{_user()}{place}".encode()).hexdigest()[:12]


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()


def _lock() -> QLockFile:
    lock = QLockFile(QDir.tempPath() + f"/{_name()}.lock")
    lock.setStaleLockTime(0)
    return lock


def send(paths: Sequence[Place]) -> bool:
    """Hand `paths` to the window that is open; False when there is none."""
    lock = _lock()
    if lock.tryLock(0):
        lock.unlock()
        return False
    from PySide6.QtNetwork import QLocalSocket

    socket = QLocalSocket()
    socket.connectToServer(_name())
    if not socket.waitForConnected(WAIT_MS):
        return False
    socket.write(END.join(os.fsencode(lasting_text(path)) for path in paths) + END)
    socket.waitForBytesWritten(WAIT_MS)
    socket.disconnectFromServer()
    return True


class Instance(QObject):
    """Holds the lock of the first window, and listens for paths once the window is up."""

    def __init__(self, open_paths: Callable[[Sequence[Place]], object], window: QWidget) -> None:
        super().__init__(window)
        self._open, self._window = open_paths, window
        self._held = _lock()
        self._first = self._held.tryLock(0)
        self._server: QLocalServer | None = None

    def listen(self) -> None:
        """Take paths from later starts."""
        if not self._first:
            return
        from PySide6.QtNetwork import QLocalServer

        QLocalServer.removeServer(_name())
        self._server = QLocalServer(self)
        self._server.setSocketOptions(QLocalServer.SocketOption.UserAccessOption)
        self._server.newConnection.connect(self._take)
        self._server.listen(_name())

    def close(self) -> None:
        """Make room for another first window."""
        if self._server is not None:
            self._server.close()
        self._held.unlock()

    def _take(self) -> None:
        assert self._server is not None
        socket = self._server.nextPendingConnection()
        socket.readyRead.connect(lambda: self._read(bytes(socket.readAll().data())))
        socket.disconnected.connect(socket.deleteLater)

    def _read(self, data: bytes) -> None:
        self._open([place_of(os.fsdecode(path)) for path in data.split(END) if path])
        self._window.setWindowState(self._window.windowState() & ~Qt.WindowState.WindowMinimized)
        self._window.raise_()
        self._window.activateWindow()
