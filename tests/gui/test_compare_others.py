"""A checkpoint of others is compared with the open one's plan: decoded, each layer against its weights."""

from pathlib import Path
from typing import Any

import pytest
from pytestqt.qtbot import QtBot

from studio import core
from studio.cli.app import main
from studio.gui.pages.comparing import CHOOSE, FORMAT, PLAN
from studio.gui.shell.studio import Studio
from tests.gui.conftest import PATIENCE


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The demo checkpoint as others write it, in three tiers."""
    folder = tmp_path / "other"
    how = ["--layout", "compressed-tensors", "--format", "nvfp4-3t", "--method", "max", "--quiet"]
    assert main(["quantize", str(core.demo_checkpoint()), str(folder), *how]) == 0
    for name in ("nvfp4_studio.json", "SHA256SUMS"):
        (folder / name).unlink()
    return folder


def compared(studio: Studio, qtbot: QtBot, folder: Path, side: str) -> Any:
    studio.workspace.show_page("compare")
    studio.comparing._take_export(folder, side, CHOOSE)
    view = studio.workspace.views["CompareView"]
    qtbot.waitUntil(lambda: view.comparison is not None, timeout=PATIENCE)
    return view


def test_a_folder_of_others_is_decoded_and_compared(studio: Studio, qtbot: QtBot, other: Path) -> None:
    view = compared(studio, qtbot, other, FORMAT + "mxfp4/max")
    comparison = view.comparison
    assert comparison.title_b == "Folder other"
    assert len(comparison.pairs) == 28
    assert comparison.better == 28
    assert all(pair.format_b == "nvfp4-3t" and 0.09 < pair.error_b < 0.11 for pair in comparison.pairs)
    assert not comparison.only_a
    assert not comparison.only_b
    assert set(comparison.worth(0.01).values()) == {"nvfp4-3t"}


def test_a_folder_of_another_model_ends_with_the_reason(studio: Studio, qtbot: QtBot, tmp_path: Path) -> None:
    from tests.core.checkpoints import checkpoint, llama

    studio.workspace.show_page("compare")
    studio.comparing._take_export(checkpoint(tmp_path / "tiny", llama(1)), PLAN, CHOOSE)
    view: Any = studio.workspace.views["CompareView"]
    qtbot.waitUntil(lambda: "ended: the message says why" in view.empty.text(), timeout=PATIENCE)
    message = studio.commands.window.messages.items[-1]
    assert message.title == "This folder can not be compared"
    assert "of shape" in message.text
