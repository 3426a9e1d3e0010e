"""The table of a mixture of experts: two levels of heads, numbers in their order, names that can be told apart."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QItemSelectionModel, Qt
from PySide6.QtGui import QFontMetrics
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from studio import core
from studio.gui.layers.columns import KEYS
from studio.gui.layers.layer_delegate import shortened
from studio.gui.shell.commands import Commands
from studio.gui.shell.studio import Studio
from tests.benchmarks.window_cases import expert_checkpoint
from tests.gui.conftest import PATIENCE, give_focus

BLOCKS, EXPERTS = 3, 12
OWN = 9
"""Layers of a block that belong to no expert."""


def opened(commands: Commands, qtbot: QtBot, path: Path) -> Studio:
    studio = commands.studio
    assert studio is not None
    with qtbot.waitSignal(commands.opened, timeout=PATIENCE):
        commands.open_path(path)
    return studio


@pytest.fixture
def experts(commands: Commands, qtbot: QtBot, tmp_path: Path) -> Studio:
    return opened(commands, qtbot, expert_checkpoint(tmp_path / "experts", BLOCKS, EXPERTS))


def names_shown(studio: Studio) -> list[str]:
    table = studio.workspace.layers.table
    return [str(table.index(row, 0).data()).strip() for row in range(table.rowCount())]


def row_called(studio: Studio, name: str) -> int:
    return names_shown(studio).index(name)


def test_experts_stand_below_their_block_in_the_order_of_their_numbers(experts: Studio) -> None:
    heads = [name for name in names_shown(experts) if "experts" in name]
    assert heads == [f"▸ mlp.experts.{number}" for number in range(EXPERTS)] * BLOCKS
    first = row_called(experts, "▾ model.layers.0")
    assert names_shown(experts)[first + 1 + OWN] == "▸ mlp.experts.0"


def test_an_expert_unfolds_and_folds_and_then_its_block_does(experts: Studio, qtbot: QtBot) -> None:
    view = experts.workspace.layers
    rows = view.table.rowCount()
    view.setCurrentIndex(view.table.index(row_called(experts, "▸ mlp.experts.10"), 0))
    qtbot.keyClick(view, Qt.Key.Key_Right)
    at = row_called(experts, "▾ mlp.experts.10")
    assert names_shown(experts)[at + 1 : at + 4] == ["down_proj", "gate_proj", "up_proj"]
    qtbot.keyClick(view, Qt.Key.Key_Left)
    assert view.table.rowCount() == rows
    qtbot.keyClick(view, Qt.Key.Key_Left)
    assert view.table.rowCount() == rows - OWN - EXPERTS
    assert "▸ model.layers.0" in names_shown(experts)


def test_a_filter_shows_what_it_finds_in_folded_experts_one_line_each(experts: Studio) -> None:
    experts.workspace.filter_bar.field.setText("block:1 expert:9-11 gate_proj")
    assert names_shown(experts) == ["▾ model.layers.1", *(f"mlp.experts.{n}.gate_proj" for n in (9, 10, 11))]


def test_selecting_one_layer_elsewhere_unfolds_its_expert(experts: Studio) -> None:
    wanted = "model.layers.1.mlp.experts.7.up_proj"
    experts.workspace.views["ErrorView"].layers_selected.emit([wanted])
    view = experts.workspace.layers
    row = view.table.row_of(experts.document.store.index[wanted])
    assert row is not None
    assert [index.row() for index in view.selectionModel().selectedRows()] == [row]


def test_block_and_expert_have_columns_that_sort_by_number(experts: Studio) -> None:
    view = experts.workspace.layers
    view.horizontalHeader().sectionClicked.emit(KEYS.index("expert"))
    assert not view.isColumnHidden(KEYS.index("block"))
    assert not view.isColumnHidden(KEYS.index("expert"))
    shown = [view.table.index(row, KEYS.index("expert")).data() for row in range(view.table.rowCount())]
    known = [int(text) for text in shown if text]
    assert known == sorted(known)
    assert max(known) == EXPERTS - 1


def test_a_model_without_experts_has_no_column_for_them(studio: Studio) -> None:
    view = studio.workspace.layers
    view.horizontalHeader().sectionClicked.emit(KEYS.index("block"))
    assert view.isColumnHidden(KEYS.index("expert"))
    assert not view.isColumnHidden(KEYS.index("block"))


def test_names_sort_two_before_ten(experts: Studio) -> None:
    table = experts.workspace.layers.table
    table.sort_by(KEYS.index("name"))
    gates = [name for name in names_shown(experts) if name.startswith("model.layers.2") and "gate_proj" in name]
    assert gates == [f"model.layers.2.mlp.experts.{number}.gate_proj" for number in range(EXPERTS)]


@pytest.mark.usefixtures("qapp")
@pytest.mark.parametrize("characters", [12, 20, 30])
def test_a_short_name_keeps_its_end(characters: int) -> None:
    metrics = QFontMetrics(QApplication.font())
    width = metrics.horizontalAdvance("m" * characters)
    name = "     ▾ model.language_model.layers.12.mlp.experts.101.gate_proj"
    text = shortened(name, metrics, width)
    assert metrics.horizontalAdvance(text) <= width
    assert text.startswith("     ▾ …")
    assert text.endswith("gate_proj"[-characters + 9 :])


@pytest.mark.usefixtures("qapp")
@pytest.mark.parametrize("name", ["▾ outside blocks", "     post_attention_layernorm"])
def test_a_name_of_one_part_keeps_its_beginning_and_its_end(name: str) -> None:
    text = shortened(
        name, QFontMetrics(QApplication.font()), QFontMetrics(QApplication.font()).horizontalAdvance(name) - 9
    )
    beginning, end = text.split("…")
    assert name.startswith(beginning)
    assert name.endswith(end)
    assert beginning.strip(" ▾")
    assert end


def test_layers_of_a_kind_are_summed_up_in_a_line(experts: Studio) -> None:
    document = experts.document
    order = document.order()
    errors = dict(zip(order.choices, np.linspace(0.0, 1.0, len(order.choices)), strict=True))
    document.take(order, [_result(choice, errors[name]) for name, choice in order.choices.items()])
    experts.commands.perform("by_kind")
    table = experts.workspace.layers.table
    row = row_called(experts, "▸ gate_proj")
    cell = lambda key: table.index(row, KEYS.index(key)).data()  # noqa: E731
    worst = max(error for name, error in errors.items() if name.endswith("gate_proj")) ** 0.5
    assert cell("shape") == f"{BLOCKS * EXPERTS} layers"
    assert cell("err") == f"≤ {worst:.4f}"
    assert float(cell("bits")) == pytest.approx(document.store.bits[document.store.index[_GATE]], abs=0.01)
    about = table.index(row, 0).data(Qt.ItemDataRole.AccessibleDescriptionRole)
    assert about.startswith(f"gate_proj: {BLOCKS * EXPERTS} layers\n")
    assert f"worst {worst:.4f}" in about
    view = experts.workspace.layers
    assert [view.isColumnHidden(KEYS.index(key)) for key in ("block", "expert", "shape")] == [True, True, False]
    assert experts.commands.window.actions_of["by_kind"].isChecked()
    experts.commands.perform("by_kind")
    assert "▾ model.layers.0" in names_shown(experts)


_GATE = "model.layers.0.mlp.experts.0.gate_proj"


def _result(choice: core.Choice, error: float) -> core.LayerResult:
    layer = choice.layer
    sizes = (layer.count, layer.nbytes, choice.nbytes)
    head = (layer.name, layer.role, layer.block, layer.tensor.dtype, layer.shape, choice.format, "")
    return core.LayerResult(*head, *sizes, choice.method, sum_squares=1.0, sum_error=error)


def test_enter_shows_the_current_layer_and_leaves_the_selection(experts: Studio, qtbot: QtBot) -> None:
    view, document = experts.workspace.layers, experts.document
    experts.commands.perform("unfold_all")
    row = row_called(experts, "▾ mlp.experts.3")
    view.setCurrentIndex(view.table.index(row + 1, 0))
    flags = QItemSelectionModel.SelectionFlag
    for step in (2, 3):
        view.selectionModel().setCurrentIndex(view.table.index(row + step, 0), flags.Select | flags.Rows)
    before = set(document.selection)
    give_focus(qtbot, view)
    qtbot.keyClick(view, Qt.Key.Key_Return)
    assert set(document.selection) == before
    assert len(before) == 3
    assert document.current == "model.layers.0.mlp.experts.3.up_proj"
    assert experts.workspace.pages.currentWidget() is experts.workspace.views["InspectorView"]


def test_a_layer_taken_out_of_a_selected_block_stays_out(experts: Studio, qtbot: QtBot) -> None:
    view, document = experts.workspace.layers, experts.document
    view.selectRow(row_called(experts, "▾ model.layers.1"))
    whole = len(document.selection)
    assert whole == OWN + 3 * EXPERTS
    qtbot.waitUntil(lambda: view.visualRect(view.table.index(0, 0)).isValid())
    for gone, name in enumerate(("self_attn.q_proj", "self_attn.k_proj"), 1):
        row = view.table.row_of(document.store.index[f"model.layers.1.{name}"])
        view.scrollTo(view.table.index(row, 0))
        place = view.visualRect(view.table.index(row, 0)).center()
        qtbot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, Qt.KeyboardModifier.ControlModifier, place)
        assert len(document.selection) == whole - gone
        assert f"model.layers.1.{name}" not in document.selection


def test_a_head_taken_out_of_the_selection_takes_its_layers_along(experts: Studio, qtbot: QtBot) -> None:
    view, document = experts.workspace.layers, experts.document
    experts.commands.perform("select_all")
    row = row_called(experts, "▸ mlp.experts.2")
    view.scrollTo(view.table.index(row, 0))
    place = view.visualRect(view.table.index(row, KEYS.index("format"))).center()
    qtbot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, Qt.KeyboardModifier.ControlModifier, place)
    left = set(document.store.names) - set(document.selection)
    assert left == {f"model.layers.0.mlp.experts.2.{leaf}_proj" for leaf in ("down", "gate", "up")}


def test_choosing_for_all_layers_costs_no_work_per_layer(commands: Commands, qtbot: QtBot, tmp_path: Path) -> None:
    steps = ("select_all", "format:mxfp8", "undo", "redo", "clear")
    calls = {}
    for blocks in (2, 8):
        studio = opened(commands, qtbot, expert_checkpoint(tmp_path / str(blocks), blocks, EXPERTS))
        calls[blocks] = [_calls(lambda key=key: commands.perform(key)) for key in steps]
        calls[blocks].append(_calls(studio.document.order))
        assert studio.document.store.formats.count("mxfp8") == blocks * (3 * EXPERTS + 5) + 2
    for key, few, many in zip((*steps, "order"), calls[2], calls[8], strict=True):
        assert many < 1.3 * few + 40, f"{key}: {few} calls for 2 blocks, {many} for 8"


def _calls(work: Callable[[], object]) -> int:
    """How many functions Python calls while it does `work`."""
    count = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_what_a_run_works_on_is_what_was_chosen_when_it_started(
    commands: Commands, qtbot: QtBot, tmp_path: Path
) -> None:
    document = opened(commands, qtbot, expert_checkpoint(tmp_path / "few", 1, EXPERTS)).document
    order = document.order()
    left = [i for i, choice in enumerate(document.choices) if choice.recipe is not None]
    chosen = {document.store.names[i]: (document.choices[i], document.peers(document.store.names[i])) for i in left}
    document.set_format(document.store.names, "mxfp8")
    assert dict(order.choices) == {name: choice for name, (choice, _) in chosen.items()}
    assert dict(order.peers) == {name: peers for name, (_, peers) in chosen.items()}
    assert "no such layer" not in order.choices
    kept = next(name for name in document.store.names if name not in chosen)
    assert kept not in order.choices
