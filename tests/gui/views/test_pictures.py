"""Copied and saved plots tell on their own what they show: model, plan, summary, legend, axes with units."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyqtgraph as pg
import pytest
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QApplication

from studio import core
from studio.gui.shell.studio import Studio
from studio.gui.shell.theme import DARK, LIGHT
from studio.gui.views.picture import PIXELS
from tests.gui.views.data import layers, mixture

Show = Callable[[str], Any]
PLOTS = ("ErrorView", "HistogramView", "TailView", "ScatterView", "RegimeView")


def colors_of(image: QImage, top: int, bottom: int) -> set[str]:
    """Colours between two rows, in points."""
    rows = range(top * PIXELS, bottom * PIXELS)
    return {image.pixelColor(x, y).name() for x in range(0, image.width(), 2) for y in rows}


def above_plot(view: Any) -> set[str]:
    image = view.picture().image()
    return colors_of(image, 0, image.height() // PIXELS - view.canvas().height())


@pytest.mark.parametrize("name", PLOTS)
def test_a_picture_names_the_model_and_the_plan(name: str, show: Show, tmp_path: Path) -> None:
    view = show(name)
    view.subject = lambda: ("Quokka-7B", "linear plan, format nvfp4-3t")
    view.show_results(layers())
    caption = view.caption()
    assert caption.title == f"{view.TITLE} - Quokka-7B"
    assert caption.lines == ("linear plan, format nvfp4-3t", view.summary.text())
    view.save(tmp_path / "plot.svg")
    assert "Quokka-7B" in (tmp_path / "plot.svg").read_text("utf-8")
    assert view.picture().size().height() > view.canvas().height() + 3 * view.theme.font_px


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
@pytest.mark.parametrize("name", ["ErrorView", "ScatterView", "TailView"])
def test_a_picture_has_the_legend(name: str, theme: Any, show: Show) -> None:
    view = show(name)
    view.set_theme(theme)
    view.show_results(layers())
    signs = {entry.color for entry in view.legend.entries}
    assert len(signs) > 3
    assert signs <= above_plot(view)
    assert theme.text in above_plot(view)


def test_a_picture_of_a_map_has_the_key_of_its_colours(show: Show) -> None:
    view = show("ErrorView")
    view.show_results(mixture())
    shades = {pg.colormap.get("viridis").map(step / 8, mode="qcolor").name() for step in (1, 4, 7)}
    near = above_plot(view)
    assert len(near - {view.theme.surface}) > 40
    assert all(any(_close(shade, name) for name in near) for shade in shades)


def _close(first: str, second: str) -> bool:
    return all(abs(int(first[i : i + 2], 16) - int(second[i : i + 2], 16)) < 6 for i in (1, 3, 5))


@pytest.mark.parametrize("name", PLOTS)
def test_every_axis_says_what_it_counts(name: str, show: Show) -> None:
    view = show(name)
    view.show_results(layers())
    for plot in getattr(view, "plots", None) or (view.plot,):
        assert plot.x_axis.labelText
        assert plot.y_axis.labelText


def test_a_long_summary_is_wrapped_and_not_cut(show: Show) -> None:
    view = show("ErrorView")
    view.show_results(layers())
    plain = view.picture().size().height()
    view.subject = lambda: ("model" * 60, "plan " * 80)
    assert view.picture().size().height() > plain + 5 * view.theme.font_px
    assert view.picture().size().width() == view.body.width()


def test_an_empty_plot_can_not_be_copied_or_saved(show: Show) -> None:
    view = show("ErrorView")
    for results, enabled in (((), False), (layers(), True)):
        view.show_results(results)
        view.menu.aboutToShow.emit()
        states = {action.text(): action.isEnabled() for action in view.menu.actions()}
        assert states["Copy image"] == states["Save as CSV…"] == enabled


def test_the_window_names_model_and_plan_in_every_picture(quantized: Studio, qapp: QApplication) -> None:
    views = quantized.workspace.views
    model = quantized.document.model
    assert model is not None
    assert views["ErrorView"].caption().title == f"Error by layer - {model.name}"
    assert views["ErrorView"].caption().lines[0] == f"linear plan, nvfp4-3t/{core.DEFAULT_METHOD}"
    quantized.document.set_format(quantized.document.store.names[3:5], "mxfp8")
    assert all("2 layers chosen by hand" in view.caption().text for view in views.values())
    views["ErrorView"].copy_image()
    assert not qapp.clipboard().image().isNull()
