"""The title of an axis is never cut off by the edge of its plot."""

from collections.abc import Callable
from typing import Any

import pytest
from pytestqt.qtbot import QtBot

from studio.gui.views.plot import Plot
from tests.gui.conftest import PATIENCE
from tests.gui.views.data import layers

Show = Callable[[str], Any]
TITLE = "|w| in multiples of σ, the layer's standard deviation"
LENGTHS = {1200: TITLE, 330: "|w| in multiples of σ", 150: "|w| in multiples of σ"}


@pytest.mark.parametrize("width", LENGTHS)
def test_a_title_too_long_loses_what_follows_its_comma_and_is_cut_then(qtbot: QtBot, width: int) -> None:
    plot = Plot(TITLE, "a < b")
    qtbot.addWidget(plot)
    plot.resize(width, 200)
    plot.show()
    qtbot.waitExposed(plot)
    shown = plot.x_axis.title
    assert shown == LENGTHS[width] or (width == 150 and LENGTHS[width].startswith(shown.removesuffix("…")))
    assert shown.endswith("…") == (width == 150)
    assert plot.x_axis.label.boundingRect().width() <= plot.x_axis.size().width()
    assert plot.x_axis.label.toPlainText() == plot.x_axis.title
    assert plot.y_axis.label.toPlainText() == "a < b"


@pytest.mark.parametrize("name", ["HistogramView", "TailView", "ScatterView", "ErrorView"])
def test_titles_follow_the_size_of_a_view(name: str, show: Show, qtbot: QtBot) -> None:
    view = show(name)
    view.show_results(layers())
    whole = view.plot.x_axis.title
    for width, height in ((260, 180), (700, 420)):
        view.resize(width, height)
        for axis, length in ((view.plot.x_axis, "width"), (view.plot.y_axis, "height")):
            qtbot.waitUntil(lambda axis=axis, length=length: fits(axis, length), timeout=PATIENCE)
    qtbot.waitUntil(lambda: view.plot.x_axis.title == whole, timeout=PATIENCE)


def fits(axis: Any, length: str) -> bool:
    return bool(axis.label.boundingRect().width() <= getattr(axis.size(), length)())
