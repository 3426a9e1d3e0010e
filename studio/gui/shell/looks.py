"""Looks: colours, height of text and of rows, as the settings say, and the actions that change them."""

from PySide6.QtCore import QObject, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QApplication

from studio.gui.shell.appearance import apply_theme, chosen_theme
from studio.gui.shell.main_window import MainWindow
from studio.gui.shell.settings import Settings
from studio.gui.shell.theme import Theme

SMALLEST_TEXT, LARGEST_TEXT = 10, 24


class Looks(QObject):
    """Draws the program in the theme of the settings.

    Signals:
        changed(Theme): everything is drawn in another theme.
    """

    changed = Signal(object)

    def __init__(self, settings: Settings, application: QApplication, window: MainWindow, parent: QObject) -> None:
        super().__init__(parent)
        self._settings, self._application, self._window = settings, application, window
        self.theme = self._chosen()
        QGuiApplication.styleHints().colorSchemeChanged.connect(lambda _: self.apply())
        settings.changed.connect(self._setting_changed)

    def _chosen(self) -> Theme:
        return chosen_theme(self._settings["theme"], self._settings["text_size"])

    def apply(self) -> None:
        """Draw everything as the settings say."""
        self.theme = self._chosen()
        apply_theme(self._application, self.theme)
        self._window.set_theme(self.theme)
        self._window.actions_of["dark"].setChecked(self.theme.dark)
        self._show_compact()
        self.changed.emit(self.theme)

    def _show_compact(self) -> None:
        self._window.actions_of["compact"].setChecked(self._settings["compact"])

    def _setting_changed(self, key: str) -> None:
        if key == "compact":
            self._show_compact()
        elif key in ("theme", "text_size") and self._chosen() != self.theme:
            self.apply()

    def larger(self) -> None:
        """All text one pixel higher."""
        self._set_text_size(self._settings["text_size"] + 1)

    def smaller(self) -> None:
        """All text one pixel lower."""
        self._set_text_size(self._settings["text_size"] - 1)

    def _set_text_size(self, pixels: int) -> None:
        self._settings["text_size"] = min(max(pixels, SMALLEST_TEXT), LARGEST_TEXT)

    def dark(self) -> None:
        """Light on dark, or dark on light."""
        self._settings["theme"] = "light" if self.theme.dark else "dark"

    def compact(self) -> None:
        """Lower rows, or not."""
        self._settings["compact"] = not self._settings["compact"]
