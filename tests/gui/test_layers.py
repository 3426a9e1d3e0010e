"""Finding, sorting, folding and selecting layers."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from PySide6.QtCore import QModelIndex, Qt
from PySide6.QtTest import QAbstractItemModelTester
from pytestqt.qtbot import QtBot

from studio.gui.layers.columns import COLUMNS, KEYS
from studio.gui.layers.layer_filter import FilterError, parse_filter
from studio.gui.layers.layer_table import LayerTable
from studio.gui.layers.layer_view import ROOMY_COLUMN
from studio.gui.shell.studio import Studio
from tests.gui.conftest import give_focus

Names = Callable[[str], list[str]]


def shown(studio: Studio) -> list[str]:
    table = studio.workspace.layers.table
    return [table.store.names[table.layers_of(row)[0]] for row in range(table.rowCount()) if not table.is_head(row)]


def type_filter(studio: Studio, text: str) -> None:
    studio.workspace.filter_bar.field.setText(text)


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("down_proj", lambda name: "down_proj" in name),
        ("layers.1 -mlp", lambda name: "layers.1" in name and "mlp" not in name),
        ("block:0-1", lambda name: "layers.0." in name or "layers.1." in name),
        ("block:3", lambda name: "layers.3." in name),
        ("kind:mlp.up_proj", lambda name: name.endswith("mlp.up_proj")),
        ("role:embedding", lambda name: "embed" in name),
        ("fmt:keep norm", lambda name: "norm" in name),
        ("size>2MB", lambda name: "embed" in name),
        ("status:failed", lambda _: False),
    ],
)
def test_a_filter_shows_the_layers_that_pass(studio: Studio, text: str, passes: Callable[[str], bool]) -> None:
    type_filter(studio, text)
    assert set(shown(studio)) == set(filter(passes, studio.document.store.names))


@pytest.mark.parametrize("text", ["err>", "err>big", "colour:red", "block:x", "size<<3"])
def test_a_filter_that_makes_no_sense_is_explained(text: str) -> None:
    with pytest.raises(FilterError, match='"'):
        parse_filter(text)


def test_a_wrong_filter_is_marked_and_changes_nothing(studio: Studio) -> None:
    type_filter(studio, "mlp")
    before = shown(studio)
    type_filter(studio, "mlp err>x")
    bar = studio.workspace.filter_bar
    assert shown(studio) == before
    assert bar.field.property("wrong")
    assert "err>0.11" in bar.complaint.text()


def test_a_filter_on_errors_follows_the_results(quantized: Studio) -> None:
    errors = quantized.document.store.rel_err
    middle = float(np.nanmedian(errors))
    type_filter(quantized, f"err>{middle}")
    assert len(shown(quantized)) == int((errors > middle).sum())


def test_sorting_goes_down_then_up_then_back(quantized: Studio) -> None:
    table, column = quantized.workspace.layers.table, KEYS.index("err")
    original = shown(quantized)
    known = lambda: [e for n in shown(quantized) if not math.isnan(e := table.store.rel_err[table.store.index[n]])]  # noqa: E731
    table.sort_by(column)
    assert known() == sorted(known(), reverse=True)
    table.sort_by(column)
    assert known() == sorted(known())
    table.sort_by(column)
    assert shown(quantized) == original


def test_blocks_fold_and_unfold(studio: Studio) -> None:
    table = studio.workspace.layers.table
    rows = table.rowCount()
    studio.commands.perform("fold_all")
    assert table.rowCount() == len(table.sections)
    assert all(table.is_head(row) for row in range(table.rowCount()))
    studio.commands.perform("unfold_all")
    assert table.rowCount() == rows


def test_left_folds_the_block_of_the_current_row(studio: Studio, qtbot: QtBot, names: Names) -> None:
    view = studio.workspace.layers
    studio.document.select(names("layers.2.mlp.up_proj"))
    rows = view.table.rowCount()
    qtbot.keyClick(view, Qt.Key.Key_Left)
    assert view.table.rowCount() == rows - len(names("layers.2."))
    qtbot.keyClick(view, Qt.Key.Key_Right)
    assert view.table.rowCount() == rows


def test_a_selected_block_stands_for_its_visible_layers_only(studio: Studio, qtbot: QtBot) -> None:
    type_filter(studio, "down_proj")
    view = studio.workspace.layers
    head = next(row for row in range(view.table.rowCount()) if view.table.is_head(row))
    view.selectRow(head)
    assert studio.document.selection == ["model.layers.0.mlp.down_proj"]
    give_focus(qtbot, view)
    qtbot.keyClick(view, Qt.Key.Key_4)
    changed = [
        n for n, f in zip(studio.document.store.names, studio.document.store.formats, strict=True) if f == "mxfp8"
    ]
    assert changed == ["model.layers.0.mlp.down_proj"]


def test_the_selection_survives_sorting_filtering_and_folding(studio: Studio, names: Names) -> None:
    view, chosen = studio.workspace.layers, names("layers.1.mlp")
    studio.document.select(chosen)
    view.table.sort_by(KEYS.index("size"))
    type_filter(studio, "layers.1")
    view.fold(folded=True, everywhere=True)
    assert studio.document.selection == chosen
    type_filter(studio, "")
    rows = {view.table.row_of(view.table.store.index[name]) for name in chosen}
    assert {index.row() for index in view.selectionModel().selectedRows()} == rows


def test_what_the_filter_hides_is_selected_no_longer_and_no_key_changes_it(
    studio: Studio, names: Names, qtbot: QtBot
) -> None:
    view, store = studio.workspace.layers, studio.document.store
    before = dict(zip(store.names, store.formats, strict=True))
    studio.document.select(names("mlp.down_proj"))
    type_filter(studio, "layers.1")
    assert studio.document.selection == names("layers.1.mlp.down_proj")
    give_focus(qtbot, view)
    qtbot.keyClick(view, Qt.Key.Key_4)
    changed = {name for name in store.names if store.formats[store.index[name]] != before[name]}
    assert changed == set(names("layers.1.mlp.down_proj"))
    type_filter(studio, "")
    assert studio.document.selection == names("layers.1.mlp.down_proj")


@pytest.mark.parametrize("key", ["select_kind", "select_invert", "select_all"])
def test_no_command_selects_what_the_filter_hides(studio: Studio, names: Names, key: str) -> None:
    type_filter(studio, "layers.1")
    studio.document.select(names("layers.1.mlp.up_proj"))
    studio.commands.perform(key)
    assert studio.document.selection
    assert set(studio.document.selection) <= set(names("layers.1"))


def test_a_layer_picked_in_a_plot_behind_the_filter_is_offered(studio: Studio, names: Names) -> None:
    type_filter(studio, "layers.1")
    wanted = names("layers.2.mlp.up_proj")
    studio.workspace.views["ErrorView"].layers_selected.emit(wanted)
    message = studio.commands.window.messages.items[-1]
    assert (studio.document.selection, message.title) == ([], f"The filter hides {wanted[0]}")
    message.fixes[0][1]()
    assert studio.document.selection == wanted
    assert studio.workspace.filter_bar.field.text() == ""


def test_selecting_in_the_table_tells_every_view(studio: Studio) -> None:
    told: list[list[int]] = []
    studio.document.selected.connect(lambda layers: told.append(layers.tolist()))
    view = studio.workspace.layers
    view.selectRow(2)
    assert told == [view.table.layers_of(2)]
    assert studio.workspace.views["ErrorView"].selection == studio.document.selection


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("select_kind", lambda name: name.endswith("mlp.up_proj")),
        ("select_block", lambda name: "layers.2." in name),
        ("select_invert", lambda name: not name.endswith("layers.2.mlp.up_proj")),
        ("select_all", lambda _: True),
    ],
)
def test_selections_grow(studio: Studio, names: Names, key: str, expected: Callable[[str], bool]) -> None:
    studio.document.select(names("layers.2.mlp.up_proj"))
    studio.commands.perform(key)
    assert set(studio.document.selection) == set(filter(expected, studio.document.store.names))


def test_the_model_of_the_table_keeps_the_rules_of_qt(quantized: Studio) -> None:
    table = quantized.workspace.layers.table
    tester = QAbstractItemModelTester(table, QAbstractItemModelTester.FailureReportingMode.Fatal)
    type_filter(quantized, "mlp")
    table.sort_by(KEYS.index("err"))
    table.sort_by(-1)
    table.fold([1], folded=True)
    type_filter(quantized, "")
    assert tester.model() is table


def test_cells_speak_of_states_in_words(quantized: Studio) -> None:
    table = quantized.workspace.layers.table
    column = KEYS.index("status")
    texts = {table.index(row, column).data() for row in range(table.rowCount())}
    assert {"✓ done", "○ kept"} <= texts
    quantized.document.set_format(["model.layers.1.mlp.up_proj"], "mxfp8")
    head = table.head_row(table.group_of(table.row_of(quantized.document.store.index["model.layers.1.mlp.up_proj"])))
    assert table.index(head, column).data() == "5/7 done"  # gate and up share a tensor scale


def test_every_column_reads_in_every_row(quantized: Studio) -> None:
    table = quantized.workspace.layers.table
    for row in range(table.rowCount()):
        for column in range(len(COLUMNS)):
            assert isinstance(table.index(row, column).data(), str)
            table.index(row, column).data(Qt.ItemDataRole.ToolTipRole)


def test_layers_above_the_line_carry_a_sign(quantized: Studio) -> None:
    quantized.commands.settings["warning_line"] = 0.01
    table = quantized.workspace.layers.table
    row = table.row_of(table.store.index["model.layers.0.mlp.up_proj"])
    assert row is not None
    assert table.index(row, KEYS.index("err")).data().startswith("▲ ")
    quantized.commands.perform("select_worst")
    assert len(quantized.document.selection) == 28


@pytest.mark.usefixtures("qapp")
def test_an_empty_table_is_no_trouble() -> None:
    from studio.gui.layers.document import Document

    table = LayerTable(Document())
    table.rearrange()
    assert table.rowCount(QModelIndex()) == 0


def test_an_empty_table_says_why_and_what_to_do(studio: Studio) -> None:
    layers = studio.workspace.layers
    type_filter(studio, "no such layer")
    assert layers.table.rowCount() == 0
    empty = layers.viewport().grab().toImage()
    type_filter(studio, "")
    colors = {empty.pixel(x, y) for x in range(empty.width()) for y in range(empty.height())}
    assert len(colors) > 3  # words on the ground


def test_the_shape_is_shown_where_there_is_room_and_the_name_takes_the_rest(studio: Studio) -> None:
    layers = studio.workspace.layers
    for width, shown in ((1200, True), (480, False), (1200, True)):
        layers.resize(width, 400)
        assert layers.isColumnHidden(ROOMY_COLUMN) is not shown
    assert layers.horizontalHeader().length() == layers.viewport().width()
    layers._show_column(ROOMY_COLUMN, False)
    layers.resize(1300, 400)
    assert layers.isColumnHidden(ROOMY_COLUMN)
