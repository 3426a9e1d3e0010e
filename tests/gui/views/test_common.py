"""Every view: results in, selection out, pictures and numbers saved, a word when there is nothing to show."""

import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from studio import core
from studio.gui import views
from studio.gui.shell.theme import DARK, LIGHT
from tests.gui.views.data import layers, many

RESULT_VIEWS = ("ErrorView", "HistogramView", "TailView", "ScatterView", "RegimeView")
SECONDS_FOR_MANY = 5.0


@pytest.fixture(params=RESULT_VIEWS)
def view(request: pytest.FixtureRequest, show: Callable[[str], Any]) -> Any:
    return show(request.param)


def test_views_are_imported_only_when_they_are_asked_for() -> None:
    import subprocess
    import sys

    code = "import sys, studio.gui.views; sys.exit('pyqtgraph' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError):
        _ = views.NoSuchView


def test_an_empty_view_says_what_comes_next(view: Any) -> None:
    assert view.stack.currentWidget() is view.empty
    assert "Ctrl+Return" in view.empty.text()
    view.show_results([])
    view.show_detail(None)
    view.set_selection([])
    assert view.accessibleDescription() == view.empty.text()
    assert not view.plotted, "a plot takes as long as a window"


def test_results_fill_the_view_and_taking_them_away_empties_it(view: Any) -> None:
    view.show_results(layers())
    assert view.stack.currentWidget() is view.body
    assert view.summary.text()
    assert view.accessibleName()
    assert view.accessibleDescription()
    view.show_results([])
    assert view.stack.currentWidget() is view.empty


def test_set_selection_emits_nothing(view: Any, qtbot: QtBot) -> None:
    found = layers()
    view.show_results(found)
    with qtbot.assertNotEmitted(view.layers_selected):
        view.set_selection([found[1].name])
        view.set_selection([found[0].name, found[2].name])
        view.set_selection(["not.there"])
        view.set_selection([])


def test_a_rubber_band_over_all_selects_all(view: Any, qtbot: QtBot) -> None:
    found = layers()
    view.show_results(found)
    plot = view.plots[1] if hasattr(view, "plots") else view.plot
    with qtbot.waitSignal(view.layers_selected) as caught:
        plot.box.banded.emit(QRectF(-1000, -1000, 3000, 3000), False)
    assert sorted(caught.args[0]) == sorted(layer.name for layer in found if layer.quantized)
    assert view.selection == caught.args[0]


def test_pictures_are_saved(view: Any, tmp_path: Path) -> None:
    view.show_results(layers())
    view.save(tmp_path / "plot.png")
    image = QImage(str(tmp_path / "plot.png"))
    assert image.width() == 2 * view.body.width()
    colors = {image.pixel(x, y) for x in range(0, image.width(), 5) for y in range(0, image.height(), 5)}
    assert len(colors) > 8
    view.save(tmp_path / "plot.svg")
    text = (tmp_path / "plot.svg").read_text("utf-8")
    assert text.startswith("<?xml")
    assert view.TITLE in text
    assert text.count("<path") + text.count("<polyline") + text.count("<rect") > 5


def test_numbers_are_saved_as_csv_and_shown_as_a_table(view: Any, tmp_path: Path) -> None:
    view.show_results(layers())
    view.save(tmp_path / "plot.csv")
    heads, *rows = csv.reader((tmp_path / "plot.csv").read_text("utf-8").splitlines())
    figure = view.figure()
    assert heads == list(figure.heads)
    assert len(rows) == len(figure.rows) > 5
    view.set_table_shown(True)
    assert view.stack.currentWidget() is view.table
    model = view.table.model()
    assert (model.rowCount(), model.columnCount()) == (len(rows), len(heads))
    assert model.headerData(0, Qt.Orientation.Horizontal).lower() == heads[0].lower()
    assert model.index(0, 0).data()
    view.set_table_shown(False)
    assert view.stack.currentWidget() is view.body


def test_other_files_are_refused(view: Any, tmp_path: Path) -> None:
    view.show_results(layers())
    with pytest.raises(ValueError, match="png"):
        view.save(tmp_path / "plot.pdf")
    with pytest.raises(OSError, match="nowhere"):
        view.save(tmp_path / "nowhere" / "plot.png")


def test_what_can_not_be_saved_is_said(view: Any, tmp_path: Path, qtbot: QtBot) -> None:
    view.show_results(layers())
    with qtbot.waitSignal(view.save_failed) as caught:
        view.save_or_tell(tmp_path / "nowhere" / "plot.svg")
    assert caught.args[0].startswith("plot.svg could not be written")
    assert view.summary.text() == caught.args[0]


def test_a_picture_goes_to_the_clipboard(view: Any, qapp: QApplication) -> None:
    view.show_results(layers())
    view.copy_image()
    assert not qapp.clipboard().image().isNull()


def test_themes_and_text_sizes_can_change_at_any_time(view: Any) -> None:
    for theme in (DARK, LIGHT.with_font(24), DARK.with_font(10), LIGHT):
        view.set_theme(theme)
    view.show_results(layers())
    for theme in (DARK.with_font(24), LIGHT):
        view.set_theme(theme)
        assert view.grab().toImage().width() > 0


def test_ten_thousand_layers_take_little_time(view: Any, qapp: QApplication) -> None:
    found = many(10_000)
    started = time.thread_time()
    view.show_results(found)
    qapp.processEvents()
    view.set_selection([found[5].name, found[500].name])
    view.show_results([*found])
    qapp.processEvents()
    assert time.thread_time() - started < SECONDS_FOR_MANY


def test_a_hidden_view_draws_once_it_is_shown(view: Any) -> None:
    view.hide()
    view.show_results(layers())
    assert view.stack.currentWidget() is view.empty
    view.show()
    assert view.stack.currentWidget() is view.body


def test_hostile_names_are_shown_as_text(view: Any) -> None:
    from dataclasses import replace

    name = "<img src='file:///nowhere.png'>\n\u202eproj"
    view.show_results([replace(layers()[0], name=name), *layers()[1:]])
    view.set_selection([name])
    shown = [view.summary.text(), *(entry.name for entry in view.legend.entries)]
    assert not any("\n" in text or "\u202e" in text for text in shown)
    view.set_table_shown(True)
    cells = [view.table.model().index(row, 0).data() for row in range(view.table.model().rowCount())]
    assert not any("\u202e" in cell for cell in cells)
    assert view.grab().toImage().width() > 0


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_a_small_view_stays_usable(view: Any, theme: Any) -> None:
    view.set_theme(theme)
    view.show_results(layers())
    view.resize(view.minimumSizeHint().expandedTo(view.minimumSize()))
    assert view.width() <= 480
    assert view.height() <= 300
    assert view.grab().toImage().width() > 0


def test_kept_layers_are_not_drawn(show: Callable[[str], Any]) -> None:
    view = show("ErrorView")
    view.show_results(layers())
    assert len(view.columns) == sum(layer.quantized for layer in layers())
    assert core.KEEP not in view.columns.formats
