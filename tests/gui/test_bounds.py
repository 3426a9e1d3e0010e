"""A window that is open for weeks holds no more than the checkpoint that is open needs."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from studio import core
from studio.gui.layers import document as documents
from studio.gui.layers.history import STEPS
from studio.gui.shell import cards
from studio.gui.shell.cards import Message, Messages
from studio.gui.shell.studio import Studio
from studio.gui.shell.tool_button import ToolButton
from tests.core.checkpoints import checkpoint
from tests.gui.conftest import PATIENCE


def test_what_was_told_of_a_checkpoint_does_not_hold_it(quantized: Studio, qtbot: QtBot) -> None:
    quantized.commands.perform("afresh")
    assert quantized.commands.window.messages.items[-1].fixes
    model = weakref.ref(quantized.document.model)
    quantized.commands.perform("close")
    with qtbot.waitSignal(quantized.commands.opened, timeout=PATIENCE):
        quantized.commands.perform("demo")

    def gone() -> bool:
        gc.collect()
        return model() is None

    qtbot.waitUntil(gone, timeout=PATIENCE)


def test_the_buttons_of_a_message_are_there_as_long_as_its_card(studio: Studio) -> None:
    window = studio.commands.window
    for number in range(cards.MOST + 1):
        studio.commands.tell(Message("error", f"Fault {number}", fixes=(("Mend it", int),)))
    assert [bool(message.fixes) for message in window.messages.items[-cards.MOST - 1 :]] == [False, True, True, True]


def test_the_oldest_message_goes_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "MOST_LISTED", 3)
    messages = Messages()
    for number in range(5):
        messages.add(Message("info", f"{number}"))
    assert [message.title for message in messages.items] == ["2", "3", "4"]
    assert messages.rowCount() == 3


def test_results_of_other_checkpoints_are_remembered_up_to_a_limit_and_those_of_the_open_one_are_all_there(
    quantized: Studio, wait: Callable[[], None], tmp_path: Path, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "RESULTS_OF_OTHERS", 10)
    document, cache = quantized.document, quantized.document.cache
    with qtbot.waitSignal(quantized.commands.opened, timeout=PATIENCE):
        quantized.commands.open_path(checkpoint(tmp_path / "other"))
    assert len(cache) == 10
    quantized.commands.perform("quantize")
    wait()
    assert len(cache) == 10 + document.store.figures().done > 20
    with qtbot.waitSignal(quantized.commands.opened, timeout=PATIENCE):
        quantized.commands.open_path(core.demo_checkpoint())
    assert document.store.figures().done == 28
    assert len(cache) == 28 + 10


def test_undo_goes_back_so_many_steps_and_no_further(studio: Studio) -> None:
    document, names = studio.document, studio.document.store.names[3:4]
    for number in range(STEPS + 20):
        document.set_format(names, ("mxfp8", "mxfp4")[number % 2])
    assert document.undo.count() == STEPS
    document.undo.setIndex(0)
    assert document.store.formats[3] == "mxfp4"


def test_a_tool_follows_its_action_and_triggers_it(studio: Studio) -> None:
    window = studio.commands.window
    tools = {tool.text(): tool for tool in window.tools.findChildren(ToolButton)}
    assert not tools["Undo"].isEnabled()
    assert "nothing to undo" in tools["Undo"].toolTip()
    studio.document.set_format(studio.document.store.names[3:4], "mxfp8")
    assert tools["Undo"].isEnabled()
    tools["Undo"].click()
    assert not studio.document.state.edits
    assert all(tool.defaultAction() is None for tool in tools.values())


def test_the_pause_tool_shows_whether_work_waits(studio: Studio, wait: Callable[[], None]) -> None:
    studio.commands.perform("quantize")
    (pause,) = [tool for tool in studio.commands.window.tools.findChildren(ToolButton) if tool.isCheckable()]
    pause.click()
    assert (pause.text(), pause.isChecked()) == ("Resume", True)
    pause.click()
    assert (pause.text(), pause.isChecked()) == ("Pause", False)
    wait()
