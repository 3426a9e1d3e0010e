"""What was opened before is listed, and what is gone is marked, however long it takes to find out."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtWidgets import QApplication, QLabel
from pytestqt.qtbot import QtBot

from studio import core
from studio.gui.shell.commands import Commands
from studio.gui.shell.settings import Settings
from studio.gui.shell.specs import keys_of
from studio.gui.shell.whereabouts import Whereabouts
from tests.gui.conftest import PATIENCE

DEMO = str(core.demo_checkpoint())


def started(settings: Settings, qapp: QApplication, qtbot: QtBot) -> Commands:
    made = Commands(settings, qapp)
    made.start()
    qtbot.waitUntil(lambda: made.studio is not None, timeout=PATIENCE)
    return made


def ended(made: Commands) -> None:
    made.window.close()
    made.window.deleteLater()


def words(made: Commands) -> str:
    return "\n".join(shown.text() for shown in made.window.welcome.findChildren(QLabel))


def test_a_first_start_says_what_to_do(commands: Commands) -> None:
    commands.recents.show()
    assert "First time here? Open the demo checkpoint" in words(commands)
    assert keys_of("quantize") in words(commands)
    assert not commands.window.recent_menu.isEnabled()


def test_what_was_opened_is_listed_when_the_checkpoint_is_closed(commands: Commands, qtbot: QtBot) -> None:
    with qtbot.waitSignal(commands.opened, timeout=PATIENCE):
        commands.perform("demo")
    commands.perform("close")
    assert list(commands.window.welcome.rows) == [DEMO]
    with qtbot.waitSignal(commands.opened, timeout=PATIENCE):
        commands.window.welcome.rows[DEMO].open.click()


def test_what_is_gone_is_marked_and_can_not_be_opened(commands: Commands, qtbot: QtBot, tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    commands.settings.keep_texts("recents", [gone, DEMO])
    commands.recents.show()
    rows = commands.window.welcome.rows
    qtbot.waitUntil(lambda: not rows[gone].open.isEnabled(), timeout=PATIENCE)
    assert "not there any more" in rows[gone].place.text()
    assert rows[DEMO].open.isEnabled()
    assert [action.isEnabled() for action in commands.window.recent_menu.actions()] == [False, True]


@pytest.fixture
def dead_mount(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Paths below /dead are not answered for before the function is called."""
    answered = threading.Event()

    def exists(path: str) -> bool:
        return path != "/dead/mount" or not answered.wait(10)

    monkeypatch.setattr(Whereabouts.__init__, "__defaults__", (None, exists))
    return answered.set


def test_a_mount_that_does_not_answer_keeps_nothing_waiting(
    settings: Settings, qapp: QApplication, qtbot: QtBot, dead_mount: Callable[[], None]
) -> None:
    settings.keep_texts("recents", ["/dead/mount", DEMO])
    settings.keep_texts("last", ["/dead/mount"])
    made = started(settings, qapp, qtbot)
    assert made.window.welcome.isVisible()
    assert made.window.welcome.rows["/dead/mount"].open.isEnabled()
    with qtbot.waitSignal(made.opened, timeout=PATIENCE):
        made.perform("demo")
    dead_mount()
    qtbot.waitUntil(lambda: not _looks(), timeout=PATIENCE)
    qtbot.wait(20)
    assert made.studio.document.model.path == core.demo_checkpoint()
    ended(made)


def _looks() -> bool:
    return any(thread.name == "whereabouts" for thread in threading.enumerate())


def test_a_last_checkpoint_that_is_gone_is_not_opened(
    settings: Settings, qapp: QApplication, qtbot: QtBot, tmp_path: Path
) -> None:
    settings.keep_texts("last", [str(tmp_path / "gone")])
    made = started(settings, qapp, qtbot)
    qtbot.waitUntil(lambda: not _looks(), timeout=PATIENCE)
    qtbot.wait(20)
    assert not made.studio.opening.reason
    assert made.window.messages.items == []
    ended(made)
