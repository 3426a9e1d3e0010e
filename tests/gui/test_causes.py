"""A card about what is wrong goes when that is no longer so; the log keeps it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from safetensors.numpy import save_file

from studio.gui.keeping.words import NOT_KEPT
from studio.gui.layers.store import FAILED
from studio.gui.shell.cards import Message
from studio.gui.shell.studio import Studio
from tests.gui.conftest import PATIENCE

Wait = Callable[[], None]
BAD = "model.layers.1.mlp.up_proj"


def shown(studio: Studio) -> list[str]:
    return [card.message.title for card in studio.commands.window.cards.shown]


def logged(studio: Studio) -> list[str]:
    return [message.title for message in studio.commands.window.messages.items]


def write_damaged(folder: Path) -> Path:
    folder.mkdir()
    weight = np.random.default_rng(3).normal(size=(64, 64)).astype(np.float16)
    bad = weight.copy()
    bad[3, 5] = np.nan
    save_file(
        {f"model.layers.{i}.mlp.up_proj.weight": bad if i == 1 else weight for i in range(3)}, folder / "a.safetensors"
    )
    (folder / "config.json").write_text('{"architectures": ["Test"]}')
    return folder


@pytest.fixture
def failing(studio: Studio, tmp_path: Path, qtbot: QtBot, wait: Wait) -> Studio:
    """A checkpoint with a damaged layer, quantized."""
    with qtbot.waitSignal(studio.commands.opened, timeout=PATIENCE):
        studio.commands.open_path(write_damaged(tmp_path / "damaged"))
    studio.commands.perform("quantize")
    wait()
    assert studio.document.store.state[studio.document.store.index[BAD]] == FAILED
    assert shown(studio) == [f"{BAD} can not be quantized"]
    return studio


def test_a_card_about_a_layer_goes_when_the_layer_is_kept(failing: Studio) -> None:
    failing.document.set_format([BAD], "keep")
    assert shown(failing) == []
    assert f"{BAD} can not be quantized" in logged(failing)


def test_a_card_about_a_layer_goes_when_it_is_tried_again_and_comes_back_when_it_fails_again(
    failing: Studio, wait: Wait
) -> None:
    (before,) = failing.commands.window.cards.shown
    failing.commands.perform("retry")
    assert shown(failing) == []
    wait()
    assert shown(failing) == [before.message.title]
    assert failing.commands.window.cards.shown[0] is not before


def test_a_card_about_a_layer_stays_when_another_is_chosen_for(failing: Studio) -> None:
    failing.document.set_format([BAD.replace("1", "2")], "mxfp8")
    assert shown(failing) == [f"{BAD} can not be quantized"]


def test_a_card_about_a_failed_run_goes_when_a_run_of_its_kind_starts(
    studio: Studio, tmp_path: Path, wait: Wait
) -> None:
    (tmp_path / "empty").mkdir()
    studio.runs.verify(tmp_path / "empty")
    wait()
    assert shown(studio) == ["Verifying failed"]
    studio.commands.perform("quantize")
    wait()
    assert "Verifying failed" in shown(studio)
    began = []
    studio.runs.began.connect(lambda _: began.append(shown(studio)))
    studio.runs.verify(tmp_path / "empty")
    wait()
    assert began == [[]]
    assert shown(studio) == ["Verifying failed"]


def test_a_card_about_work_that_is_not_kept_goes_with_the_checkpoint_or_when_it_is_kept(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("studio.gui.keeping.shelf.Entry.write_work", full)
        studio.document.set_format(studio.document.store.names[1:2], "mxfp8")
        assert not studio.keeping.keep_now()
        assert shown(studio) == [NOT_KEPT]
    assert studio.keeping.keep_now()
    assert shown(studio) == ["Work is kept again"]


def test_what_is_told_of_a_checkpoint_while_the_next_one_is_asked_for_goes_with_it(
    studio: Studio, tmp_path: Path, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_now, waiting = studio.keeping.keep_now, [Message("warning", "Of the one before")]

    def tell_and_keep() -> bool:
        if waiting:
            studio.keeping.told.emit(waiting.pop())
        return keep_now()

    monkeypatch.setattr(studio.keeping, "keep_now", tell_and_keep)
    with qtbot.waitSignal(studio.commands.opened, timeout=PATIENCE):
        studio.checkpoints._open(write_damaged(tmp_path / "next"))
    assert "Of the one before" not in shown(studio)
    assert "Of the one before" in logged(studio)
