"""What each plot shows and tells: errors, outliers, tails, regimes."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyqtgraph as pg
import pytest
from PySide6.QtCore import QPoint, QPointF, QRectF, Qt
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from studio import core
from studio.gui.views.columns import Columns
from studio.gui.views.plot import _stamped
from studio.gui.views.scale_plot import ScalePlot
from tests.gui.conftest import PATIENCE
from tests.gui.views.data import detail, layers, many, name_of

Show = Callable[[str], Any]


def at(view: Any, index: int) -> QPointF:
    return QPointF(*view.points[index].tolist())


def on_screen(plot: Any, point: QPointF) -> QPoint:
    return plot.mapFromScene(plot.box.mapViewToScene(point))


@pytest.mark.parametrize("name", ["ErrorView", "ScatterView"])
def test_a_tooltip_names_the_layer_and_its_error(name: str, show: Show) -> None:
    view = show(name)
    view.show_results(layers())
    index = 6
    lines = view.tip_at(at(view, index))
    layer = view.columns.layers[index]
    assert lines[0] == layer.name
    assert any(f"{layer.rel_err:.4f}" in line for line in lines)
    assert any(layer.format in line for line in lines)
    assert any("rank" in line for line in lines)
    assert view.tip_at(QPointF(-1e6, -1e6)) == []


@pytest.mark.parametrize("name", ["ErrorView", "ScatterView"])
def test_real_clicks_select_and_open(name: str, show: Show, qtbot: QtBot) -> None:
    view = show(name)
    view.show_results(layers())
    place = on_screen(view.plot, at(view, 3))
    with qtbot.waitSignal(view.layers_selected) as caught:
        qtbot.mouseClick(view.plot.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert caught.args[0] == [view.columns.names[3]]
    other = on_screen(view.plot, at(view, 9))
    with qtbot.waitSignal(view.layers_selected) as caught:
        qtbot.mouseClick(
            view.plot.viewport(), Qt.MouseButton.LeftButton, Qt.KeyboardModifier.ControlModifier, pos=other
        )
    assert caught.args[0] == [view.columns.names[3], view.columns.names[9]]
    with qtbot.waitSignal(view.layer_activated) as caught:
        view.plot.box.opened.emit(at(view, 5))
    assert caught.args[0] == view.columns.names[5]


def test_dragging_draws_a_rubber_band_that_selects(show: Show, qtbot: QtBot) -> None:
    view = show("ErrorView")
    view.show_results(layers())
    viewport = view.plot.viewport()
    low, high = view.points[:5].min(axis=0), view.points[:5].max(axis=0)
    start = on_screen(view.plot, QPointF(low[0] - 0.4, low[1])) + QPoint(0, 12)
    stop = on_screen(view.plot, QPointF(high[0] + 0.4, high[1])) - QPoint(0, 12)
    with qtbot.waitSignal(view.layers_selected) as caught:
        qtbot.mousePress(viewport, Qt.MouseButton.LeftButton, pos=start)
        qtbot.mouseMove(viewport, (start + stop) / 2)
        qtbot.mouseMove(viewport, stop)
        qtbot.mouseRelease(viewport, Qt.MouseButton.LeftButton, pos=stop)
    assert set(view.columns.names[:5]) <= set(caught.args[0])
    assert len(caught.args[0]) < 14


def test_arrow_keys_walk_and_enter_opens(show: Show, qtbot: QtBot) -> None:
    view = show("ErrorView")
    view.show_results(layers())
    qtbot.keyClick(view, Qt.Key.Key_Right)
    qtbot.keyClick(view, Qt.Key.Key_Right)
    assert view.selection == [view.columns.names[1]]
    with qtbot.waitSignal(view.layer_activated) as caught:
        qtbot.keyClick(view, Qt.Key.Key_Return)
    assert caught.args[0] == view.columns.names[1]


def test_errors_are_ordered_by_block_by_kind_and_by_size(show: Show) -> None:
    view = show("ErrorView")
    view.show_results(layers())
    assert [row[0] for row in view.figure().rows] == [name_of(place) for place in range(14)]
    view.choices.order_box.setCurrentIndex(1)
    assert [row[2] for row in view.figure().rows[:4]] == ["q_proj", "q_proj", "k_proj", "k_proj"]
    view.choices.order_box.setCurrentIndex(2)
    errors = [row[5] for row in view.figure().rows]
    assert errors == sorted(errors, reverse=True)


def test_blocks_stand_in_the_order_of_their_numbers_stack_by_stack(show: Show) -> None:
    one, view = layers()[0], show("ErrorView")
    names = [f"{stack}.{block}.up_proj" for stack in ("text.layers", "vision.layers") for block in (0, 1, 10, 11, 2)]
    blocks = [int(name.split(".")[2]) for name in names]
    view.show_results([replace(one, name=name, block=block) for name, block in zip(names, blocks, strict=True)])
    shown = [row[0] for row in view.figure().rows]
    assert [name.split(".")[0] for name in shown] == ["text"] * 5 + ["vision"] * 5
    assert [int(name.split(".")[2]) for name in shown] == [0, 1, 2, 10, 11] * 2


def test_bars_are_found_under_the_mouse(show: Show) -> None:
    view = show("ErrorView")
    view.show_results(layers())
    view.set_marks("bars")
    assert view.tip_at(QPointF(4, view.points[4, 1] * 0.99))[0] == view.columns.names[4]
    assert view.tip_at(QPointF(4, view.points[4, 1] * 2)) == []


def test_the_warning_line_can_be_dragged(show: Show, qtbot: QtBot) -> None:
    view = show("ErrorView")
    view.show_results(layers())
    view.set_warning_line(0.2)
    assert view.above_line() == []
    assert "none above" in view.summary.text()
    with qtbot.waitSignal(view.warning_changed) as caught:
        view._line.setValue(view._place_of(0.01))
        view._line.sigPositionChangeFinished.emit(view._line)
    assert caught.args[0] == pytest.approx(0.01)
    assert len(view.above_line()) == 14
    assert "14 above" in view.summary.text()


def test_one_layer_that_towers_over_the_others_makes_the_axis_logarithmic(show: Show) -> None:
    view = show("ErrorView")
    view.show_results(layers())
    assert not view.logarithmic
    lost = replace(layers()[0], sum_error=layers()[0].sum_squares)
    view.show_results([lost, *layers()[1:]])
    assert view.logarithmic
    view.set_scale("zero")
    assert not view.logarithmic
    assert view.plot.box.viewRange()[1][0] == 0


def test_a_zoom_survives_new_results_and_fit_ends_it(show: Show) -> None:
    view = show("ErrorView")
    view.show_results(many(200))
    view.plot.box.setXRange(10, 20, padding=0)
    view.plot.box.sigRangeChangedManually.emit([True, False])
    view.show_results(many(200)[:150])
    assert view.plot.box.viewRange()[0] == pytest.approx([10, 20])
    view.fit()
    assert view.plot.box.viewRange()[0][1] > 140


def test_the_histogram_asks_for_one_layer_and_lays_the_result_over_it(show: Show, qtbot: QtBot) -> None:
    view = show("HistogramView")
    view.show_results(layers())
    with qtbot.waitSignal(view.detail_wanted) as caught:
        view.set_selection([name_of(0)])
    assert caught.args[0] == name_of(0)
    assert view.after is None
    view.show_detail(detail())
    assert view.after is not None
    assert int(view.after.sum()) + detail().a.zeros == detail().count
    lines = view.tip_at(QPointF(0.1, 1.0))
    assert lines[0].startswith("1 σ to")
    assert any(line.startswith("after") for line in lines)
    assert any("Gaussian" in line for line in lines)
    assert "after nvfp4-3t" in [entry.name for entry in view.legend.entries]
    with qtbot.assertNotEmitted(view.detail_wanted):
        view.set_selection([name_of(0)])
    view.set_selection([name_of(1)])
    assert view.after is None


def test_the_histogram_counts_every_weight(show: Show) -> None:
    view = show("HistogramView")
    view.show_results(layers())
    quantized = [layer for layer in layers() if layer.quantized]
    assert int(view.source.sum()) == sum(layer.count - layer.statistics.zeros for layer in quantized)
    outliers = sum(layer.statistics.outliers for layer in quantized)
    assert f"{outliers:,} of" in view.summary.text()
    view.show_results(layers()[:3])
    assert int(view.source.sum()) == sum(layer.count - layer.statistics.zeros for layer in layers()[:3])


def test_dragging_over_the_outliers_selects_the_layers_that_have_some(show: Show, qtbot: QtBot) -> None:
    view = show("HistogramView")
    plain = replace(
        layers()[0],
        name="plain",
        statistics=replace(layers()[0].statistics, histogram=(0,) * 40 + (1,) * 8 + (0,) * 32),
    )
    view.show_results([plain, *layers()[1:]])
    with qtbot.waitSignal(view.layers_selected) as caught:
        view.plot.box.banded.emit(QRectF(np.log2(6), 0, 5, 5), False)
    assert "plain" not in caught.args[0]
    assert name_of(1) in caught.args[0]


def test_the_tail_shows_all_layers_and_the_heaviest_or_the_selected_ones(show: Show, qtbot: QtBot) -> None:
    view = show("TailView")
    view.show_results(layers())
    assert len(view.curves) == 4
    assert view.curves[0].name == ""
    view.set_selection([name_of(2), name_of(3)])
    assert [curve.name for curve in view.curves] == [name_of(2), name_of(3)]
    curve = view.curves[0]
    point = QPointF(float(curve.x[-1]), float(curve.y[-1]))
    assert view.tip_at(point)[0] == name_of(2)
    with qtbot.waitSignal(view.layers_selected) as caught:
        view.plot.box.picked.emit(point, False)
    assert caught.args[0] == [name_of(2)]
    view.set_selection([name_of(0)])
    coarse = len(view.curves[0].x)
    view.show_detail(detail())
    assert len(view.curves[0].x) > coarse


def test_the_scatter_says_how_far_errors_follow_outliers(show: Show) -> None:
    view = show("ScatterView")
    rising = []
    for place, layer in enumerate(many(50)):
        statistics = replace(layer.statistics, max_abs=layer.statistics.sigma * (5 + place))
        rising.append(replace(layer, statistics=statistics, sum_error=layer.sum_squares * (0.09 + 0.001 * place) ** 2))
    view.show_results(rising)
    assert "+1.00: errors follow outliers" in view.summary.text()


def test_zones_are_named_where_there_is_room(show: Show, qtbot: QtBot) -> None:
    view = show("RegimeView")
    view.show_results(layers())
    plot = view.plots[0]
    for height, names in ((900, 4), (320, 1), (900, 4)):
        view.resize(700, height)
        qtbot.waitUntil(lambda names=names: sum(text[:1].isalpha() for text in texts_of(plot)) == names)


def texts_of(plot: ScalePlot) -> list[str]:
    return [item.textItem.toPlainText() for item in plot.plotItem.items if isinstance(item, pg.TextItem)]


def test_regimes_are_estimated_at_once_and_exact_with_the_detail(show: Show, qtbot: QtBot) -> None:
    view = show("RegimeView")
    view.show_results(layers())
    assert view.tiers.layers == 14
    assert view.sentence.text() == view.tiers.sentence() == view.accessibleDescription()
    assert not view.tiers.two.exact
    with qtbot.waitSignal(view.detail_wanted) as caught:
        view.set_selection([name_of(0)])
    assert caught.args[0] == name_of(0)
    assert view.tiers.layers == 1
    view.show_detail(detail())
    assert view.tiers is detail().tiers
    assert view.sentence.text().startswith("Small weights")
    assert "Dead zone" in view.note.text()
    bars = view.bars.bars
    assert [bar.measured for bar in bars] == pytest.approx([detail().b.rel_err, detail().a.rel_err])


@pytest.mark.parametrize("width", [180, 300, 600])
def test_labels_of_zones_do_not_lie_on_each_other(width: int, show: Show) -> None:
    view = show("RegimeView")
    view.show_results(layers())
    plot = view.plots[0]
    plot.setFixedSize(width, 220)
    QApplication.processEvents()
    shown = [label for label, _, _ in plot._labels if label.toPlainText()]
    places = [label.sceneBoundingRect().adjusted(4, 4, -4, -4) for label in shown]  # without the margins
    assert len(places) >= 2
    assert not [1 for a, b in pairwise(places) if a.intersects(b)]


def test_a_scale_tells_its_byte_its_zone_and_its_blocks(show: Show) -> None:
    view = show("RegimeView")
    view.show_results(layers())
    plot = view.plots[0]
    byte = int(plot.regime.counts.argmax())
    from studio.gui.views.scale_plot import PLACES

    lines = plot.tip_at(QPointF(float(PLACES[byte]) + 0.1, 1))
    assert f"0x{byte:02X}" in lines[0]
    assert f"{int(plot.regime.counts[byte]):,} blocks" in lines[1]
    assert plot.tip_at(QPointF(-5, 1)) == []


def test_dragging_over_scales_selects_the_layers_that_have_them(show: Show, qtbot: QtBot) -> None:
    from studio.gui.views.scale_plot import PLACES

    view = show("RegimeView")
    counts = [0] * 256
    counts[3] = 10
    odd = replace(layers()[0], name="odd", scale_counts=tuple(counts))
    view.show_results([odd, *layers()[1:]])
    with qtbot.waitSignal(view.layers_selected) as caught:
        view.plots[1].box.banded.emit(QRectF(float(PLACES[3]) + 0.5, 0, 1, 1), False)
    assert caught.args[0] == ["odd"]


def test_regimes_of_many_layers_are_worked_out_in_slices(show: Show, qtbot: QtBot) -> None:
    view = show("RegimeView")
    view.show_results(many(400))
    assert view.tiers.layers < 400
    qtbot.waitUntil(lambda: view.tiers.layers == 400, timeout=PATIENCE)
    assert core.estimate(many(400)).two.counts.tolist() == pytest.approx(view.tiers.two.counts.tolist(), abs=20)


def test_thousands_of_dots_are_where_the_mouse_finds_them_in_their_colours(show: Show) -> None:
    view = show("ErrorView")
    view.set_marks("dots")
    view.show_results(many(3000))
    view.grab()
    picture = view.plot.grab().toImage()
    shown = 0
    for index in range(0, 3000, 50):
        place = on_screen(view.plot, at(view, index))
        wanted = {entry.color for entry, members in view._groups if index in members}
        around = {picture.pixelColor(place.x() + dx, place.y() + dy).name() for dx in (-1, 0, 1) for dy in (-1, 0, 1)}
        shown += bool(wanted & around)  # dots that lie below others show theirs
    assert shown > 40, shown
    view.set_selection([view.columns.names[i] for i in range(1000, 1400)])
    faded = view.plot.grab().toImage()
    assert faded != picture


def test_dots_outside_the_picture_are_left_out_and_the_others_are_round() -> None:
    centres = np.array([[5, 4], [-3, 4], [400, 4], [19, 9]])
    image = _stamped(centres, np.array([0xFF0000FF, 0xFFFF0000, 0xFF00FF00, 0xFFFF0000], np.uint32), 2.0, 20, 10)
    assert image.pixelColor(5, 4).name() == "#0000ff"
    assert image.pixelColor(19, 9).name() == "#ff0000"
    assert [image.pixelColor(x, 4).alpha() for x in (2, 3, 4, 6, 7, 8)] == [0, 128, 255, 255, 128, 0]
    assert image.pixelColor(7, 6).alpha() == 0
    assert image.pixelColor(0, 4).alpha() == 0


def test_columns_take_what_is_new_and_forget_what_is_gone() -> None:
    columns, results = Columns(), [*layers()]
    half, changed = results[::2], replace(results[4], format="mxfp8", sum_error=results[4].sum_error * 4)
    for now in (half, results, [changed if r is results[4] else r for r in results], results[:3], []):
        assert columns.update(now)
        assert not columns.update(list(now))
        fresh = Columns()
        fresh.update(now)
        shown = [r for r in now if r.quantized]
        assert columns.names == [r.name for r in shown]
        assert columns.error.tolist() == [r.rel_err for r in shown] == fresh.error.tolist()
        assert [columns.formats[i] for i in columns.format_of] == [r.format for r in shown]
        assert columns.formats == list(dict.fromkeys(r.format for r in shown))
        assert [columns.kinds[i] for i in columns.kind_of] == [fresh.kinds[i] for i in fresh.kind_of]
        assert columns.indices([r.name for r in shown][-2:]).tolist() == list(range(len(shown)))[-2:]


def test_bars_stand_on_zero_so_that_their_lengths_can_be_compared(show: Show) -> None:
    view = show("ErrorView")
    view.show_results(many(50))
    assert view.plot.box.viewRange()[1][0] > 0.05
    view.set_marks("bars")
    assert view.plot.box.viewRange()[1][0] == 0.0


@pytest.mark.parametrize(("name", "item"), [("ErrorView", pg.InfiniteLine), ("RegimeView", pg.LinearRegionItem)])
def test_what_does_not_depend_on_results_is_not_drawn_again_with_each_of_them(
    name: str, item: type, show: Show
) -> None:
    view = show(name)
    results = layers()
    view.show_results(results)
    plot = view.plot if name == "ErrorView" else view.plots[0]
    before = [found for found in plot.plotItem.items if isinstance(found, item)]
    assert len(before) > 1
    view.show_results([replace(layer, sum_error=2 * layer.sum_error) for layer in results])
    assert [found for found in plot.plotItem.items if isinstance(found, item)] == before
