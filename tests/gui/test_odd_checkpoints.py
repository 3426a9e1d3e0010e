"""The window on checkpoints with nothing to quantize: they open, and can be looked at."""

from pathlib import Path

import numpy as np
import pytest
from pytestqt.qtbot import QtBot

from studio.gui.shell.commands import Commands
from tests.core.checkpoints import BF16, Tensors, checkpoint, gaussian
from tests.gui.conftest import PATIENCE

NOTHING: dict[str, Tensors] = {
    "no tensors": {},
    "norms alone": {"model.norm.weight": np.ones(64, BF16)},
    "no width that fits": {"model.layers.0.mlp.up_proj.weight": gaussian(8, 20)},
}


@pytest.mark.parametrize("case", NOTHING)
def test_a_checkpoint_with_nothing_to_quantize_opens(
    commands: Commands, qtbot: QtBot, tmp_path: Path, case: str
) -> None:
    commands.open_path(checkpoint(tmp_path / "model", NOTHING[case]))
    qtbot.waitUntil(
        lambda: commands.studio is not None and commands.studio.document.model is not None, timeout=PATIENCE
    )
    assert commands.studio is not None
    assert len(commands.studio.document.model.layers) == len(NOTHING[case])
    assert not any(message.tone == "error" for message in commands.window.messages.items)
