"""A window for tests, and what every test must leave behind: no thread, no window, no message of Qt."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("PySide6", reason="the window is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from PySide6.QtCore import QCoreApplication, QEvent, QtMsgType, qInstallMessageHandler
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from studio import core
from studio.gui.app import make_application
from studio.gui.commands import Commands
from studio.gui.settings import Settings
from studio.gui.studio import Studio

HARMLESS = ("propagateSizeHints",)
PATIENCE = 20_000


@pytest.fixture(scope="session")
def qapp() -> QApplication:
    return make_application()


@pytest.fixture(autouse=True)
def clean(qapp: QApplication) -> Iterator[None]:
    """Fail a test that leaves a thread or a window, or to which Qt had something to say."""
    said: list[str] = []

    def take(kind: QtMsgType, _context: object, text: str) -> None:
        if kind != QtMsgType.QtDebugMsg and not any(word in text for word in HARMLESS):
            said.append(text)

    before = set(threading.enumerate())
    old = qInstallMessageHandler(take)
    yield
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    qapp.processEvents()
    qInstallMessageHandler(old)
    left = [widget for widget in qapp.topLevelWidgets() if widget.isVisible()]
    for widget in left:
        widget.close()
    assert not said, said
    assert not left, f"windows left open: {left}"
    assert not [thread for thread in threading.enumerate() if thread not in before and "Dummy" not in thread.name]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(tmp_path / "settings.ini")
    made["theme"] = "light"
    made["confirm_quit"] = False
    return made


@pytest.fixture
def commands(qtbot: QtBot, qapp: QApplication, settings: Settings) -> Iterator[Commands]:
    """A window whose parts are loaded, with nothing open."""
    made = Commands(settings, qapp)
    made.start()
    qtbot.waitUntil(lambda: made.studio is not None, timeout=PATIENCE)
    yield made
    made.settings["confirm_quit"] = False
    made.window.close()
    made.window.deleteLater()
    made.deleteLater()


@pytest.fixture
def studio(commands: Commands, qtbot: QtBot) -> Studio:
    """The demo checkpoint, open."""
    assert commands.studio is not None
    commands.perform("demo")
    qtbot.waitUntil(
        lambda: commands.studio is not None and commands.studio.document.model is not None, timeout=PATIENCE
    )
    return commands.studio


@pytest.fixture
def quantized(studio: Studio, wait: Callable[[], None]) -> Studio:
    """The demo checkpoint, quantized."""
    studio.commands.perform("quantize")
    wait()
    return studio


@pytest.fixture
def wait(commands: Commands, qtbot: QtBot) -> Callable[[], None]:
    """Waits until nothing runs."""

    def until_idle() -> None:
        assert commands.studio is not None
        runs = commands.studio.runs
        qtbot.waitUntil(lambda: not runs.active, timeout=PATIENCE)

    return until_idle


@pytest.fixture
def names(studio: Studio) -> Callable[[str], list[str]]:
    """Names of the layers that hold a text."""
    return lambda text: [name for name in studio.document.store.names if text in name]


@pytest.fixture(scope="session")
def plan() -> core.Plan:
    return core.preset("linear")
