"""How the table was divided, what was folded, and steps taken while a checkpoint is read: all of it comes back."""

from pathlib import Path

import numpy as np
import pytest
from PySide6.QtWidgets import QToolButton
from pytestqt.qtbot import QtBot

from studio import core
from studio.gui.keeping import recall
from studio.gui.keeping.shelf import Shelf
from studio.gui.layers.columns import KEYS
from studio.gui.shell.commands import Commands
from studio.gui.shell.studio import Studio
from tests.benchmarks.window_cases import expert_checkpoint
from tests.core.checkpoints import checkpoint, llama
from tests.gui.conftest import PATIENCE
from tests.gui.keeping.test_sessions import open_again, open_path

BLOCKS, EXPERTS = 3, 12


@pytest.fixture
def experts(commands: Commands, qtbot: QtBot, tmp_path: Path) -> Studio:
    studio = commands.studio
    assert studio is not None
    open_path(studio, qtbot, expert_checkpoint(tmp_path / "experts", BLOCKS, EXPERTS))
    return studio


def rows(studio: Studio) -> list[str]:
    table = studio.workspace.layers.table
    return [str(table.index(row, 0).data()) for row in range(table.rowCount())]


def test_folded_blocks_and_unfolded_experts_come_back(experts: Studio, qtbot: QtBot) -> None:
    table = experts.workspace.layers.table
    first = rows(experts).index("     ▸ mlp.experts.0")
    table.fold([table.group_of(first)], folded=False)
    table.fold([table.group_of(rows(experts).index("▾ model.layers.2"))], folded=True)
    before = rows(experts)
    assert "     ▾ mlp.experts.0" in before
    assert "▸ model.layers.2" in before
    open_again(experts, qtbot)
    assert rows(experts) == before


def test_lines_for_kinds_come_back_with_the_one_that_was_unfolded(experts: Studio, qtbot: QtBot) -> None:
    experts.commands.perform("by_kind")
    table = experts.workspace.layers.table
    table.fold([table.group_of(0)], folded=False)
    before = rows(experts)
    open_again(experts, qtbot)
    assert rows(experts) == before
    assert experts.commands.window.actions_of["by_kind"].isChecked()


def test_columns_that_the_user_hid_stay_hidden_and_the_others_come_where_there_is_room(
    experts: Studio, qtbot: QtBot
) -> None:
    view = experts.workspace.layers
    view.say_columns({"expert": False, "snr": True})
    open_again(experts, qtbot)
    assert view.said_columns == {"expert": False, "snr": True}
    assert view.isColumnHidden(KEYS.index("expert"))
    assert not view.isColumnHidden(KEYS.index("snr"))
    experts.commands.perform("reset_layout")
    assert view.said_columns == {}


def test_a_step_back_while_the_checkpoint_is_read_again_stays(studio: Studio, qtbot: QtBot) -> None:
    document = studio.document
    document.set_format(document.store.names[3:6], "mxfp8")
    with qtbot.waitSignal(studio.commands.opened, timeout=PATIENCE):
        studio.commands.perform("reload")
        document.undo.undo()
    assert not document.state.edits
    assert document.undo.redoText() == "mxfp8 for 3 layers"


def test_choices_follow_their_layers_when_others_come_before_them(tmp_path: Path) -> None:
    with core.open_model(checkpoint(tmp_path / "small", llama(1))) as small:
        work = recall.fresh_work().resolved(small)
        names = work.now.edits.names
        chosen = work.now.edits.changed(np.arange(len(names)), 0)
        assert len(chosen) == len(names) > 0
        with core.open_model(checkpoint(tmp_path / "large", llama(2))) as large:
            state = type(work.now)(work.now.plan, work.now.rules, chosen)
            found = type(work)((state,)).resolved(large).now.edits
    assert dict(found) == dict(chosen)
    assert len(found.names) > len(names)


def test_what_nobody_wants_any_more_lets_go_of_its_lock(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf")
    *_, found = recall.opening(checkpoint(tmp_path / "model", llama(1)), shelf, None, None)
    assert found is not None
    assert shelf.forget() == 1
    found.close()
    assert shelf.forget() == 0


def test_the_button_that_clears_the_filter_has_a_name_while_it_fades(studio: Studio) -> None:
    field = studio.workspace.filter_bar.field
    field.setText("mlp")
    field.clear()
    assert [button.accessibleName() for button in field.findChildren(QToolButton)] == ["Clear the filter"]
