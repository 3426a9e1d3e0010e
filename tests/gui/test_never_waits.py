"""Nothing keeps the window waiting, and every question gets an answer, a reason, or a way to go on."""

import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from studio import core
from studio.gui.jobs import tasks
from studio.gui.keeping import recall
from studio.gui.layers.store import DONE
from studio.gui.pages.registry import PAGES
from studio.gui.shell.commands import Commands
from studio.gui.shell.settings import Settings
from studio.gui.shell.studio import Studio
from tests.gui.conftest import PATIENCE

Names = Callable[[str], list[str]]
Wait = Callable[[], None]
GIANT, SMALL = "model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"


@pytest.fixture
def giant(tmp_path: Path) -> Path:
    """A layer of 537 M weights, which takes no room on the disk, and a small one."""
    folder = tmp_path / "giant"
    folder.mkdir()
    nbytes = 2 * 16384 * 32768
    entries = {
        f"{SMALL}.weight": {"dtype": "F16", "shape": [64, 64], "data_offsets": [0, 8192]},
        f"{GIANT}.weight": {"dtype": "F16", "shape": [16384, 32768], "data_offsets": [8192, 8192 + nbytes]},
    }
    head = json.dumps(entries).encode()
    head += b" " * (-len(head) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        file.write(np.random.default_rng(1).normal(size=4096).astype(np.float16).tobytes())
        file.truncate(8 + len(head) + 8192 + nbytes)
    (folder / "config.json").write_text('{"architectures": ["Test"]}')
    return folder


AT_ONCE = 3.0
"""Seconds; what stands in the way lasts many times longer."""


def open_path(studio: Studio, path: Path, qtbot: QtBot) -> None:
    with qtbot.waitSignal(studio.commands.opened, timeout=PATIENCE):
        studio.commands.open_path(path)


def inspector(studio: Studio) -> Any:
    return studio.workspace.views["InspectorView"]


def wait_for_share(studio: Studio, qtbot: QtBot) -> None:
    qtbot.waitUntil(lambda: "%" in inspector(studio).empty.text() + inspector(studio).summary.text(), timeout=PATIENCE)


# looking at a layer


def test_a_newer_question_ends_the_look_at_a_giant_layer(studio: Studio, giant: Path, qtbot: QtBot) -> None:
    open_path(studio, giant, qtbot)
    studio.workspace.inspect(GIANT)
    wait_for_share(studio, qtbot)
    assert GIANT in inspector(studio).empty.text()
    studio.document.select([SMALL])
    qtbot.waitUntil(lambda: inspector(studio).detail is not None, timeout=PATIENCE)
    assert inspector(studio).detail.name == SMALL
    qtbot.waitUntil(lambda: not studio.details.active, timeout=PATIENCE)
    assert "Reading" not in inspector(studio).summary.text()


def test_cancel_ends_a_look_and_says_how_to_go_on(studio: Studio, giant: Path, qtbot: QtBot) -> None:
    open_path(studio, giant, qtbot)
    actions = studio.commands.window.actions_of
    assert actions.reasons["stop"]
    studio.workspace.inspect(GIANT)
    wait_for_share(studio, qtbot)
    assert not actions.reasons["stop"]
    studio.commands.perform("stop")
    qtbot.waitUntil(lambda: not studio.details.active, timeout=PATIENCE)
    assert "you cancelled" in inspector(studio).empty.text()
    studio.commands.perform("inspect")
    wait_for_share(studio, qtbot)


def test_quantizing_goes_on_during_a_look_at_a_giant_layer(studio: Studio, giant: Path, qtbot: QtBot) -> None:
    open_path(studio, giant, qtbot)
    studio.workspace.inspect(GIANT)
    wait_for_share(studio, qtbot)
    studio.runs.quantize([SMALL])
    store = studio.document.store
    qtbot.waitUntil(lambda: store.state[store.index[SMALL]] == DONE, timeout=PATIENCE)
    assert studio.details.active


def test_quitting_during_a_look_at_a_giant_layer_is_at_once(
    settings: Settings, qapp: QApplication, giant: Path, qtbot: QtBot
) -> None:
    made = Commands(settings, qapp)
    with qtbot.waitSignal(made.opened, timeout=PATIENCE):
        made.start([giant])
    assert made.studio is not None
    made.studio.workspace.inspect(GIANT)
    wait_for_share(made.studio, qtbot)
    began = time.monotonic()
    assert made.window.close()
    assert time.monotonic() - began < AT_ONCE
    made.window.deleteLater()


def test_another_checkpoint_ends_the_look_before_the_files_are_closed(
    studio: Studio, giant: Path, qtbot: QtBot
) -> None:
    open_path(studio, giant, qtbot)
    studio.workspace.inspect(GIANT)
    wait_for_share(studio, qtbot)
    open_path(studio, core.demo_checkpoint(), qtbot)
    qtbot.wait(100)
    assert not [message for message in studio.commands.window.messages.items if message.tone == "error"]
    assert inspector(studio).empty.text() == inspector(studio).EMPTY


def test_a_second_layer_added_to_the_selection_is_shown_not_only_read(
    studio: Studio, qtbot: QtBot, names: Names
) -> None:
    first, second = names("layers.2.mlp.up")[0], names("layers.1.mlp.up")[0]
    studio.workspace.inspect(first)
    qtbot.waitUntil(lambda: inspector(studio).detail is not None, timeout=PATIENCE)
    studio.document.select([first, second])
    qtbot.waitUntil(lambda: inspector(studio).detail.name == second, timeout=PATIENCE)
    studio.document.select([first])
    qtbot.waitUntil(lambda: inspector(studio).detail.name == first, timeout=PATIENCE)
    qtbot.waitUntil(lambda: not studio.details.active, timeout=PATIENCE)
    assert "Reading" not in inspector(studio).summary.text()


def test_a_look_that_fails_says_so_where_it_was_asked_for(
    studio: Studio, qtbot: QtBot, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Iterator[float]:
        yield 0.1
        raise core.CheckpointError("the file ends too early")

    monkeypatch.setattr(core, "layer_steps", fails)
    studio.workspace.inspect(names("layers.1.mlp.up")[0])
    qtbot.waitUntil(lambda: "can not be read" in inspector(studio).empty.text(), timeout=PATIENCE)
    message = studio.commands.window.messages.items[-1]
    assert (message.tone, message.text) == ("error", "the file ends too early")
    assert message.hint


# opening


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Opening takes until the gate is open."""
    gate, plain = threading.Event(), recall.opening

    def slow(*arguments: Any) -> Iterator[Any]:
        gate.wait(20)
        yield from plain(*arguments)

    monkeypatch.setattr(recall, "opening", slow)
    yield gate
    gate.set()


def test_while_a_checkpoint_opens_nothing_else_starts(
    studio: Studio, large: Path, gate: threading.Event, qtbot: QtBot
) -> None:
    actions, window = studio.commands.window.actions_of, studio.commands.window
    studio.commands.open_path(large)
    for key in ("quantize", "export", "verify", "undo", "load_plan"):
        assert actions.reasons[key] == "a checkpoint is being opened", key
    assert not studio.plan_bar.isEnabled()
    studio.commands.perform("quantize")
    assert window.messages.items[-1].title == "Not now: a checkpoint is being opened"
    studio.runs.quantize()
    assert "a checkpoint is being opened" in window.messages.items[-1].title
    assert not studio.runs.active
    qtbot.waitUntil(lambda: window.activity.title.text() == "Opening large …", timeout=PATIENCE)
    with qtbot.waitSignal(studio.commands.opened, timeout=PATIENCE):
        gate.set()
    assert studio.plan_bar.isEnabled()
    assert not actions.reasons["quantize"]
    assert window.activity.title.text().startswith("96 layers to quantize")


def test_opening_is_cancelled_at_once_and_what_was_open_stays(
    studio: Studio, large: Path, gate: threading.Event, qtbot: QtBot
) -> None:
    before = studio.document.model
    studio.commands.open_path(large)
    studio.commands.perform("stop")
    assert studio.opening.path is None
    assert studio.commands.window.messages.items[-1].title == "large is not opened: you cancelled"
    gate.set()
    qtbot.wait(300)
    assert studio.document.model is before
    studio.commands.perform("quantize")
    qtbot.waitUntil(lambda: not studio.runs.active, timeout=PATIENCE)
    assert studio.document.store.figures().done == 28


def test_of_two_checkpoints_asked_for_the_last_one_opens(
    studio: Studio, large: Path, giant: Path, gate: threading.Event, qtbot: QtBot
) -> None:
    opened: list[Path] = []
    studio.opened.connect(opened.append)
    for path in (large, large, giant):
        studio.commands.open_path(path)
    assert studio.opening.path == giant
    gate.set()
    qtbot.waitUntil(lambda: bool(opened), timeout=PATIENCE)
    qtbot.wait(200)
    assert opened == [giant]


# comparing


def compare_view(studio: Studio) -> Any:
    return studio.workspace.views["CompareView"]


def ask_to_compare(studio: Studio, other: str) -> Any:
    studio.commands.perform("compare")
    view = compare_view(studio)
    view.choose_sides("plan", other)
    view.ask()
    return view


@pytest.mark.proof
def test_a_comparison_waits_for_the_run_and_goes_on_by_itself(studio: Studio, large: Path, qtbot: QtBot) -> None:
    open_path(studio, large, qtbot)
    studio.commands.perform("quantize")
    view = ask_to_compare(studio, "format:mxfp8")
    qtbot.waitUntil(lambda: "goes on by itself" in view.empty.text(), timeout=PATIENCE)
    qtbot.waitUntil(lambda: view.comparison is not None, timeout=PATIENCE)
    assert len(view.comparison.pairs) == 96


@pytest.mark.proof
def test_a_comparison_that_is_cancelled_says_so_and_goes_on_when_asked(
    studio: Studio, large: Path, qtbot: QtBot
) -> None:
    open_path(studio, large, qtbot)
    view = ask_to_compare(studio, "format:mxfp8")
    qtbot.waitUntil(lambda: studio.document.store.figures().done > 0, timeout=PATIENCE)
    studio.commands.perform("stop")
    qtbot.waitUntil(lambda: not studio.runs.active, timeout=PATIENCE)
    assert "ended: you cancelled. Press Compare to go on." in view.empty.text()
    message = studio.commands.window.messages.items[-1]
    dict(message.fixes)["Go on"]()
    qtbot.waitUntil(lambda: view.comparison is not None, timeout=PATIENCE)


def test_cancelling_what_a_comparison_waits_for_does_not_start_it(studio: Studio, large: Path, qtbot: QtBot) -> None:
    open_path(studio, large, qtbot)
    studio.commands.perform("quantize")
    view = ask_to_compare(studio, "format:mxfp8")
    qtbot.waitUntil(lambda: "goes on by itself" in view.empty.text(), timeout=PATIENCE)
    studio.commands.perform("stop")
    qtbot.waitUntil(lambda: not studio.runs.active, timeout=PATIENCE)
    assert "you cancelled what it waited for" in view.empty.text()
    view.ask()
    qtbot.waitUntil(lambda: view.comparison is not None, timeout=PATIENCE)


def test_a_folder_that_is_no_export_ends_with_the_reason(studio: Studio, tmp_path: Path, qtbot: QtBot) -> None:
    studio.commands.perform("compare")
    studio.comparing._take_export(tmp_path, "plan", "choose")
    qtbot.waitUntil(lambda: "Choose another folder" in compare_view(studio).empty.text(), timeout=PATIENCE)
    assert studio.commands.window.messages.items[-1].title == "This folder can not be compared"


def test_another_checkpoint_takes_its_comparison_along(quantized: Studio, large: Path, qtbot: QtBot) -> None:
    view = ask_to_compare(quantized, "plan")
    assert view.comparison is not None
    open_path(quantized, large, qtbot)
    assert view.comparison is None
    assert view.empty.text() == view.EMPTY


# pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.key)
def test_a_page_is_a_tab_and_an_action_that_shows_it(studio: Studio, page: Any) -> None:
    studio.commands.perform(page.key)
    pages = studio.workspace.pages
    assert pages.tabText(pages.currentIndex()) == page.title
    assert page.spec in studio.commands.window.actions_of.in_menu("View")


# what else can be cancelled


def test_verifying_with_nothing_open_can_be_cancelled(
    commands: Commands, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(*_: object) -> Iterator[Any]:
        yield core.Started("verify", 100, 1)
        while True:
            time.sleep(0.005)
            yield core.Progress("verify", 1, "layer")

    monkeypatch.setattr(tasks, "verifying", endless)
    studio, actions = commands.studio, commands.window.actions_of
    assert studio is not None
    studio.runs.verify(Path("export"))
    assert not actions.reasons["stop"]
    assert actions.reasons["open"] == ""
    commands.perform("stop")
    qtbot.waitUntil(lambda: not studio.runs.active, timeout=PATIENCE)
    assert commands.window.activity.title.text().startswith("Stopped after")


def test_a_report_that_is_cancelled_before_its_turn_says_so(
    quantized: Studio, large: Path, gate: threading.Event, tmp_path: Path
) -> None:
    quantized.commands.open_path(large)  # keeps the thread until the gate opens
    quantized.reports.write(tmp_path / "report")
    quantized._compute.stop()
    assert "The report was not written" in quantized.commands.window.messages.items[-1].title
    gate.set()


def test_quitting_while_a_checkpoint_opens_is_at_once(
    settings: Settings, qapp: QApplication, large: Path, gate: threading.Event, qtbot: QtBot
) -> None:
    made = Commands(settings, qapp)
    with qtbot.waitSignal(made.ready, timeout=PATIENCE):
        made.start([large])
    qtbot.wait(50)
    began = time.monotonic()
    assert made.window.close()
    assert time.monotonic() - began < AT_ONCE
    gate.set()
    made.window.deleteLater()
    qtbot.wait(400)  # nothing draws in a window that is gone
