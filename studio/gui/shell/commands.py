"""Commands: what the actions do, and the parts that they act on; the heavy parts come when they are loaded."""

import importlib
import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QApplication

from studio.gui.jobs.compute import Compute
from studio.gui.shell.actions import NOTHING_OPEN
from studio.gui.shell.appearance import set_text_size
from studio.gui.shell.ask import ask_file, ask_folder, confirm
from studio.gui.shell.cards import Message
from studio.gui.shell.dropping import checkpoint_of, use_of
from studio.gui.shell.loading import STUDIO, Loading
from studio.gui.shell.looks import Looks
from studio.gui.shell.main_window import PROGRAM, MainWindow
from studio.gui.shell.places import Place, is_address, shown_name
from studio.gui.shell.recents import Recents
from studio.gui.shell.session import Session
from studio.gui.shell.settings import Settings
from studio.gui.shell.theme import Theme
from studio.gui.shell.whereabouts import Whereabouts

if TYPE_CHECKING:
    from studio.gui.shell.studio import Studio


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
        self.settings = settings
        self.session = Session(settings)
        self.compute = Compute(self)
        self.loading = Loading(self.compute, self)
        set_text_size(application, settings["text_size"])  # before the window is made, or its text grows later
        self.window = MainWindow(self.perform)
        self.studio: Studio | None = None
        self.recents = Recents(self.window, self.session, Whereabouts(self), self)
        self._wanted: list[Place] = []
        self._quitting = self._closed = False
        self.looks = Looks(settings, application, self.window, self)
        own = ("open", "open_file", "open_address", "demo", "quit", "messages", "palette", "keyboard", "diagnostics")
        self.handlers: Handlers = {name: getattr(self, name) for name in own}
        self.handlers |= {name: getattr(self.looks, name) for name in ("larger", "smaller", "dark", "compact")}
        self.handlers["settings"] = self.settings_dialog
        self._connect()
        self.looks.apply()
        self.refresh()

    def _connect(self) -> None:
        window = self.window
        window.welcome.open_wanted.connect(self.open)
        window.welcome.address_wanted.connect(self.open_address)
        window.welcome.demo_wanted.connect(self.demo)
        self.recents.wanted.connect(self.open_path)
        window.dropped.connect(self.take)
        window.closing.connect(self._closing)
        window.message_list.layer_wanted.connect(self._show_layer)
        self.settings.changed.connect(self._setting_changed)
        self.loading.ended.connect(self._loaded)
        self.looks.changed.connect(self._set_theme)

    def start(self, paths: Sequence[Place] = ()) -> None:
        """Show the window, load the rest in the background, and open `paths` or what was open last."""
        self.session.restore(self.window)
        self.recents.show()
        self.window.show()
        self._wanted = list(paths)
        if self._wanted:
            self.window.machine.setText(f"Opening {shown_name(self._wanted[0])} …")
        else:
            self.recents.open_last()
        self.loading.start()

    def _loaded(self, error: object) -> None:
        if error is not None:
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
        parts = (self.window, self.settings, self.session, self.compute)
        made = importlib.import_module(STUDIO).Studio(*parts, self)
        self._make_next(made, made.make())

    def _make_next(self, made: "Studio", steps: Iterator[None]) -> None:
        """Make the heavy parts step by step, unless the window was closed meanwhile."""
        if self._closed:
            return
        if next(steps, steps) is None:
            QTimer.singleShot(0, self, lambda: self._make_next(made, steps))
        else:
            self._take(made)

    def _take(self, made: "Studio") -> None:
        """All parts are there."""
        self.studio = made
        made.told.connect(self.tell)
        made.changed.connect(self.refresh)
        made.opened.connect(self._note_opened)
        self.looks.apply()
        for fault in self.settings.faults:
            self.tell(Message("warning", "A setting made no sense", fault))
        self.ready.emit()
        self.open_paths(self._wanted)

    # what actions do

    def perform(self, key: str) -> None:
        """Do what the action called `key` says; say so when it can not be done now."""
        self.refresh()
        if reason := self.window.actions_of.reasons.get(key):
            self.tell(Message("info", f"Not now: {reason}"))
            return
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
        ask_file(
            self.window, "Open a checkpoint file", "Checkpoints (*.safetensors *.gguf)", self.open_path, self._near()
        )

    def open_address(self, address: str = "") -> None:
        """Ask for an address, unless one is given, show what is there, and open it."""
        from studio.gui.jobs.address_dialog import AddressDialog

        known = [text for text in self.session.recents if is_address(text)]
        dialog = AddressDialog(self.compute, known, self.window)
        dialog.address_wanted.connect(self.open_path)
        dialog.open()
        if address:
            dialog.look_at(address)

    def _near(self) -> Path | None:
        recents = [text for text in self.session.recents if not is_address(text)]
        return Path(recents[0]).parent if recents else None

    def open_path(self, path: Place) -> None:
        """Open a checkpoint, or follow a plan that was dropped; wait for the rest to be loaded if need be."""
        self.recents.forget_last()
        if self.studio is None:
            self._wanted = [path]
            self.window.machine.setText(f"Opening {shown_name(path)} …")
        elif isinstance(path, str):
            self.studio.open(path)
        elif (use := use_of(path)) == "plan" and self.studio.document.model:
            self.studio.editing.read_plan(path)
        elif use == "statistics":
            self.studio.checkpoints.use_statistics(path)
        else:
            self.studio.open(checkpoint_of(path))

    def take(self, places: Sequence[Place]) -> None:
        """Open what was dropped; at an address, look first what is there."""
        if isinstance(places[0], str):
            self.open_address(places[0])
        else:
            self.open_paths(places)

    def open_paths(self, paths: Sequence[Place]) -> None:
        """Open the first of what was dropped or given, and say so when there is more."""
        if self.studio is None:
            self._wanted = list(paths)
            return
        for path in paths[:1]:
            self.open_path(path)
        if len(paths) > 1:
            self.studio.tell_of_several([Path(path) for path in paths])

    def demo(self) -> None:
        """Open the checkpoint that comes with the program."""
        from studio import core

        self.open_path(core.demo_checkpoint())

    def quit(self) -> None:
        """Close the window, which ends the program."""
        self.window.close()

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

    @property
    def theme(self) -> Theme:
        """The colours and the size of text of now."""
        return self.looks.theme

    def _set_theme(self, theme: Theme) -> None:
        if self.studio is not None:
            self.studio.set_theme(theme)

    def _setting_changed(self, key: str) -> None:
        if key == "recents":
            self.recents.show()
        if self.studio is not None:
            self.studio.setting_changed(key)

    def _note_opened(self, path: Place) -> None:
        """A checkpoint is open: remember it."""
        self.session.note_opened(path)
        self.recents.show()
        self.opened.emit()

    def refresh(self) -> None:
        """Enable what works now."""
        actions = self.window.actions_of
        nothing = dict.fromkeys(actions.conditions, NOTHING_OPEN)
        actions.refresh(self.studio.reasons() if self.studio is not None else nothing)

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
                kept = self.studio.keeping.keep_now()
                held = "Plan and results are kept." if kept else "Results, and a plan that is not saved, are not kept."
                text = f"{self.studio.runs.kept}. {held}"
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
        """Remember the session, close the files once nothing reads from them, stop the thread."""
        self._closed = True
        parts = self.studio.layout_state() if self.studio is not None else {}
        self.session.keep(self.window, parts)
        if self.studio is not None:
            self.studio.close()
        self.compute.close()


Handlers = dict[str, Callable[[], Any]]
