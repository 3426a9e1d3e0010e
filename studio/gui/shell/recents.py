"""Recents: what was opened before, listed on the welcome page and in the menu; what is gone is marked."""

from PySide6.QtCore import QObject, Signal

from studio.gui.shell.main_window import MainWindow
from studio.gui.shell.places import is_address, place_of
from studio.gui.shell.session import Session
from studio.gui.shell.whereabouts import Whereabouts


class Recents(QObject):
    """Shows what the session remembers.

    Signals:
        wanted(Path or str): open this checkpoint.
    """

    wanted = Signal(object)

    def __init__(self, window: MainWindow, session: Session, whereabouts: Whereabouts, parent: QObject) -> None:
        super().__init__(parent)
        self._window, self._session, self._whereabouts = window, session, whereabouts
        self._last = ""
        window.welcome.recent_wanted.connect(lambda path: self.wanted.emit(place_of(path)))
        window.pages.currentChanged.connect(lambda _: self.show())
        whereabouts.known.connect(self._mark)

    def show(self) -> None:
        """List them, and look which are still there."""
        recents = self._session.recents
        self._window.welcome.show_recents(recents)
        menu = self._window.recent_menu
        menu.clear()
        for path in recents:
            action = menu.addAction(path.replace("&", "&&"))
            action.setData(path)
            action.triggered.connect(lambda _checked=False, path=path: self.wanted.emit(place_of(path)))
        menu.setEnabled(bool(recents))
        self._whereabouts.ask(path for path in recents if not is_address(path))

    def open_last(self) -> None:
        """Open what was open last once it is known to be there, unless something else is opened meanwhile."""
        if (last := self._session.last) is not None:
            self._last = str(last)
            self._whereabouts.ask([self._last])

    def forget_last(self) -> None:
        """Something else is opened."""
        self._last = ""

    def _mark(self, path: str, there: bool) -> None:
        self._window.welcome.mark(path, there)
        for action in self._window.recent_menu.actions():
            if action.data() == path:
                action.setEnabled(there)
        if path == self._last:
            self._last = ""
            if there:
                self.wanted.emit(place_of(path))
