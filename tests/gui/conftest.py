"""A window for tests, and what every test must leave behind: no thread, no window, no message of Qt."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("PySide6", reason="the window is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")

from PySide6.QtCore import QCoreApplication, QEvent, QEventLoop, QTimer, QtMsgType, qInstallMessageHandler
from PySide6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot

from studio import core
from studio.gui.app import make_application
from studio.gui.shell.commands import Commands
from studio.gui.shell.settings import Settings
from studio.gui.shell.studio import Studio

HARMLESS = ("propagateSizeHints",)
PATIENCE = 120_000
"""Milliseconds within which what is waited for comes on any machine; nothing waits longer than it has to."""
SHARED: list[QWidget] = []


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
    left = [widget for widget in qapp.topLevelWidgets() if widget.isVisible() and widget not in SHARED]
    for widget in left:
        widget.close()
    assert not said, said
    assert not left, f"windows left open: {left}"
    assert not _left_threads(before), "threads left running"


def _left_threads(before: set[threading.Thread]) -> list[threading.Thread]:
    """Threads that are still there after a while; a look at a layer may just be ending."""
    for _ in range(500):
        left = [thread for thread in threading.enumerate() if thread not in before and not _is_kept(thread)]
        if not left:
            return []
        QApplication.processEvents()
        time.sleep(0.01)
    return left


def asking() -> set[threading.Thread]:
    """Threads that ask a network."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("nvfp4-studio-")}


def _is_kept(thread: threading.Thread) -> bool:
    """Threads of Qt that Python knows, and idle ones that Dask keeps for as long as the program runs."""
    return "Dummy" in thread.name or (thread.daemon and thread.name.startswith(("Dask-Offload", "Dask-Callback")))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(tmp_path / "settings.ini")
    made["theme"] = "light"
    made["confirm_quit"] = False
    return made


@pytest.fixture(scope="session")
def shared(qapp: QApplication, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """One window for all tests: making the plots of another takes a second."""
    made = Commands(Settings(tmp_path_factory.mktemp("window") / "settings.ini"), qapp)
    made.start()
    wait_for(lambda: made.studio is not None)
    made.studio.commands = made  # a short way for tests: the window's parts do not know what is above them
    SHARED.append(made.window)
    yield made
    made.window.close()


def wait_for(done: Callable[[], bool]) -> None:
    loop, poll = QEventLoop(), QTimer(interval=10)
    poll.timeout.connect(lambda: loop.quit() if done() else None)
    poll.start()
    loop.exec()
    poll.stop()


@pytest.fixture
def commands(shared: Commands) -> Iterator[Commands]:
    """A window whose parts are loaded, with nothing open."""
    yield shared
    reset(shared)


def reset(made: Commands) -> None:
    """As the window was at first: nothing open, nothing known, nothing told, default settings."""
    studio, window = made.studio, made.window
    assert studio is not None
    made.settings["confirm_quit"] = False
    studio.runs.stop()
    wait_for(lambda: not studio.runs.active)
    made.perform("close")
    assert studio.keeping.shelf.forget() == 0, "a lock was not let go"
    studio.document.cache = core.ResultCache()
    studio.workspace.filter_bar.field.clear()
    studio.workspace.show_page("overview")
    studio.workspace.layers.reset_columns()
    window.cards.clear()
    window.messages.beginResetModel()
    window.messages.items.clear()
    window.messages.endResetModel()
    window.message_list.hide()
    made.settings.reset()
    made.settings["theme"], made.settings["confirm_quit"] = "light", False
    made.settings.keep_texts("recents", [])


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


def give_focus(qtbot: QtBot, widget: QWidget) -> None:
    """Let keys reach `widget`: local shortcuts work in the widget that has the focus of the active window only."""
    window = widget.window()
    if not window.isActiveWindow():
        window.hide()
        with qtbot.waitActive(window):
            window.show()
            window.activateWindow()
    widget.setFocus()
    qtbot.waitUntil(widget.hasFocus)


@pytest.fixture
def names(studio: Studio) -> Callable[[str], list[str]]:
    """Names of the layers that hold a text."""
    return lambda text: [name for name in studio.document.store.names if text in name]


@pytest.fixture(scope="session")
def plan() -> core.Plan:
    return core.preset("linear")


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A checkpoint that takes a while: 96 layers of 4 MB."""
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(1024, 2048)).astype(np.float16)
    tensors = {f"model.layers.{i}.mlp.up_proj.weight": weight for i in range(96)}
    folder = tmp_path / "large"
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text('{"architectures": ["Test"]}')
    return folder
