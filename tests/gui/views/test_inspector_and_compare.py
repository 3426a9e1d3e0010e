"""The inspector: from the tail down to one block, A beside B; and the comparison of two sides."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QPointF, Qt
from PySide6.QtGui import QImage
from pytestqt.qtbot import QtBot

from studio import core
from studio.gui.shell.theme import DARK, LIGHT
from tests.gui.views.data import (
    COLUMNS,
    ROWS,
    block,
    detail,
    detail_alone,
    detail_int8,
    detail_kept,
    layers,
    layers_in_mxfp4,
    many,
    name_of,
)

Show = Callable[[str], Any]


@pytest.fixture
def inspector(show: Show) -> Any:
    view = show("InspectorView")
    view.show_results(layers())
    view.show_detail(detail())
    return view


@pytest.fixture
def compare(show: Show) -> Any:
    view = show("CompareView")
    view.show_comparison(core.compare("mxfp4", layers_in_mxfp4(), "nvfp4-3t", layers()))
    return view


def test_selecting_a_layer_asks_for_its_detail(show: Show, qtbot: QtBot) -> None:
    view = show("InspectorView")
    assert "press Enter" in view.empty.text()
    with qtbot.waitSignal(view.detail_wanted) as caught, qtbot.assertNotEmitted(view.layers_selected):
        view.set_selection([name_of(0), name_of(1)])
    assert caught.args[0] == name_of(1)
    view.busy("Reading …")
    assert view.empty.text() == "Reading …"
    view.show_detail(detail())
    assert view.stack.currentWidget() is view.body
    with qtbot.assertNotEmitted(view.detail_wanted):
        view.set_selection([name_of(0)])


def test_the_head_names_the_layer_and_both_errors(inspector: Any) -> None:
    assert inspector.head.text() == name_of(0).removeprefix("model.")
    assert f"A nvfp4-3t/max {detail().a.rel_err:.4f}" in inspector.summary.text()
    assert f"B nvfp4-2t/max {detail().b.rel_err:.4f}" in inspector.summary.text()
    assert "σ" in inspector.summary.text()
    assert inspector.other_box.currentData() == "nvfp4-2t"


def test_panels_without_data_are_not_shown(inspector: Any) -> None:
    inspector.show_detail(detail_alone())
    assert inspector.map_a.isVisible()
    assert not inspector.map_b.isVisible()
    inspector.show_detail(detail_kept())
    assert not inspector.map_a.isVisible()
    assert not inspector.block.isVisible()
    assert inspector.tail.isVisible()
    assert "kept as it is" in inspector.summary.text()
    inspector.show_detail(detail_int8())
    assert inspector.codes.isVisible()
    inspector.show_detail(None)
    assert inspector.stack.currentWidget() is inspector.empty


def test_every_panel_tells_what_is_under_the_mouse(inspector: Any) -> None:
    assert "of the weights" in inspector.tail.tip_at(QPointF(1, 0))[1]
    assert "dead zone" in inspector.within.tip_at(QPointF(0.02, 0))[2]
    codes = inspector.codes.tip_at(QPointF(2.1, 1))
    assert codes[0] == "code value 1"
    assert f"{detail().a.uses[2]:,} weights" in codes[1]
    assert f"row {int(detail().a.row_order[0]):,}" in inspector.by_row.tip_at(QPointF(0, 0))[1]
    assert inspector.map_a.tip_at(QPointF(20, 3))[0] == "row 3, column 20"
    assert inspector.map_a.tip_at(QPointF(20, 10**6)) == []


def test_a_click_on_the_map_asks_for_the_block_there(inspector: Any, qtbot: QtBot) -> None:
    with qtbot.waitSignal(inspector.block_wanted) as caught:
        inspector.map_b.plot.box.picked.emit(QPointF(37.5, 3.5), False)
    assert caught.args == [name_of(0), 0, 3, 2]
    inspector.show_block(block())
    assert inspector.block.title.text() == "Row 3, columns 32 to 47"
    assert f"scale {block().scale:.4g}" in inspector.block.facts.text()
    assert inspector.block.tip_at(QPointF(1, 0))[0] == "column 33"
    assert f"{block().decoded[1]:.6g}" in inspector.block.tip_at(QPointF(1, 0))[1]


def test_the_worst_block_is_shown_first_and_the_others_are_stepped_through(show: Show, qtbot: QtBot) -> None:
    inspector, worst = show("InspectorView"), detail().a.worst
    inspector.show_results(layers())
    with qtbot.waitSignal(inspector.block_wanted) as caught:
        inspector.show_detail(detail())
    assert caught.args == [name_of(0), worst[0].matrix, worst[0].row, worst[0].block]
    assert not inspector.block.previous.isEnabled()
    with qtbot.waitSignal(inspector.block_wanted) as caught:
        qtbot.mouseClick(inspector.block.next, Qt.MouseButton.LeftButton)
    assert caught.args[2:] == [worst[1].row, worst[1].block]
    with qtbot.waitSignal(inspector.block_wanted) as caught:
        qtbot.mouseClick(inspector.block.previous, Qt.MouseButton.LeftButton)
    assert caught.args[2:] == [worst[0].row, worst[0].block]


def test_a_block_of_another_layer_or_format_is_not_shown(inspector: Any) -> None:
    inspector.show_detail(detail_int8())
    inspector.show_block(block())
    assert inspector.block.block is None


def test_holding_the_key_shows_b_in_the_place_of_a(inspector: Any, qtbot: QtBot) -> None:
    assert "A, nvfp4-3t" in inspector.map_a.title.text()
    qtbot.keyPress(inspector, Qt.Key.Key_Backslash)
    assert "B, nvfp4-2t" in inspector.map_a.title.text()
    qtbot.keyRelease(inspector, Qt.Key.Key_Backslash)
    assert "A, nvfp4-3t" in inspector.map_a.title.text()


def test_the_maps_zoom_together_on_one_scale(inspector: Any) -> None:
    inspector.map_a.plot.box.setRange(xRange=(10, 40), yRange=(5, 15), padding=0)
    for shown, wanted in zip(inspector.map_b.plot.box.viewRange(), ((10, 40), (5, 15)), strict=True):
        assert shown == pytest.approx(wanted, abs=1)
    scales = [panel.key.accessibleName() for panel in (inspector.map_a, inspector.map_b)]
    assert scales[0] == scales[1]
    inspector.fit()
    assert inspector.map_a.plot.box.viewRange()[1] == pytest.approx([0, ROWS])
    assert inspector.map_a.plot.box.viewRange()[0] == pytest.approx([0, COLUMNS])


def test_another_format_can_be_chosen_beside(inspector: Any, qtbot: QtBot) -> None:
    place = inspector.other_box.findData("mxfp8")
    with qtbot.waitSignal(inspector.other_wanted) as caught:
        inspector.other_box.setCurrentIndex(place)
        inspector.other_box.activated.emit(place)
    assert caught.args == [name_of(0), "mxfp8"]


def test_a_change_of_format_asks_again(inspector: Any, qtbot: QtBot) -> None:
    with qtbot.waitSignal(inspector.detail_wanted) as caught:
        inspector.show_results(layers_in_mxfp4())
    assert caught.args[0] == name_of(0)


@pytest.mark.parametrize("numbers", ["rows", "codes", "block", "tail"])
def test_all_numbers_can_be_saved(inspector: Any, numbers: str, tmp_path: Path) -> None:
    inspector.show_block(block())
    inspector.set_numbers(numbers)
    inspector.save(tmp_path / "numbers.csv")
    heads, *rows = csv.reader((tmp_path / "numbers.csv").read_text("utf-8").splitlines())
    assert len(heads) >= 2
    assert len(rows) == {"rows": ROWS, "codes": 8, "block": 16, "tail": 160}[numbers]
    inspector.set_table_shown(True)
    assert inspector.table.model().rowCount() == len(rows)


def test_all_panels_are_in_the_picture(inspector: Any, tmp_path: Path) -> None:
    inspector.resize(480, 300)
    inspector.save(tmp_path / "layer.png")
    assert inspector.caption().lines[-1].startswith(f"{detail().name}: A nvfp4-3t")
    assert QImage(str(tmp_path / "layer.png")).height() > 2 * 1000


def test_sides_are_chosen_and_swapped(show: Show, qtbot: QtBot) -> None:
    view = show("CompareView")
    view.set_sides([("now", "this plan"), ("f:mxfp4", "all in mxfp4"), ("f:mxfp8", "all in mxfp8")])
    view.b_box.setCurrentIndex(2)
    with qtbot.waitSignal(view.sides_wanted) as caught:
        view.b_box.activated.emit(2)
    assert caught.args == ["now", "f:mxfp8"]
    assert "Comparing" in view.empty.text()
    with qtbot.waitSignal(view.sides_wanted) as caught:
        qtbot.keyClick(view, Qt.Key.Key_X)
    assert caught.args == ["f:mxfp8", "now"]
    view.set_sides([("now", "this plan"), ("f:mxfp8", "all in mxfp8")])
    assert (view.a_box.currentData(), view.b_box.currentData()) == ("f:mxfp8", "now")
    with qtbot.waitSignal(view.sides_wanted):
        qtbot.mouseClick(view.go_button, Qt.MouseButton.LeftButton)


def test_a_sentence_sums_the_comparison_up(compare: Any) -> None:
    assert compare.sentence.text().startswith("B is better on 14 of 14 layers, median error")
    assert compare.tip(0)[0] == compare.comparison.pairs[0].name
    assert any("mxfp4" in line for line in compare.tip(0))


def test_b_is_applied_where_it_gains_enough(compare: Any, qtbot: QtBot) -> None:
    gains = sorted(pair.gain for pair in compare.comparison.pairs)
    compare.gain_box.setValue(round(100 * (gains[6] + gains[7]) / 2, 1))
    assert compare.apply_button.text() == "Use B for 7 layers"
    with qtbot.waitSignal(compare.apply_wanted) as caught:
        qtbot.mouseClick(compare.apply_button, Qt.MouseButton.LeftButton)
    assert len(caught.args[0]) == 7
    assert set(caught.args[0].values()) == {"nvfp4-3t"}
    compare.gain_box.setValue(99)
    assert not compare.apply_button.isEnabled()
    with qtbot.waitSignal(compare.apply_wanted) as caught:
        qtbot.mouseClick(compare.all_button, Qt.MouseButton.LeftButton)
    assert len(caught.args[0]) == 14


def test_rows_of_the_comparison_select_layers(compare: Any, qtbot: QtBot) -> None:
    with qtbot.waitSignal(compare.layers_selected) as caught:
        compare.dumbbells.plot.box.picked.emit(QPointF(0.1, 2.2), False)
    assert caught.args[0] == [compare.comparison.pairs[2].name]
    with qtbot.assertNotEmitted(compare.layers_selected):
        compare.set_selection([name_of(1)])
    with qtbot.waitSignal(compare.layer_activated) as caught:
        compare.dumbbells.plot.box.opened.emit(QPointF(0.1, 0))
    assert caught.args[0] == compare.comparison.pairs[0].name


def test_sides_with_nothing_in_common_say_so(show: Show) -> None:
    view = show("CompareView")
    view.show_comparison(core.compare("a", layers(), "b", []))
    assert view.empty.text() == "A and B have no quantized layer in common."
    view.show_comparison(None)
    assert "Choose A and B" in view.empty.text()


def test_the_comparison_is_saved(compare: Any, tmp_path: Path) -> None:
    for suffix in (".png", ".svg", ".csv"):
        compare.save(tmp_path / f"compare{suffix}")
    rows = list(csv.DictReader((tmp_path / "compare.csv").read_text("utf-8").splitlines()))
    assert len(rows) == 14
    assert float(rows[0]["gain, %"]) >= float(rows[-1]["gain, %"])
    for theme in (DARK, LIGHT.with_font(24)):
        compare.set_theme(theme)


def test_ten_thousand_pairs_scroll(show: Show) -> None:
    view = show("CompareView")
    view.show_comparison(core.compare("a", many(10_000), "b", many(10_000)))
    assert view.dumbbells.bar.maximum() > 9_900
    view.dumbbells.bar.setValue(5_000)
    low, high = view.dumbbells.plot.box.viewRange()[1]
    assert low == pytest.approx(4999.3)
    assert high < 5_100
