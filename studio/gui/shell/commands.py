"""Commands: what the actions do, and the parts that they act on; the heavy parts come when they are loaded."""

import importlib
import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QObject, QUrl, Signal
from PySide6.QtGui import QDesktopServices, QGuiApplication
from PySide6.QtWidgets import QApplication

from studio.gui import views
from studio.gui.jobs.compute import Compute, Task
from studio.gui.shell.appearance import apply_theme, chosen_theme, set_text_size
from studio.gui.shell.ask import ask_file, ask_folder, confirm
from studio.gui.shell.cards import Message
from studio.gui.shell.main_window import PROGRAM, MainWindow
from studio.gui.shell.session import Session
from studio.gui.shell.settings import Settings

if TYPE_CHECKING:
    from studio.gui.shell.studio import Studio

STUDIO = "studio.gui.shell.studio"
HEAVY = (STUDIO, *views.MODULES.values())


def _loading() -> Iterator[str]:
    yield from (module.__name__ for module in map(importlib.import_module, HEAVY))


class Commands(QObject):
    """Connects window, settings, session and background thread; `studio` holds the rest once it is loaded.

    Signals:
        ready(): the heavy parts are loaded, and the workspace is in place.
        opened(): a checkpoint is open and shown.
    """

    ready = Signal()
    opened = Signal()

    def __init__(self, settings: Settings, application: QApplication) -> None:
        super().__init__()
        self.settings, self._application = settings, application
        self.session = Session(settings)
        self.compute = Compute(self)
        set_text_size(application, settings["text_size"])  # before the window is made, or its text grows later
        self.window = MainWindow(self.perform)
        self.studio: Studio | None = None
        self._wanted: list[Path] = []
        self._quitting = False
        own = ("open", "open_file", "demo", "quit", "larger", "smaller", "dark", "compact", "messages", "palette")
        self.handlers: Handlers = {name: getattr(self, name) for name in (*own, "keyboard", "diagnostics")}
        self.handlers["settings"] = self.settings_dialog
        self._connect()
        self.apply_theme()
        self.refresh()

    def _connect(self) -> None:
        window = self.window
        window.welcome.open_wanted.connect(self.open)
        window.welcome.demo_wanted.connect(self.demo)
        window.welcome.recent_wanted.connect(lambda path: self.open_path(Path(path)))
        window.dropped.connect(self.open_paths)
        window.closing.connect(self._closing)
        window.message_list.layer_wanted.connect(self._show_layer)
        self.settings.changed.connect(self._setting_changed)
        self.compute.ended.connect(self._task_ended)
        hints = QGuiApplication.styleHints()
        hints.colorSchemeChanged.connect(self.apply_theme)

    def start(self, paths: Sequence[Path] = ()) -> None:
        """Show the window, load the rest in the background, and open `paths` or what was open last."""
        self.session.restore(self.window)
        self._show_recents()
        self.window.show()
        last = self.session.last
        self._wanted = list(paths) or ([last] if last else [])
        if self._wanted:
            self.window.machine.setText(f"Opening {self._wanted[0].name} …")
        self.compute.submit(Task("load", "Loading", _loading))

    def _task_ended(self, task: Task, ending: str, error: object) -> None:
        if task.key != "load":
            return
        if ending != "finished":
            details = getattr(error, "details", "")
            self.tell(
                Message(
                    "error",
                    "The program is not complete",
                    str(getattr(error, "what", error)),
                    "Install it again.",
                    details,
                )
            )
            return
        self.studio = importlib.import_module(STUDIO).Studio(self)
        self.apply_theme()
        for fault in self.settings.faults:
            self.tell(Message("warning", "A setting made no sense", fault))
        self.ready.emit()
        self.open_paths(self._wanted)

    # what actions do

    def perform(self, key: str) -> None:
        """Do what the action called `key` says."""
        if self.studio is not None and key in self.studio.handlers:
            self.studio.handlers[key]()
        elif key in self.handlers:
            self.handlers[key]()
        self.refresh()

    def open(self) -> None:
        """Ask for a folder and open it."""
        ask_folder(self.window, "Open a checkpoint folder", self.open_path, self._near())

    def open_file(self) -> None:
        """Ask for a file and open it."""
        ask_file(self.window, "Open a checkpoint file", "Checkpoints (*.safetensors)", self.open_path, self._near())

    def _near(self) -> Path | None:
        recents = self.session.recents
        return Path(recents[0]).parent if recents else None

    def open_path(self, path: Path) -> None:
        """Open a checkpoint, or follow a plan that was dropped; wait for the rest to be loaded if need be."""
        if self.studio is None:
            self._wanted = [path]
        elif path.suffix == ".json" and not path.name.endswith(".index.json") and self.studio.document.model:
            self.studio.editing.read_plan(path)
        else:
            self.studio.open(path.parent if path.name.endswith(".index.json") else path)

    def open_paths(self, paths: Sequence[Path]) -> None:
        """Open the first of what was dropped or given, and say so when there is more."""
        if self.studio is None:
            self._wanted = list(paths)
            return
        for path in paths[:1]:
            self.open_path(path)
        if len(paths) > 1:
            from studio.gui.shell.several import about_several

            self.tell(about_several(paths, self.studio.comparing.compare_exports))

    def demo(self) -> None:
        """Open the checkpoint that comes with the program."""
        from studio import core

        self.open_path(core.demo_checkpoint())

    def quit(self) -> None:
        """Close the window, which ends the program."""
        self.window.close()

    def larger(self) -> None:
        """All text one pixel higher."""
        self._set_text_size(self.settings["text_size"] + 1)

    def smaller(self) -> None:
        """All text one pixel lower."""
        self._set_text_size(self.settings["text_size"] - 1)

    def _set_text_size(self, pixels: int) -> None:
        self.settings["text_size"] = min(max(pixels, 10), 24)

    def dark(self) -> None:
        """Light on dark, or dark on light."""
        self.settings["theme"] = "light" if self.theme.dark else "dark"

    def compact(self) -> None:
        """Lower rows, or not."""
        self.settings["compact"] = not self.settings["compact"]

    def messages(self) -> None:
        """Show or hide the list of messages."""
        shown = not self.window.message_list.isVisible()
        self.window.message_list.setVisible(shown)
        if shown:
            self.window.cards.clear()  # the list holds what they say
        self.window.cards.place()

    def palette(self) -> None:
        """Find an action by typing."""
        from studio.gui.shell.command_palette import CommandPalette

        CommandPalette(self.window.actions_of, self.window).open()

    def keyboard(self) -> None:
        """All shortcuts on one page."""
        from studio.gui.shell.keyboard_sheet import KeyboardSheet

        KeyboardSheet(self.window.actions_of, self.window).open()

    def settings_dialog(self) -> None:
        """Change settings."""
        from studio.gui.shell.settings_dialog import SettingsDialog

        more = {"remember": self.studio.keeping.kept_row()} if self.studio is not None else None
        SettingsDialog(self.settings, self.window, more).open()

    def diagnostics(self) -> None:
        """Versions and machine as text, for a report of a fault."""
        from PySide6 import __version__ as pyside

        from studio import core

        lines = [f"{PROGRAM} {core.__version__}", f"Python {platform.python_version()}", f"PySide6 {pyside}"]
        lines += [platform.platform(), f"theme {self.theme.name}, {self.window.devicePixelRatio():g} pixels per point"]
        QGuiApplication.clipboard().setText("\n".join([*lines, *(m.plain() for m in self.window.messages.items)]))
        self.tell(Message("info", "Copied diagnostics"))

    # how it looks

    def apply_theme(self, *_: object) -> None:
        """Draw everything as the settings say."""
        self.theme = chosen_theme(self.settings["theme"], self.settings["text_size"])
        apply_theme(self._application, self.theme)
        self.window.set_theme(self.theme)
        self.window.actions_of["dark"].setChecked(self.theme.dark)
        self.window.actions_of["compact"].setChecked(self.settings["compact"])
        if self.studio is not None:
            self.studio.set_theme(self.theme)

    def _setting_changed(self, key: str) -> None:
        if key in ("theme", "text_size"):
            if chosen_theme(self.settings["theme"], self.settings["text_size"]) != self.theme:
                self.apply_theme()
        elif key == "recents":
            self._show_recents()
        if self.studio is not None:
            self.studio.setting_changed(key)

    def _show_recents(self) -> None:
        recents = self.session.recents
        self.window.welcome.show_recents(recents)
        menu = self.window.recent_menu
        menu.clear()
        for path in recents:
            action = menu.addAction(path.replace("&", "&&"))
            action.triggered.connect(lambda _checked=False, path=path: self.open_path(Path(path)))
        menu.setEnabled(bool(recents))

    def note_opened(self, path: Path) -> None:
        """A checkpoint is open: remember it."""
        self.session.note_opened(path)
        self._show_recents()

    def refresh(self) -> None:
        """Enable what works now."""
        reasons = self.studio.reasons() if self.studio is not None else _NOT_LOADED
        self.window.actions_of.refresh(reasons)

    def tell(self, message: Message) -> None:
        """Show a card, and keep it in the list."""
        self.window.messages.add(message)

    def _show_layer(self, name: str) -> None:
        if self.studio is not None and self.studio.document.model and name in self.studio.document.store.index:
            self.studio.document.select([name])

    # the end

    def _closing(self) -> None:
        if self.studio is not None and self.settings["confirm_quit"] and not self._quitting:
            if self.studio.runs.active:
                text = "Finished shards of an export are kept, and the same export goes on with them. "
                kept = self.studio.keeping.keep_now()
                text += "Plan and results are kept." if kept else "Results, and a plan that is not saved, are not kept."
                confirm(self.window, "Work is still running. Quit?", text, "Stop and quit", self.quit_now)
                self.window.keep_open = True
                return
            if not self.studio.document.is_saved and not self.studio.keeping.keep_now():
                self.studio.unless_lost("Quit?", "Quit", self.quit_now)
                self.window.keep_open = True
                return
        self.close()

    def quit_now(self) -> None:
        """Quit without asking; what runs is stopped, finished shards are kept."""
        self._quitting = True
        self.window.close()

    def close(self) -> None:
        """Remember the session, stop the thread, close the files."""
        parts = self.studio.layout_state() if self.studio is not None else {}
        self.session.keep(self.window, parts)
        self.compute.close()
        if self.studio is not None:
            self.studio.close()


def open_folder(path: Path) -> None:
    """Show a folder in the system's file manager."""
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(path)))


_NOTHING_OPEN = "open a checkpoint first"
_NOT_LOADED = dict.fromkeys(
    (
        "open",
        "idle",
        "export",
        "results",
        "selection",
        "pending",
        "selection_pending",
        "running",
        "failed",
        "undo",
        "redo",
    ),
    _NOTHING_OPEN,
)
Handlers = dict[str, Callable[[], Any]]
