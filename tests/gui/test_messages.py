"""What the window tells: progress, cards, and what to do about errors."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtWidgets import QLabel, QPushButton
from pytestqt.qtbot import QtBot

from studio.gui.shell.cards import Message
from studio.gui.shell.studio import Studio
from tests.gui.conftest import PATIENCE


def test_a_pause_without_a_run_stops_nothing_later(studio: Studio, wait: Callable[[], None]) -> None:
    studio.runs.toggle_pause()
    studio.commands.perform("quantize")
    wait()
    assert studio.document.store.figures().done == 28


def test_cards_go_when_another_checkpoint_opens(studio: Studio, qtbot: QtBot, tmp_path: Path) -> None:
    studio.commands.tell(Message("error", "About the former one"))
    studio.commands.open_path(tmp_path / "nothing")
    qtbot.waitUntil(lambda: len(studio.commands.window.cards.shown) == 2)
    with qtbot.waitSignal(studio.commands.opened):
        studio.commands.perform("demo")
    assert not studio.commands.window.cards.shown


def _is_whole(shown: QLabel) -> bool:
    needed = shown.heightForWidth(shown.width()) if shown.wordWrap() else shown.sizeHint().height()
    return needed - shown.contentsMargins().bottom() <= shown.height()


@pytest.mark.parametrize("pixels", [13, 24])
def test_nothing_on_a_card_or_in_the_export_dialog_is_cut_off(studio: Studio, qtbot: QtBot, pixels: int) -> None:
    studio.commands.settings["text_size"] = pixels
    text = "A sentence about a layer, long enough to need more than one line of a card at the lower right."
    studio.commands.tell(Message("error", text, text, text, fixes=(("Keep it as it is", int), ("Copy command", int))))
    studio.commands.perform("export")
    dialog = studio.exporting.dialog
    assert dialog is not None
    qtbot.waitUntil(dialog.export.isEnabled, timeout=PATIENCE)
    card = studio.commands.window.cards.shown[0]
    labels = [shown for shown in (*dialog.findChildren(QLabel), *card.findChildren(QLabel)) if shown.isVisible()]
    qtbot.waitUntil(lambda: all(_is_whole(shown) for shown in labels), timeout=PATIENCE)
    for made in card.findChildren(QPushButton):
        assert made.sizeHint().width() <= made.width(), made.text()
    dialog.reject()


@pytest.mark.parametrize("pixels", [13, 24])
def test_as_many_buttons_as_a_card_has_are_whole(studio: Studio, pixels: int) -> None:
    studio.commands.settings["text_size"] = pixels
    said = ("Copy command", "Open folder", "Publish…", "Verify again")
    studio.commands.tell(
        Message("error", "Title", "Text", "Hint", "Details", fixes=tuple((title, int) for title in said))
    )
    made = [one for one in studio.commands.window.cards.shown[-1].findChildren(QPushButton) if one.text() != "✕"]
    assert [one.text() for one in made] == [*said, "Details", "Copy"]
    for one in made:
        assert one.sizeHint().width() <= one.width(), one.text()


def test_errors_say_what_to_do(studio: Studio, qtbot: QtBot, tmp_path: Path, wait: Callable[[], None]) -> None:
    studio.commands.open_path(tmp_path / "nothing")
    qtbot.waitUntil(lambda: bool(studio.commands.window.cards.shown))
    (tmp_path / "empty").mkdir()
    studio.runs.verify(tmp_path / "empty")
    wait()
    hints = [message.hint for message in studio.commands.window.messages.items]
    assert len(hints) == 2
    assert all(hints)
