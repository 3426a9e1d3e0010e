"""Smoke: the whole way through the window without a person: open the demo, quantize, look, export, quit."""

import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QEventLoop, QTimer
from PySide6.QtWidgets import QApplication

from studio.gui.shell.commands import Commands
from studio.gui.shell.settings import Settings

PATIENCE_MS = 60_000
FEWEST_COLORS = 12


class SmokeError(RuntimeError):
    """The smoke run did not get where it should."""


def smoke(application: QApplication, screenshot: Path | None = None) -> int:
    """Run it; returns 0, or raises SmokeError."""
    faults: list[str] = []
    sys.excepthook = lambda kind, error, trace: faults.extend(traceback.format_exception(kind, error, trace))
    with tempfile.TemporaryDirectory(prefix="nvfp4-studio-") as folder:
        commands = Commands(Settings(Path(folder) / "settings.ini"), application)
        try:
            commands.start()
            _wait(lambda: commands.studio is not None, "loading")
            _go(commands, Path(folder) / "export", screenshot)
        finally:
            commands.settings["confirm_quit"] = False
            commands.window.close()
    if faults:
        raise SmokeError("".join(faults))
    sys.stdout.write("smoke: opened, painted, quantized, exported and verified the demo checkpoint\n")
    return 0


def _go(commands: Commands, target: Path, screenshot: Path | None) -> None:
    commands.perform("demo")
    studio = commands.studio
    assert studio is not None
    document, runs = studio.document, studio.runs
    _wait(lambda: document.model is not None, "opening the demo")
    commands.perform("quantize")
    _wait(lambda: not runs.active, "quantizing")
    figures = document.store.figures()
    if not figures.chosen or figures.done != figures.chosen:
        raise SmokeError(f"layers done: {figures.done} of {figures.chosen}")
    _look(commands, screenshot)
    commands.perform("export")
    dialog = studio.exporting.dialog
    assert dialog is not None
    dialog.set_target(target)
    _wait(dialog.export.isEnabled, "checking the export")
    dialog.export.click()
    _wait(lambda: not runs.active, "exporting")
    if not (target / "config.json").is_file():
        raise SmokeError("the export is not there")


def _look(commands: Commands, screenshot: Path | None) -> None:
    _wait_a_moment()
    picture = commands.window.grab().toImage()
    across = range(0, picture.width(), 7)
    colors = {picture.pixel(x, y) for x in across for y in range(0, picture.height(), 7)}
    if len(colors) < FEWEST_COLORS:
        raise SmokeError(f"the window shows only {len(colors)} colours; is a font installed?")
    if screenshot is not None:
        picture.save(str(screenshot))


def _wait(done: Callable[[], bool], what: str) -> None:
    loop = QEventLoop()
    poll, limit = QTimer(interval=10), QTimer(singleShot=True, interval=PATIENCE_MS)
    poll.timeout.connect(lambda: loop.quit() if done() else None)
    limit.timeout.connect(loop.quit)
    poll.start()
    limit.start()
    loop.exec()
    poll.stop()
    limit.stop()
    if not done():
        raise SmokeError(f"{what} took more than {PATIENCE_MS / 1000:.0f} s")


def _wait_a_moment() -> None:
    loop = QEventLoop()
    QTimer.singleShot(300, loop.quit)
    loop.exec()
