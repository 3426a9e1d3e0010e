"""Damaged, newer and unwritable files: nothing is lost in silence, and the window goes on."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from studio import core
from studio.gui.keeping.shelf import RESULTS, WORK, Shelf
from studio.gui.shell.commands import Commands
from studio.gui.shell.studio import Studio
from tests.core.checkpoints import checkpoint, llama
from tests.gui.conftest import PATIENCE
from tests.gui.keeping.test_sessions import done, open_again, open_path, told
from tests.gui.test_keeping import press, question

NOT_KEPT = "Work on this checkpoint is not kept"


@pytest.fixture
def entry(quantized: Studio) -> Path:
    """The folder of the demo's work, after a choice by hand; the checkpoint is closed."""
    quantized.document.set_format(quantized.document.store.names[3:5], "mxfp8")
    held = quantized.keeping.held
    assert held is not None
    quantized.commands.perform("close")
    quantized.document.cache = core.ResultCache()
    return held.folder


def spoil(path: Path, change: Callable[[bytes], bytes]) -> bytes:
    spoiled = change(path.read_bytes())
    path.write_bytes(spoiled)
    return spoiled


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("change", "title"),
    [
        (lambda data: data[: len(data) // 2], "The plan kept for this checkpoint is damaged"),
        (lambda data: data[:0], "The plan kept for this checkpoint is damaged"),
        (lambda data: os.urandom(len(data)), "The plan kept for this checkpoint is damaged"),
        (lambda data: data.replace(b"mxfp8", b"fp9"), "The plan kept for this checkpoint is damaged"),
        (
            lambda data: json.dumps({**json.loads(data), "schema": 7}).encode(),
            "The plan kept for this checkpoint was written by a later version",
        ),
    ],
)
def test_a_plan_that_can_not_be_read_is_put_aside_whole_and_results_stay(
    studio: Studio, entry: Path, qtbot: QtBot, change: Callable[[bytes], bytes], title: str
) -> None:
    spoiled = spoil(entry / WORK, change)
    open_path(studio, qtbot, core.demo_checkpoint())
    (message,) = told(studio, title)
    (aside,) = entry.glob(f"{WORK}.*.unread")
    assert aside.read_bytes() == spoiled
    assert str(aside) in message.text
    assert message.hint
    assert not studio.document.state.edits
    assert done(studio) == studio.document.store.figures().chosen
    studio.document.set_format(studio.document.store.names[3:4], "mxfp4")
    open_again(studio, qtbot)
    assert list(studio.document.state.edits.values()) == ["mxfp4"]


def test_a_damaged_line_costs_its_result_only(studio: Studio, entry: Path, qtbot: QtBot) -> None:
    lines = (entry / RESULTS).read_bytes().splitlines(keepends=True)
    (entry / RESULTS).write_bytes(b"".join([lines[0], b'{"layer":\n', *lines[2:]]))
    open_path(studio, qtbot, core.demo_checkpoint())
    (message,) = told(studio, "The list of results kept for this checkpoint is damaged")
    assert message.text.startswith(f"1 of {len(lines) - 1} lines can not be read; the others are in use.")
    assert len(list(entry.glob(f"{RESULTS}.*.unread"))) == 1
    assert len(studio.document.state.edits) == 2
    assert len((entry / RESULTS).read_bytes().splitlines()) == len(lines) - 1
    open_again(studio, qtbot)
    assert len(told(studio, "The list of results")) == 1


def test_a_line_that_a_crash_cut_short_needs_no_words(studio: Studio, entry: Path, qtbot: QtBot) -> None:
    spoil(entry / RESULTS, lambda data: data[:-40])
    open_path(studio, qtbot, core.demo_checkpoint())
    assert not told(studio, "The list of results")
    assert done(studio) > 0


def test_results_of_a_later_version_are_put_aside(studio: Studio, entry: Path, qtbot: QtBot) -> None:
    spoiled = spoil(entry / RESULTS, lambda data: b'{"schema":2}' + data[data.index(b"\n") :])
    open_path(studio, qtbot, core.demo_checkpoint())
    assert told(studio, "The list of results kept for this checkpoint was written by a later version")
    (aside,) = entry.glob(f"{RESULTS}.*.unread")
    assert aside.read_bytes() == spoiled
    assert done(studio) == 0
    assert len(studio.document.state.edits) == 2


def test_a_folder_that_can_not_be_written_is_told_once_and_quitting_asks(
    studio: Studio, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    monkeypatch.setattr(studio.keeping, "shelf", Shelf(blocked / "checkpoints"))
    open_again(studio, qtbot)
    (message,) = told(studio, NOT_KEPT)
    assert str(blocked) in message.text
    assert "Not a directory" in message.text
    studio.document.set_format(studio.document.store.names[3:5], "mxfp8")
    assert studio.commands.window.saved.text() == "plan not saved"
    assert not studio.keeping.keep_now()
    assert len(told(studio, NOT_KEPT)) == 1
    studio.commands.settings["confirm_quit"] = True
    studio.commands.window.close()
    assert studio.commands.window.isVisible()
    press(question(studio), "Cancel")


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_is_told_once_and_all_is_kept_when_there_is_room_again(
    studio: Studio, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, call: str, wait: Callable[[], None]
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        studio.document.set_format(studio.document.store.names[3:5], "mxfp8")
        studio.commands.perform("quantize")
        wait()
        assert not studio.keeping.keep_now()
        studio.document.set_format(studio.document.store.names[5:6], "mxfp8")
        assert not studio.keeping.keep_now()
        (message,) = told(studio, NOT_KEPT)
        assert "No space left" in message.text
        assert studio.commands.window.saved.text() == "plan not saved"
    assert studio.keeping.keep_now()
    assert told(studio, "Work is kept again")
    assert studio.commands.window.saved.text() == "plan kept, not in a file"
    measured = done(studio)
    studio.document.cache = core.ResultCache()
    open_again(studio, qtbot)
    assert len(studio.document.state.edits) == 3
    assert done(studio) == measured > 0


def test_a_failed_write_is_tried_again_by_itself(studio: Studio, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.gui.keeping.keeping.RETRY_MS", 20)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        studio.document.set_format(studio.document.store.names[3:5], "mxfp8")
        qtbot.waitUntil(lambda: bool(told(studio, NOT_KEPT)), timeout=PATIENCE)
    qtbot.waitUntil(lambda: bool(told(studio, "Work is kept again")), timeout=PATIENCE)


@pytest.mark.parametrize("changed", [False, True])
def test_what_a_full_disk_held_back_is_kept_after_reading_again_unless_its_bytes_changed(
    commands: Commands,
    qtbot: QtBot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wait: Callable[[], None],
    changed: bool,
) -> None:
    studio, folder = commands.studio, checkpoint(tmp_path / "model", llama(1))
    assert studio is not None
    open_path(studio, qtbot, folder)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
        commands.perform("quantize")
        wait()
        if changed:
            os.utime(min(folder.glob("*.safetensors")), ns=(1, 1))
        with qtbot.waitSignal(commands.opened, timeout=PATIENCE):
            commands.perform("reload")
    assert studio.keeping.keep_now()
    studio.document.cache = core.ResultCache()
    open_again(studio, qtbot)
    assert (done(studio) > 0) is not changed
