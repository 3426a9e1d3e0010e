"""The error plot when layers are too many for a mark each: boxes by block or kind, and a map of experts."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyqtgraph as pg
import pytest
from PySide6.QtCore import QPoint, QPointF, QRectF, Qt
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from studio.gui.views.boxes import QUARTERS, Boxes, grouped
from studio.gui.views.columns import Columns
from studio.gui.views.error_range import error_range
from studio.gui.views.experts import WORST, ExpertMap, numbered
from studio.gui.views.sections import sections
from tests.gui.views.data import EXPERTS, KINDS, MIXTURE_BLOCKS, layers, many, mixture

Show = Callable[[str], Any]
PER_BLOCK = 4 + 3 * EXPERTS


def on_screen(view: Any, x: float, y: float) -> QPoint:
    place: QPoint = view.plot.mapFromScene(view.plot.box.mapViewToScene(QPointF(x, y)))
    return place


def columns_of(results: Any) -> Columns:
    columns = Columns()
    columns.update(results)
    return columns


@pytest.mark.parametrize(("count", "marks"), [(14, "dots"), (399, "dots"), (896, "boxes")])
def test_each_layer_has_a_mark_until_there_are_too_many(count: int, marks: str, show: Show) -> None:
    view = show("ErrorView")
    view.show_results(many(count))
    assert view.marks == marks
    for chosen in ("dots", "bars", "boxes"):
        view.set_marks(chosen)
        assert view.marks == chosen
    view.choices.order_box.setCurrentIndex(2)
    assert view.marks == "dots"


def test_boxes_are_the_quantiles_that_numpy_finds() -> None:
    rng = np.random.default_rng(3)
    group = rng.integers(0, 12, 500) * 3  # some numbers do not occur
    group[:1] = 99
    values = rng.normal(size=500)
    found = grouped(values, group)
    for place, number in enumerate(np.unique(group)):
        mine = values[group == number]
        assert found.quantiles[place] == pytest.approx(np.quantile(mine, QUARTERS))
        assert sorted(found.members(place)) == np.flatnonzero(group == number).tolist()


def test_a_click_on_a_box_takes_the_layers_of_its_block(show: Show, qtbot: QtBot) -> None:
    view = show("ErrorView")
    view.show_results(many(896))
    median = float(view.drawing.groups.quantiles[30, 2])
    lines = view.tip_at(QPointF(30, median))
    assert lines[0] == "block 30: 7 layers"
    assert f"{median:.4f}" in lines[1]
    worst = max((layer for layer in many(896) if layer.block == 30), key=lambda layer: layer.rel_err)
    assert lines[3] == f"largest {worst.rel_err:.4f}  {worst.name}"
    with qtbot.waitSignal(view.layers_selected) as caught:
        qtbot.mouseClick(view.plot.viewport(), Qt.MouseButton.LeftButton, pos=on_screen(view, 30, median))
    assert caught.args[0] == [layer.name for layer in many(896) if layer.block == 30]
    assert view.tip_at(QPointF(30, 5.0)) == []


def test_boxes_by_kind_have_the_colours_of_the_kinds(show: Show) -> None:
    view = show("ErrorView")
    view.show_results(many(896))
    view.choices.order_box.setCurrentIndex(1)
    assert view.tip_at(QPointF(6, float(view.drawing.groups.quantiles[6, 2])))[0] == "down_proj: 128 layers"
    kinds = {entry.name: entry.color for entry in view.legend.entries if entry.name in KINDS}
    assert kinds == {name: view.theme.kinds[name.removesuffix("_proj")] for name in kinds if len(name) > 6} | {
        "q_proj": view.theme.kinds["query"],
        "k_proj": view.theme.kinds["key"],
        "v_proj": view.theme.kinds["value"],
        "o_proj": view.theme.kinds["output"],
    }


def test_zoomed_blocks_come_apart_into_kinds_and_together_again(show: Show) -> None:
    view = show("ErrorView")
    view.show_results(many(896))
    assert not view.drawing.split
    view.plot.box.setXRange(10, 14, padding=0)
    view.plot.box.sigRangeChangedManually.emit([True, False])  # as the wheel does: after the range
    assert view.drawing.split
    assert view.plot.box.viewRange()[0] == pytest.approx([10, 14])
    lines = view.tip_at(QPointF(*view.points[7 * 12 + 6].tolist()))
    assert lines[0].startswith("model.layers.12.")
    view.fit()
    assert not view.drawing.split


def test_a_rubber_band_takes_the_layers_with_errors_inside(show: Show, qtbot: QtBot) -> None:
    view = show("ErrorView")
    view.show_results(many(896))
    with qtbot.waitSignal(view.layers_selected) as caught:
        view.plot.box.banded.emit(QRectF(9.7, 0.1, 2.6, 1.0), False)
    wanted = [layer.name for layer in many(896) if layer.block in (10, 11, 12) and layer.rel_err >= 0.1]
    assert caught.args[0] == wanted
    assert wanted


def test_a_mixture_is_a_map_of_blocks_and_experts(show: Show, qtbot: QtBot) -> None:
    view = show("ErrorView")
    found = mixture()
    view.show_results(found)
    assert view.marks == "experts"
    assert view.drawing.cells.shape == (MIXTURE_BLOCKS, EXPERTS)
    assert view.key.isVisible()
    assert not view.legend.isVisible()
    assert "193 more under Boxes" in view.summary.text()
    lines = view.tip_at(QPointF(9, 7))
    assert lines[0] == "model.layers.7.mlp.experts.9"
    assert [line.split()[0] for line in lines[1:4]] == ["gate_proj", "up_proj", "down_proj"]
    assert "rank 1 of" in lines[3]
    assert "above the line" in lines[3]
    with qtbot.waitSignal(view.layers_selected) as caught:
        qtbot.mouseClick(view.plot.viewport(), Qt.MouseButton.LeftButton, pos=on_screen(view, 9, 7))
    assert caught.args[0] == [f"model.layers.7.mlp.experts.9.{kind}" for kind in KINDS[4:]]


def test_the_map_shows_one_kind_when_it_is_chosen(show: Show) -> None:
    view = show("ErrorView")
    view.show_results(mixture())
    box = view.choices.kind_box
    assert [box.itemText(i) for i in range(box.count())] == [WORST, *KINDS[4:]]
    view.choices.kind_box.setCurrentIndex(2)
    wanted = next(r for r in mixture() if r.name == "model.layers.3.mlp.experts.4.up_proj")
    assert view.drawing.cells[3, 4] == wanted.rel_err
    assert view.layers_at(QPointF(4, 3)) == [list(mixture()).index(wanted)]
    assert "up_proj" in view.key.accessibleName()
    view.show_results(mixture()[:-1])
    assert view.choices.kind == "up_proj"


def test_the_colours_of_the_map_run_from_the_least_to_the_largest_error(show: Show) -> None:
    view = show("ErrorView")
    view.show_results(mixture())
    view.grab()
    picture = view.plot.grab().toImage()
    shades = pg.colormap.get("viridis").getLookupTable(nPts=256)
    cells = view.drawing.cells
    for place, shade in ((cells.argmin(), shades[0]), (cells.argmax(), shades[-1])):
        row, column = divmod(int(place), EXPERTS)
        color = picture.pixelColor(on_screen(view, column, row))
        assert [color.red(), color.green(), color.blue()] == pytest.approx(shade.tolist(), abs=2)
    assert f"dark {cells.min():.4f}" in view.key.accessibleName()
    assert "or more" in view.key.accessibleName()


def test_experts_that_are_not_quantized_yet_are_empty_cells(show: Show) -> None:
    view = show("ErrorView")
    view.show_results([layer for layer in mixture() if ".9.mlp.experts.3." not in layer.name])
    assert np.isnan(view.drawing.cells[9, 3])
    assert view.tip_at(QPointF(3, 9)) == []
    view.grab()
    color = view.plot.grab().toImage().pixelColor(on_screen(view, 3, 9))
    assert color.name() == view.theme.surface


def test_sparse_numbers_of_experts_take_no_room() -> None:
    some = [replace(layer, name=layer.name.replace(".experts.2.", ".experts.999999999.")) for layer in mixture(2, 3)]
    drawn = ExpertMap(columns_of(some), WORST)
    assert drawn.cells.shape == (2, 3)
    assert numbered([0, 1, 999_999_999])(-0.5, 2.5, 5) == [(0.0, "0"), (1.0, "1"), (2.0, "999999999")]


def test_a_map_of_experts_is_offered_only_where_there_are_some(show: Show) -> None:
    view = show("ErrorView")
    view.show_results(layers())
    last = view.choices.marks_box.model().item(4)
    assert not last.isEnabled()
    view.set_marks("experts")
    assert view.marks == "dots"
    view.show_results(mixture(2, 3))
    assert last.isEnabled()
    assert view.marks == "experts"
    view.show_results([])
    view.show_results(layers())
    assert view.marks == "dots"
    assert view.choices.order_box.isVisible()


def test_selected_layers_stand_out_in_boxes_and_in_the_map(show: Show) -> None:
    view = show("ErrorView")
    view.show_results(mixture())
    for marks in ("experts", "boxes"):
        view.set_marks(marks)
        view.set_selection([])
        plain = view.plot.grab().toImage()
        view.set_selection([layer.name for layer in mixture() if layer.block == 3])
        QApplication.processEvents()
        assert view.plot.grab().toImage() != plain


def test_a_box_of_one_kind_alone_has_the_place_of_its_kind() -> None:
    columns = columns_of(mixture(3, 2))
    drawn = Boxes(columns, sections(columns, "block"), "kind", split=True, log=False)
    down = columns.kinds.index("down_proj")
    mine = drawn.x[drawn.part == down] - drawn.section[drawn.part == down]
    assert mine == pytest.approx(np.full(3, mine[0]))


def test_the_plot_fits_the_errors_and_marks_a_warning_line_that_is_far_off(show: Show) -> None:
    view = show("ErrorView")
    view.show_results(layers())
    errors = view.columns.error
    view.set_warning_line(0.5)
    low, high = view.plot.box.viewRange()[1]
    assert high - low < 1.5 * np.ptp(errors)
    line = view._line
    assert low < line.value() < high
    assert line.label.toPlainText() == "warn above 0.500  ↑ above the plot"
    view.set_warning_line(0.001)
    assert line.label.toPlainText() == "warn above 0.001  ↓ below the plot"
    view.set_warning_line(float(errors.max()) * 1.005)
    view.fit()
    assert line.value() == pytest.approx(float(errors.max()) * 1.005)
    assert "the plot" not in line.label.toPlainText()


def test_the_mark_of_a_far_line_can_be_dragged_into_the_plot(show: Show, qtbot: QtBot) -> None:
    view = show("ErrorView")
    view.show_results(layers())
    view.set_warning_line(0.5)
    view.grab()
    low, high = view.plot.box.viewRange()[1]
    viewport, aim = view.plot.viewport(), low + 0.75 * (high - low)
    start, stop = on_screen(view, 1.5, view._line.value()), on_screen(view, 1.5, aim)
    with qtbot.waitSignal(view.warning_changed) as caught:
        qtbot.mouseMove(viewport, start)
        qtbot.mousePress(viewport, Qt.MouseButton.LeftButton, pos=start)
        for place in ((start + stop) / 2, stop):
            qtbot.wait(30)  # pyqtgraph leaves out what comes too fast
            qtbot.mouseMove(viewport, place)
        qtbot.mouseRelease(viewport, Qt.MouseButton.LeftButton, pos=stop)
    assert caught.args[0] == pytest.approx(aim, abs=0.05 * (high - low))
    assert f"{len(view.above_line())} above the line" in view.summary.text()


def test_a_double_click_on_the_mark_shows_where_the_line_is(show: Show, qtbot: QtBot) -> None:
    view = show("ErrorView")
    view.show_results(layers())
    view.set_warning_line(0.5)
    view.grab()
    place = on_screen(view, 1.5, view._line.value())
    qtbot.mouseMove(view.plot.viewport(), place)
    qtbot.mouseDClick(view.plot.viewport(), Qt.MouseButton.LeftButton, pos=place)
    qtbot.mouseRelease(view.plot.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert view.plot.box.viewRange()[1][1] > 0.5
    assert view._line.value() == 0.5


@pytest.mark.parametrize("line", [0.0, 0.05, 0.093, 0.2, 0.9])
def test_the_data_take_most_of_the_axis_wherever_the_line_is(line: float) -> None:
    for from_zero in (False, True):
        bottom, top = error_range(0.09, 0.1, line, from_zero=from_zero)
        assert bottom <= 0.09
        assert top >= 0.1
        assert (0.1 - (0.0 if from_zero else 0.09)) / (top - bottom) > 0.6
        low, high = error_range(0.09, 0.1, line, from_zero=from_zero, with_line=True)
        assert low <= line <= high


@pytest.mark.parametrize("make", [lambda: many(47_000), lambda: mixture(61, 256)], ids=["dense", "mixture"])
def test_ten_new_results_among_forty_seven_thousand_are_drawn_at_once(make: Callable[[], Any], show: Show) -> None:
    view, results = show("ErrorView"), make()
    view.show_results(results[:-10])
    QApplication.processEvents()
    began = time.thread_time()
    view.show_results(results)
    QApplication.processEvents()
    assert time.thread_time() - began < 0.5  # 0.05 on an idle machine


def test_a_zoom_ends_when_layers_become_boxes_because_the_axis_is_another(show: Show) -> None:
    view = show("ErrorView")
    view.show_results(many(300))
    view.plot.box.setXRange(10, 20, padding=0)
    view.plot.box.sigRangeChangedManually.emit([True, False])
    view.show_results(many(896))
    assert view.plot.box.viewRange()[0] == pytest.approx([-0.6, 127.6])


def test_a_double_click_on_a_box_or_a_cell_opens_its_worst_layer(show: Show, qtbot: QtBot) -> None:
    view = show("ErrorView")
    view.show_results(mixture())
    for marks, place in (("experts", QPointF(9, 7)), ("boxes", QPointF(7, 0.1))):
        view.set_marks(marks)
        with qtbot.waitSignal(view.layer_activated) as caught:
            view.plot.box.opened.emit(place)
        assert caught.args[0] == "model.layers.7.mlp.experts.9.down_proj"
