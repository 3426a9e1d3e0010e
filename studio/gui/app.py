"""The window as a program: one instance per user, a path to open, and a smoke run that needs no screen."""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from PySide6.QtCore import QTimer
from PySide6.QtGui import QIcon
from PySide6.QtWidgets import QApplication

from studio.gui.shell.appearance import icon_folder
from studio.gui.shell.cards import Message
from studio.gui.shell.commands import Commands
from studio.gui.shell.instance import Instance, send
from studio.gui.shell.main_window import PROGRAM
from studio.gui.shell.places import place_of
from studio.gui.shell.settings import Settings

SWITCH_SECONDS = 0.0005
SIGNAL_MS = 300


def run(arguments: Sequence[str]) -> int:
    """Open the window; returns the exit code."""
    options = parse(arguments)
    if options.smoke:
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    application = make_application()
    if options.smoke:
        from studio.gui.smoke import smoke

        return smoke(application, options.screenshot)
    if not options.new and send(options.paths):
        return 0
    commands = Commands(Settings(), application)
    sys.excepthook = _Excepthook(commands)
    instance = Instance(commands.open_paths, commands.window)
    commands.ready.connect(instance.listen)
    _end_on_signals(application, commands)
    commands.start(options.paths)
    return application.exec()


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of the window."""
    parser = argparse.ArgumentParser(prog="nvfp4-studio", description="Open the window.")
    parser.add_argument("paths", type=place_of, nargs="*", help="a checkpoint folder, a file, or an address: hf://…")
    parser.add_argument("--new", action="store_true", help="another window, even when one is open")
    parser.add_argument("--smoke", action="store_true", help="open, quantize and export the demo unseen, and quit")
    parser.add_argument("--screenshot", type=Path, metavar="FILE", help="with --smoke: save a picture of the window")
    return parser.parse_args(arguments)


def make_application() -> QApplication:
    """The Qt application, with our style and icon."""
    sys.setswitchinterval(SWITCH_SECONDS)
    found = QApplication.instance()
    application = found if isinstance(found, QApplication) else QApplication(["nvfp4-studio"])
    application.setApplicationName("nvfp4-studio")
    application.setApplicationDisplayName(PROGRAM)
    application.setDesktopFileName("org.nvfp4studio.Studio")
    application.setStyle("Fusion")
    application.setWindowIcon(QIcon(str(icon_folder() / "nvfp4-studio.svg")))
    return application


def _end_on_signals(application: QApplication, commands: Commands) -> None:
    """Let Ctrl-C and SIGTERM end the program in order; a timer lets Python see them."""
    timer = QTimer(application, interval=SIGNAL_MS)
    timer.timeout.connect(lambda: None)
    timer.start()

    def stop(_number: int, _frame: object) -> None:
        commands.quit_now()

    for name in ("SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), stop)


class _Excepthook:
    """Shows what nobody caught as a card; the window lives on."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        details = "".join(traceback.format_exception(kind, error, trace))
        sys.stderr.write(details)
        hint = "This is a fault of the program. Copy it into a report; your files are unchanged."
        self._commands.tell(Message("error", f"{kind.__name__}: {error}", hint=hint, details=details))
