"""More than one checkpoint dropped or given: one opens, and the window says what became of the others."""

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QMimeData, QPoint, Qt, QUrl
from PySide6.QtGui import QDropEvent
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from studio import core
from studio.gui.app import parse
from studio.gui.shell.cards import Message
from studio.gui.shell.commands import Commands
from studio.gui.shell.settings import Settings
from studio.gui.shell.studio import Studio
from studio.gui.views import CompareView
from tests.gui.conftest import PATIENCE

DEMO = core.demo_checkpoint()


def drop(commands: Commands, qtbot: QtBot, *paths: Path) -> Message | None:
    """Drop on the window, wait until a checkpoint is open, and give what was said of several."""
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    keys, button = Qt.KeyboardModifier.NoModifier, Qt.MouseButton.LeftButton
    event = QDropEvent(QPoint(10, 10), Qt.DropAction.CopyAction, data, button, keys)
    with qtbot.waitSignal(commands.opened, timeout=PATIENCE):
        commands.window.dropEvent(event)
    qtbot.waitUntil(lambda: len(paths) == 1 or told(commands) is not None, timeout=PATIENCE)
    return told(commands)


def told(commands: Commands) -> Message | None:
    return next((m for m in commands.window.messages.items if m.title == "One window shows one checkpoint"), None)


def test_of_several_dropped_folders_the_first_opens_and_the_rest_is_named(
    commands: Commands, qtbot: QtBot, tmp_path: Path
) -> None:
    message = drop(commands, qtbot, DEMO, tmp_path / "second", tmp_path / "third")
    assert commands.studio is not None
    assert commands.studio.document.model is not None
    assert commands.studio.document.model.path == DEMO
    assert message is not None
    assert message.text == "demo-llama is opened. Not opened: second, third."
    assert "--new" in message.hint
    assert not message.fixes
    assert message in [card.message for card in commands.window.cards.shown]


def test_many_dropped_files_make_no_long_card(commands: Commands, qtbot: QtBot, tmp_path: Path) -> None:
    message = drop(commands, qtbot, DEMO, *(tmp_path / f"{number}" for number in range(1000)))
    assert message is not None
    assert message.text == "demo-llama is opened. Not opened: 0, 1, 2, 3, 4 and 995 more."


def test_one_dropped_folder_needs_no_words(commands: Commands, qtbot: QtBot) -> None:
    assert drop(commands, qtbot, DEMO) is None


def test_two_dropped_exports_of_one_checkpoint_are_compared(
    studio: Studio, qtbot: QtBot, tmp_path: Path, wait: Callable[[], None]
) -> None:
    exports = [export(studio, qtbot, wait, tmp_path / name, name) for name in ("nvfp4-2t", "mxfp8")]
    message = drop(studio.commands, qtbot, *exports)
    assert message is not None
    (title, compare), *_ = message.fixes
    assert title == "Compare them"
    compare()
    view = studio.workspace.views["CompareView"]
    assert isinstance(view, CompareView)
    assert studio.workspace.pages.currentWidget() is view
    assert [box.currentText() for box in (view.a_box, view.b_box)] == ["Folder nvfp4-2t", "Folder mxfp8"]
    qtbot.waitUntil(lambda: view.comparison is not None, timeout=PATIENCE)
    assert view.comparison is not None
    assert len(view.comparison.pairs) == 28
    assert view.comparison.better == 28


def export(studio: Studio, qtbot: QtBot, wait: Callable[[], None], target: Path, format_name: str) -> Path:
    studio.editing.set_plan_format(format_name)
    studio.commands.perform("export")
    dialog = studio.exporting.dialog
    assert dialog is not None
    dialog.set_target(target)
    qtbot.waitUntil(dialog.export.isEnabled, timeout=PATIENCE)
    dialog.export.click()
    wait()
    return target


def test_what_is_no_export_is_not_offered_to_be_compared(commands: Commands, qtbot: QtBot, tmp_path: Path) -> None:
    message = drop(commands, qtbot, DEMO, tmp_path)
    assert message is not None
    assert not message.fixes


def test_several_paths_on_the_command_line_are_told_of_too(
    qapp: QApplication, settings: Settings, qtbot: QtBot, tmp_path: Path
) -> None:
    paths = parse([str(DEMO), str(tmp_path)]).paths
    made = Commands(settings, qapp)
    with qtbot.waitSignal(made.opened, timeout=PATIENCE):
        made.start(paths)
    qtbot.waitUntil(lambda: told(made) is not None, timeout=PATIENCE)
    made.window.close()
    made.window.deleteLater()
