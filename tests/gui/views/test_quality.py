"""The quality view: bars with whiskers, numbers, words."""

import csv
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtGui import QImage
from pytestqt.qtbot import QtBot

from studio import core
from studio.gui.shell.theme import DARK
from studio.gui.views.quality_bars import AGAINST_SOURCE, PERPLEXITY, metrics_of, span
from tests.gui.quality_data import SOURCE, row

ROWS = [row("The plan", 0.054, 0.079, 0.851), row("mxfp4 max", 0.367, 0.3312, 0.71, "mxfp4", "max")]
ABOUT = "32 × 512 tokens of prose.txt."


@pytest.fixture
def view(show: Callable[[str], Any]) -> Any:
    return show("QualityView")


def test_each_metric_starts_at_what_the_source_has_and_longer_is_worse() -> None:
    better, worse = ROWS
    for metric in AGAINST_SOURCE:
        losses = [metric.loss(one) for one in (better, worse)]
        assert losses[0] is not None
        assert losses[1] is not None
        assert 0 < losses[0][0] < losses[1][0]
    texts = [metric.text(better) for metric in AGAINST_SOURCE]
    assert texts == ["5.4 ± 1.2", "0.0790 ± 0.0040", "85.1 ± 0.6"]
    assert AGAINST_SOURCE[2].loss(better) == pytest.approx((14.9, 0.6))


def test_without_a_source_perplexity_is_what_is_shown() -> None:
    assert metrics_of([SOURCE]) == (PERPLEXITY,)
    assert metrics_of(ROWS) == AGAINST_SOURCE
    assert PERPLEXITY.text(replace(SOURCE, perplexity=core.Estimate(18.2))) == "18.20"


def test_an_axis_holds_zero_and_whiskers_and_leaves_out_what_is_no_number() -> None:
    assert span([(5.0, 1.0), (math.inf, 0.0), (math.nan, 1.0)]) == (0.0, 6.0)
    assert span([(-0.5, 0.2)]) == (-0.7, 0.0)
    assert span([]) == (0.0, 1.0)


def test_bars_and_numbers_take_the_place_of_the_empty_text(view: Any) -> None:
    assert view.stack.currentWidget() is view.empty
    view.show_evaluated(SOURCE, ROWS, ABOUT, ["mxfp8 max"])
    assert view.stack.currentWidget() is view.body
    assert view.summary.text() == ABOUT
    assert view.bars.waiting == ("mxfp8 max",)
    assert "The plan: Perplexity above source, % 5.4 ± 1.2" in view.accessibleDescription()
    model = view.numbers.model()
    assert [model.index(r, 0).data() for r in range(model.rowCount())] == ["demo", "The plan", "mxfp4 max"]
    view.show_nothing("Not evaluated: no room.")
    assert view.stack.currentWidget() is view.empty
    assert view.empty.text() == "Not evaluated: no room."


@pytest.mark.parametrize(("width", "tops"), [(900, 1), (420, 1), (300, 3)])
def test_plots_stand_side_by_side_where_there_is_room(view: Any, width: int, tops: int, qtbot: QtBot) -> None:
    view.show_evaluated(SOURCE, ROWS, ABOUT)
    view.resize(width, 700)
    qtbot.waitUntil(lambda: len({place.y() for _, place, _ in view.bars._places()}) == tops)
    assert view.bars.minimumHeight() <= view.bars.height()
    last = view.bars._places()[-1][1]
    assert last.bottom() <= view.bars.minimumHeight()
    assert last.right() <= view.bars.width()


def test_the_row_under_the_mouse_is_found(view: Any) -> None:
    view.show_evaluated(SOURCE, ROWS, ABOUT)
    bars = view.bars
    _, place, lines = bars._places()[0]
    first = place.y() + lines * bars._text() + 6
    found = [bars.row_at(first + (number + 0.5) * bars._step()) for number in range(-1, 3)]
    assert found == [None, ROWS[0], ROWS[1], None]


def test_a_whisker_is_drawn_as_long_as_the_noise(view: Any) -> None:
    def ink(noise: float) -> int:
        one = replace(ROWS[0], increase=core.Estimate(0.1, noise), kl=core.Estimate(0.1), top1=core.Estimate(0.9))
        view.show_evaluated(SOURCE, [one], ABOUT)
        image = view.bars.grab().toImage()
        _, place, lines = view.bars._places()[0]
        y = round(place.y() + lines * view.bars._text() + 6 + view.bars._step() / 2)
        ends = range(int(place.x()) + 4, int(place.right() - 90))  # without the axis and the digits
        return sum(min(image.pixelColor(x, y + near).blue() for near in (-1, 0)) < 120 for x in ends)

    assert ink(0.08) > ink(0.02) + 10


def test_models_that_predict_no_number_are_shown_as_such(view: Any) -> None:
    lost = replace(
        ROWS[0], increase=core.Estimate(math.inf), kl=core.Estimate(math.nan), perplexity=core.Estimate(math.inf)
    )
    view.show_evaluated(SOURCE, [lost, ROWS[1]], ABOUT)
    view.grab()
    assert "no number" in view.bars.accessibleDescription()


def test_names_are_plain_text(view: Any) -> None:
    view.show_evaluated(SOURCE, [replace(ROWS[0], name="<b>\x1b[31m")], ABOUT)
    assert "\x1b" not in view.bars.accessibleDescription()
    assert view.numbers.model().index(1, 0).data() == core.printable("<b>\x1b[31m")


def test_numbers_and_pictures_are_saved(view: Any, tmp_path: Path) -> None:
    view.show_evaluated(SOURCE, [ROWS[0], replace(ROWS[1], kl_difference=core.Estimate(0.25, 0.01))], ABOUT)
    view.save(tmp_path / "quality.csv")
    heads, *rows = csv.reader((tmp_path / "quality.csv").read_text("utf-8").splitlines())
    told = [dict(zip(heads, one, strict=True)) for one in rows]
    assert [one["model"] for one in told] == ["demo", "The plan", "mxfp4 max"]
    assert told[1]["KL to source, nats per token"] == "0.079"
    assert told[1]["noise of top-1, %"] == "0.6"
    assert [one["KL above that of the first, nats per token"] for one in told] == ["", "", "0.25"]
    assert told[0]["KL to source, nats per token"] == ""
    view.save(tmp_path / "quality.png")
    assert QImage(str(tmp_path / "quality.png")).width() > 100


def test_another_theme_redraws(view: Any) -> None:
    view.show_evaluated(SOURCE, ROWS, ABOUT)
    before = view.bars.grab().toImage()
    view.set_theme(DARK)
    assert view.bars.grab().toImage() != before
