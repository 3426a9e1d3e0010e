"""What a person did to a checkpoint is there again: closed and opened, in another window, after a crash."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtWidgets import QApplication, QMessageBox
from pytestqt.qtbot import QtBot

from studio import core
from studio.gui.keeping.recall import opening
from studio.gui.keeping.shelf import RESULTS
from studio.gui.keeping.view_state import view_state
from studio.gui.keeping.work import decode
from studio.gui.layers.columns import KEYS
from studio.gui.layers.store import DONE
from studio.gui.pages.overview import Overview
from studio.gui.pages.workspace import Workspace
from studio.gui.shell.cards import Message
from studio.gui.shell.commands import Commands
from studio.gui.shell.settings import Settings
from studio.gui.shell.studio import Studio
from tests.core.checkpoints import checkpoint, llama
from tests.gui.conftest import PATIENCE

Wait = Callable[[], None]
GREETING = "Picked up where you left off"


def open_again(studio: Studio, qtbot: QtBot, path: Path | None = None) -> None:
    model = studio.document.model
    path = path or (model.path if model is not None else core.demo_checkpoint())
    studio.commands.perform("close")
    open_path(studio, qtbot, path)


def open_path(studio: Studio, qtbot: QtBot, path: Path) -> None:
    with qtbot.waitSignal(studio.commands.opened, timeout=PATIENCE):
        studio.commands.open_path(path)


def told(studio: Studio, title: str) -> list[Message]:
    return [message for message in studio.commands.window.messages.items if message.title.startswith(title)]


def press(message: Message, title: str) -> None:
    next(call for name, call in message.fixes if name == title)()


def shares(workspace: Workspace) -> list[float]:
    return shares_of(view_state(workspace))


def shares_of(view: dict[str, Any]) -> list[float]:
    """Part of its place that the first pane has, in every shape that was seen."""
    return [row[0] / sum(row) for rows in view["panes"].values() for row in rows]


def sizes_of(overview: Overview) -> list[list[int]]:
    return [overview.whole.sizes(), overview.below.sizes()]


def done(studio: Studio) -> int:
    return int((studio.document.store.state == DONE).sum())


@pytest.fixture
def window(settings: Settings, qapp: QApplication, qtbot: QtBot) -> Iterator[Callable[[], Studio]]:
    """Makes windows over the same settings, as programs started one after another do."""
    made: list[Commands] = []

    def make() -> Studio:
        commands = Commands(settings, qapp)
        made.append(commands)
        commands.start()
        qtbot.waitUntil(lambda: commands.studio is not None, timeout=PATIENCE)
        assert commands.studio is not None
        commands.studio.commands = commands
        return commands.studio

    yield make
    for commands in made:
        commands.window.close()
        commands.window.deleteLater()


def test_plan_undo_and_results_come_back(quantized: Studio, qtbot: QtBot) -> None:
    document = quantized.document
    document.set_format(document.store.names[3:6], "mxfp8")
    quantized.editing.set_plan_format("mxfp4")
    document.undo.undo()
    formats, measured, state = list(document.store.formats), done(quantized), document.state
    document.cache = core.ResultCache()  # as in a program that was started anew
    open_again(quantized, qtbot)
    assert document.store.formats == formats
    assert (document.state.plan, document.state.edits) == (state.plan, state.edits)
    assert done(quantized) == measured > 0
    (card,) = told(quantized, GREETING)
    assert card.text == f"3 choices by hand, {measured} results, 1 step of undo"
    assert [shown.message for shown in quantized.commands.window.cards.shown][-1:] == [card]
    assert document.undo.redoText() == "mxfp4 for the plan"
    document.undo.redo()
    assert document.state.plan.format == "mxfp4"
    assert card not in [shown.message for shown in quantized.commands.window.cards.shown]
    document.undo.setIndex(0)
    assert not document.state.edits
    assert document.state.plan.format == core.DEFAULT_FORMAT


def test_results_of_formats_tried_before_are_there_for_undo(quantized: Studio, qtbot: QtBot, wait: Wait) -> None:
    quantized.editing.set_plan_format("mxfp8")
    quantized.commands.perform("quantize")
    wait()
    measured = done(quantized)
    quantized.document.cache = core.ResultCache()
    open_again(quantized, qtbot)
    assert done(quantized) == measured
    quantized.document.undo.undo()
    assert quantized.document.state.plan.format == core.DEFAULT_FORMAT
    assert done(quantized) == measured


def test_results_come_back_to_the_bit(quantized: Studio, qtbot: QtBot) -> None:
    before = list(quantized.document.store.results)
    quantized.document.cache = core.ResultCache()
    open_again(quantized, qtbot)
    assert list(quantized.document.store.results) == before


def test_at_least_fifty_steps_of_undo_come_back(studio: Studio, qtbot: QtBot) -> None:
    document = studio.document
    names = document.store.names
    for number in range(60):
        document.set_format([names[number % 20]], ("mxfp8", "mxfp4", "int8-g64")[number // 20])
    open_again(studio, qtbot)
    for _ in range(60):
        assert document.undo.canUndo()
        document.undo.undo()
    assert not document.state.edits


def test_a_plan_that_is_in_a_file_is_so_again(studio: Studio, qtbot: QtBot, tmp_path: Path) -> None:
    studio.document.set_format(studio.document.store.names[3:4], "mxfp8")
    studio.editing.write_plan(tmp_path / "plan.json")
    open_again(studio, qtbot)
    assert studio.document.is_saved
    studio.document.undo.undo()
    assert not studio.document.is_saved
    studio.document.undo.redo()
    assert studio.document.is_saved


def test_the_view_comes_back(studio: Studio, qtbot: QtBot) -> None:
    workspace, table = studio.workspace, studio.workspace.layers
    workspace.filter_bar.field.setText("mlp")
    names = [name for name in studio.document.store.names if "mlp" in name]
    studio.document.select(names[1:4])
    table.table.fold([2], folded=True)
    table.say_columns({key: key in ("format", "err", "snr", "bits") for key in KEYS[1:]})
    table.horizontalHeader().moveSection(table.horizontalHeader().visualIndex(KEYS.index("snr")), 1)
    table.setColumnWidth(KEYS.index("err"), 133)
    workspace.split.setSizes([600, 500])
    workspace.show_page("metadata")
    before = view_state(workspace)
    assert before["panes"]["table"][0][0] > before["panes"]["table"][0][1]
    studio.commands.perform("close")
    workspace.show_page("overview")
    studio.commands.perform("reset_layout")
    open_path(studio, qtbot, core.demo_checkpoint())
    assert {**view_state(workspace), "panes": {}} == {**before, "panes": {}}
    assert shares(workspace) == pytest.approx(shares_of(before), abs=0.01)
    assert before["selection"] == names[1:4]
    studio.commands.perform("reset_layout")
    assert view_state(workspace)["columns"]["order"] == KEYS
    assert view_state(workspace)["columns"]["said"] == {}


def test_the_order_of_a_column_comes_back(quantized: Studio, qtbot: QtBot) -> None:
    table = quantized.workspace.layers.table
    table.sort_by(KEYS.index("err"))
    order = [table.layers_of(row) for row in range(table.rowCount())]
    open_again(quantized, qtbot)
    assert [table.layers_of(row) for row in range(table.rowCount())] == order


def test_a_checkpoint_of_which_nothing_is_kept_says_nothing(studio: Studio, qtbot: QtBot) -> None:
    open_again(studio, qtbot)
    assert not told(studio, GREETING)


def test_work_comes_back_in_another_window(window: Callable[[], Studio], qtbot: QtBot, settings: Settings) -> None:
    first = window()
    open_path(first, qtbot, core.demo_checkpoint())
    first.document.set_format(first.document.store.names[3:5], "mxfp8")
    settings["confirm_quit"] = True
    first.commands.window.resize(1700, 1050)
    qtbot.wait(300)
    first.workspace.split.setSizes([600, 500])
    first.workspace.overview.whole.setSizes([200, 400])
    first.workspace.overview.below.setSizes([600, 200])
    formats, panes = list(first.document.store.formats), sizes_of(first.workspace.overview)
    first.commands.window.close()
    assert not first.commands.window.isVisible()
    second = window()
    qtbot.waitUntil(lambda: second.document.model is not None, timeout=PATIENCE)
    assert second.document.store.formats == formats
    assert told(second, GREETING)[0].text == "2 choices by hand, 1 step of undo"
    second.commands.window.resize(1700, 1050)  # the offscreen screen is smaller: they are laid out another way first
    qtbot.waitUntil(lambda: sizes_of(second.workspace.overview) == panes)
    assert second.commands.window.saved.text() == "plan kept, not in a file"


def test_reading_again_keeps_undo_results_and_view(quantized: Studio, qtbot: QtBot) -> None:
    document = quantized.document
    document.set_format(document.store.names[3:6], "mxfp8")
    quantized.workspace.filter_bar.field.setText("mlp")
    measured = done(quantized)
    with qtbot.waitSignal(quantized.commands.opened, timeout=PATIENCE):
        quantized.commands.perform("reload")
        document.set_format(document.store.names[8:9], "mxfp4")  # while it is read
    assert len(document.state.edits) == 4
    assert document.undo.count() == 2
    assert quantized.workspace.filter_bar.field.text() == "mlp"
    assert done(quantized) >= measured - 4
    assert not told(quantized, GREETING)


@pytest.mark.parametrize("remember", [True, False])
def test_reading_again_needs_no_disk(studio: Studio, qtbot: QtBot, remember: bool) -> None:
    studio.commands.settings["remember"] = remember
    studio.document.set_format(studio.document.store.names[3:6], "mxfp8")
    with qtbot.waitSignal(studio.commands.opened, timeout=PATIENCE):
        studio.commands.perform("reload")
    assert studio.document.undo.undoText() == "mxfp8 for 3 layers"
    studio.commands.settings["remember"] = True


def test_starting_afresh_can_be_taken_back(quantized: Studio, qtbot: QtBot) -> None:
    document = quantized.document
    document.set_format(document.store.names[3:6], "mxfp8")
    formats, measured = list(document.store.formats), done(quantized)
    open_again(quantized, qtbot)
    press(told(quantized, GREETING)[0], "Start afresh")
    assert not document.state.edits
    assert done(quantized) == 0
    assert not document.undo.canUndo()
    assert document.is_saved
    press(told(quantized, "Started afresh")[0], "Take it back")
    assert (document.store.formats, done(quantized)) == (formats, measured)
    document.cache = core.ResultCache()
    open_again(quantized, qtbot)
    assert (document.store.formats, done(quantized)) == (formats, measured)


def test_started_afresh_stays_so(quantized: Studio, qtbot: QtBot) -> None:
    quantized.document.set_format(quantized.document.store.names[3:6], "mxfp8")
    quantized.commands.perform("afresh")
    quantized.document.cache = core.ResultCache()
    open_again(quantized, qtbot)
    assert not quantized.document.state.edits
    assert done(quantized) == 0


def test_a_moved_folder_is_found_again(commands: Commands, qtbot: QtBot, tmp_path: Path) -> None:
    studio, folder = commands.studio, checkpoint(tmp_path / "model", llama(2))
    assert studio is not None
    open_path(studio, qtbot, folder)
    studio.document.set_format(studio.document.store.names[1:3], "mxfp8")
    formats = list(studio.document.store.formats)
    commands.perform("close")
    open_path(studio, qtbot, folder.rename(tmp_path / "elsewhere"))
    assert studio.document.store.formats == formats


def test_a_changed_shard_costs_its_results_only(commands: Commands, qtbot: QtBot, tmp_path: Path, wait: Wait) -> None:
    studio, folder = commands.studio, checkpoint(tmp_path / "model", llama(3), shards=3)
    assert studio is not None
    open_path(studio, qtbot, folder)
    studio.document.set_format(studio.document.store.names[1:3], "mxfp8")
    commands.perform("quantize")
    wait()
    measured, formats = done(studio), list(studio.document.store.formats)
    commands.perform("close")
    shard = min(folder.glob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    open_path(studio, qtbot, folder)
    assert studio.document.store.formats == formats
    assert 0 < done(studio) < measured


def test_nothing_is_kept_when_the_setting_is_off(studio: Studio, qtbot: QtBot) -> None:
    studio.commands.settings["remember"] = False
    studio.document.set_format(studio.document.store.names[3:5], "mxfp8")
    assert studio.commands.window.saved.text() == "plan not saved"
    open_again(studio, qtbot)
    studio.commands.settings["remember"] = True
    assert not studio.document.state.edits
    open_again(studio, qtbot)
    assert not studio.document.state.edits


def test_turning_the_setting_on_puts_older_work_aside(studio: Studio, qtbot: QtBot) -> None:
    studio.document.set_format(studio.document.store.names[3:5], "mxfp8")
    studio.commands.perform("close")
    studio.commands.settings["remember"] = False
    open_path(studio, qtbot, core.demo_checkpoint())
    studio.document.set_format(studio.document.store.names[3:4], "mxfp4")
    studio.commands.settings["remember"] = True
    assert told(studio, "The plan of this window takes the place")
    studio.commands.settings["remember"] = False
    studio.commands.settings["remember"] = True
    assert len(told(studio, "The plan of this window takes the place")) == 1


def test_turning_the_setting_on_keeps_what_is_open(quantized: Studio, qtbot: QtBot) -> None:
    quantized.commands.settings["remember"] = False
    quantized.document.set_format(quantized.document.store.names[3:5], "mxfp8")
    measured = done(quantized)
    quantized.commands.settings["remember"] = True
    assert quantized.commands.window.saved.text() == "plan kept, not in a file"
    quantized.document.cache = core.ResultCache()
    open_again(quantized, qtbot)
    assert len(quantized.document.state.edits) == 2
    assert done(quantized) == measured


def test_of_two_windows_with_one_checkpoint_one_keeps_and_the_other_says_so(
    window: Callable[[], Studio], qtbot: QtBot
) -> None:
    first, second = window(), window()
    for studio in (first, second):
        open_path(studio, qtbot, core.demo_checkpoint())
    first.document.set_format(first.document.store.names[3:5], "mxfp8")
    second.document.set_format(second.document.store.names[3:6], "mxfp4")
    (card,) = told(second, "Work on this checkpoint is not kept")
    assert "another window" in card.text.lower()
    assert second.commands.window.saved.text() == "plan not saved"
    assert not second.keeping.keep_now()
    open_again(first, qtbot)
    assert set(first.document.state.edits.values()) == {"mxfp8"}
    first.commands.perform("close")
    with qtbot.waitSignal(second.commands.opened, timeout=PATIENCE):
        second.commands.perform("reload")
    assert set(second.document.state.edits.values()) == {"mxfp4"}
    assert second.commands.window.saved.text() == "plan kept, not in a file"
    (note,) = told(second, "The plan of this window takes the place")
    (aside,) = second.keeping.held.folder.glob("work.json.*.unread") if second.keeping.held else ()
    assert str(aside) in note.text
    assert set(decode(aside.read_bytes()).now.edits.values()) == {"mxfp8"}


CHILD = """
import sys
from pathlib import Path
from PySide6.QtCore import QTimer
from studio import core
from studio.gui.app import make_application
from studio.gui.shell.commands import Commands
from studio.gui.shell.settings import Settings
application = make_application()
commands = Commands(Settings(Path(sys.argv[1])), application)
commands.start([core.demo_checkpoint()])

def choose():
    commands.studio.document.set_format(commands.studio.document.store.names[3:6], "mxfp8")
    commands.perform("quantize")
    commands.studio.runs.changed.connect(tell)

def tell():
    if not commands.studio.runs.active:
        QTimer.singleShot(2500, lambda: print("kept", flush=True))

commands.opened.connect(choose)
application.exec()
"""


def test_a_killed_window_loses_nothing_older_than_a_second(
    window: Callable[[], Studio], qtbot: QtBot, settings: Settings
) -> None:
    settings.sync()
    command = [sys.executable, "-c", CHILD, str(settings.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "kept\n"
        os.kill(child.pid, signal.SIGKILL)
    studio = window()
    if studio.document.model is None:
        open_path(studio, qtbot, core.demo_checkpoint())
    assert set(studio.document.state.edits.values()) == {"mxfp8"}
    assert done(studio) == studio.document.store.figures().chosen
    assert told(studio, GREETING)[0].text.startswith("3 choices by hand, ")


def test_results_are_appended_not_written_again(quantized: Studio, wait: Wait) -> None:
    assert quantized.keeping.keep_now()
    entry = quantized.keeping.held
    assert entry is not None
    before = (entry.folder / RESULTS).read_bytes()
    quantized.editing.set_plan_format("mxfp8")
    quantized.commands.perform("quantize")
    wait()
    assert quantized.keeping.keep_now()
    assert (entry.folder / RESULTS).read_bytes().startswith(before)
    assert (entry.folder / RESULTS).stat().st_size > len(before)


def test_results_that_hold_no_more_are_left_out_when_they_are_most(
    commands: Commands, qtbot: QtBot, tmp_path: Path, wait: Wait
) -> None:
    studio, folder = commands.studio, checkpoint(tmp_path / "model", llama(1))
    assert studio is not None
    open_path(studio, qtbot, folder)
    commands.perform("quantize")
    wait()
    entry = studio.keeping.held
    commands.perform("close")
    assert entry is not None
    path = entry.folder / RESULTS
    head, *lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([head, *lines * 500]))
    open_path(studio, qtbot, folder)
    assert len(path.read_bytes().splitlines()) == len(lines) + 1
    assert done(studio) == len(lines)
    shutil.rmtree(folder)


def test_the_settings_say_how_much_is_kept_and_forget_what_is_not_open(
    quantized: Studio, qtbot: QtBot, tmp_path: Path
) -> None:
    open_path(quantized, qtbot, checkpoint(tmp_path / "model", llama(1)))
    quantized.document.set_format(quantized.document.store.names[1:3], "mxfp8")
    row = quantized.keeping.kept_row()
    qtbot.addWidget(row)
    assert row.about.text().startswith("2 checkpoints, ")
    row.forget.click()
    (box,) = [box for box in row.findChildren(QMessageBox) if box.isVisible()]
    next(made for made in box.buttons() if made.text().startswith("Forget")).click()
    assert row.about.text().startswith("1 checkpoint, ")
    quantized.document.cache = core.ResultCache()
    open_path(quantized, qtbot, core.demo_checkpoint())
    assert done(quantized) == 0
    open_path(quantized, qtbot, tmp_path / "model")
    assert len(quantized.document.state.edits) == 2


def test_an_opening_that_is_stopped_leaves_the_work_to_the_next(studio: Studio, qtbot: QtBot) -> None:
    studio.document.set_format(studio.document.store.names[3:5], "mxfp8")
    studio.commands.perform("close")
    steps = opening(core.demo_checkpoint(), studio.keeping.shelf, None, None)
    for _ in range(2):
        assert next(steps) is None
    steps.close()
    open_path(studio, qtbot, core.demo_checkpoint())
    assert studio.keeping.keeps
    assert len(studio.document.state.edits) == 2


def test_the_same_checkpoint_by_another_path_keeps_the_newest(studio: Studio, qtbot: QtBot) -> None:
    studio.document.set_format(studio.document.store.names[3:5], "mxfp8")
    open_path(studio, qtbot, Path(os.path.relpath(core.demo_checkpoint())))
    assert len(studio.document.state.edits) == 2
    assert studio.keeping.keeps


def hold_event_loop_until_read(studio: Studio) -> None:
    """Wait until what is being opened was read on the thread, which the window does not know yet."""
    turns, ends = studio._compute._turns, time.monotonic() + 10
    while not any(report is not None for _, report in turns.reports) or turns.live:
        assert time.monotonic() < ends
        time.sleep(0.001)


def test_one_checkpoint_then_another_then_the_first_again_is_no_other_window(
    studio: Studio, qtbot: QtBot, tmp_path: Path
) -> None:
    paths = [checkpoint(tmp_path / name, llama()) for name in "ab"]
    studio.commands.perform("close")
    studio.commands.open_path(paths[0])
    hold_event_loop_until_read(studio)
    studio.commands.open_path(paths[1])
    open_path(studio, qtbot, paths[0])
    assert studio.document.model is not None
    assert studio.document.model.path == paths[0]
    assert studio.keeping.keeps
    assert not told(studio, "Work on this checkpoint is not kept")


def test_a_window_that_closes_in_the_instant_after_opening_leaves_no_lock(
    window: Callable[[], Studio], tmp_path: Path
) -> None:
    path = checkpoint(tmp_path / "model", llama())
    studio = window()
    studio.commands.open_path(path)
    hold_event_loop_until_read(studio)
    (found,) = [report for _, report in studio._compute._turns.reports if report is not None]
    assert found.entry.is_held
    studio.commands.window.close()
    ends = time.monotonic() + 5
    while found.entry.is_held and time.monotonic() < ends:
        time.sleep(0.001)
    (entry,) = studio.keeping.shelf.entries()
    assert entry.hold()
    entry.release()
    with pytest.raises(ValueError, match="after it was closed"):
        found.model.files[0].read(0, 1)
