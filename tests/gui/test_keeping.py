"""What a person chose is never thrown away without asking, where it is not kept by itself."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtWidgets import QMessageBox
from pytestqt.qtbot import QtBot

from studio import core
from studio.gui.keeping.kept_row import KeptRow
from studio.gui.keeping.shelf import LIMIT
from studio.gui.shell.settings import OPTIONS
from studio.gui.shell.settings_dialog import SettingsDialog
from studio.gui.shell.studio import Studio
from tests.gui.conftest import PATIENCE

Names = Callable[[str], list[str]]


def ask_about(studio: Studio, names: Names) -> None:
    studio.commands.settings["remember"] = False
    studio.document.set_format(names("layers.1.mlp.down"), "mxfp8")
    studio.commands.settings["confirm_quit"] = True


def question(studio: Studio) -> QMessageBox:
    (box,) = [box for box in studio.commands.window.findChildren(QMessageBox) if box.isVisible()]
    return box


def press(box: QMessageBox, text: str) -> None:
    next(button for button in box.buttons() if button.text().replace("&", "").startswith(text)).click()


def test_closing_a_checkpoint_asks_about_a_plan_that_is_not_saved(studio: Studio, names: Names) -> None:
    ask_about(studio, names)
    studio.commands.perform("close")
    assert "1 choice by hand would go" in question(studio).informativeText()
    press(question(studio), "Cancel")
    assert studio.document.model is not None
    studio.commands.perform("close")
    press(question(studio), "Close it without saving")
    assert studio.document.model is None


def test_opening_another_checkpoint_asks_and_cancel_leaves_everything(
    studio: Studio, names: Names, tmp_path: Path
) -> None:
    ask_about(studio, names)
    before = studio.document.state
    studio.open(tmp_path)
    press(question(studio), "Cancel")
    assert studio.document.state == before


def test_a_saved_plan_is_not_asked_about(studio: Studio, names: Names, tmp_path: Path) -> None:
    ask_about(studio, names)
    studio.editing.write_plan(tmp_path / "plan.json")
    studio.commands.perform("close")
    assert studio.document.model is None


def test_quitting_asks_about_a_plan_that_is_not_saved(studio: Studio, names: Names) -> None:
    ask_about(studio, names)
    studio.commands.window.close()
    assert studio.commands.window.isVisible()
    press(question(studio), "Cancel")
    assert studio.document.model is not None


def test_a_plan_that_is_kept_by_itself_is_not_asked_about(studio: Studio, names: Names) -> None:
    ask_about(studio, names)
    studio.commands.settings["remember"] = True
    studio.commands.perform("close")
    assert studio.document.model is None


def test_reading_again_keeps_preset_format_and_choices_by_hand(studio: Studio, names: Names, qtbot: QtBot) -> None:
    studio.editing.set_preset("mlp")
    studio.editing.set_plan_format("int4-g64")
    ask_about(studio, names)
    before = list(studio.document.store.formats)
    with qtbot.waitSignal(studio.commands.opened, timeout=PATIENCE):
        studio.commands.perform("reload")
    assert studio.document.store.formats == before
    assert studio.document.state.plan.name == "mlp"
    assert not studio.document.is_saved


@pytest.mark.parametrize(("remember", "words"), [(True, "Plan and results are kept."), (False, "are not kept.")])
def test_quitting_while_work_runs_says_truly_what_is_kept(
    studio: Studio, wait: Callable[[], None], remember: bool, words: str
) -> None:
    studio.commands.settings["remember"] = remember
    studio.commands.settings["confirm_quit"] = True
    studio.commands.perform("quantize")
    studio.commands.window.close()
    box = question(studio)
    assert box.informativeText().endswith(words)
    press(box, "Cancel")
    wait()
    studio.commands.settings["remember"] = True


def test_the_settings_show_what_is_kept_and_its_limit(studio: Studio) -> None:
    studio.commands.perform("settings")
    (dialog,) = studio.commands.window.findChildren(SettingsDialog)
    (row,) = dialog.findChildren(KeptRow)
    assert row.about.text().startswith("1 checkpoint, ")
    assert core.size_text(LIMIT) == "1 GB"
    assert "beyond 1 GB" in OPTIONS["remember"].help
    dialog.accept()
