"""Rows of an evaluation: what they hold, as JSON and back, and the limits they are held to."""

import json
import math

import pytest

from studio.core.quality.metrics import Tally
from studio.core.quality.results import Quality, Subject, Text, evaluated, exceeded

SOURCE = [Tally(10, 10.0), Tally(10, 20.0)]
WINDOWS = [Tally(10, 11.0, 0.5, 9), Tally(10, 21.0, 1.5, 8)]
FINER = [Tally(10, 10.5, 0.1, 10), Tally(10, 20.5, 0.3, 9)]


def quality(*windows: list[Tally]) -> Quality:
    rows = [
        evaluated(Subject(f"m{i}", "nvfp4-3t", "max"), each, 1.5, SOURCE, windows[0]) for i, each in enumerate(windows)
    ]
    text = Text("eval.txt", "0" * 64, 2, 11, 0)
    return Quality(tuple(rows), evaluated(Subject("source"), SOURCE, 1.0), text, "mlx-lm", "0.32.2", 3.0)


def test_a_row_has_every_figure_with_its_noise() -> None:
    row = quality(WINDOWS, FINER).models[1]
    assert row.tokens == 20
    assert row.perplexity.value == pytest.approx(math.exp(1.55))
    assert row.increase is not None
    assert row.increase.value == pytest.approx(math.expm1(0.05))
    assert row.kl is not None
    assert row.kl.value == pytest.approx(0.02)
    assert row.kl_difference is not None
    assert row.kl_difference.value == pytest.approx(-0.08)
    assert row.top1 is not None
    assert row.top1.value == pytest.approx(0.95)
    assert all(found.noise is not None for found in (row.perplexity, row.kl, row.top1))


def test_json_gives_the_same_evaluation_back() -> None:
    found = quality(WINDOWS, FINER)
    assert Quality.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found


def test_without_a_source_only_perplexity_is_told() -> None:
    row = evaluated(Subject("alone"), WINDOWS, 1.0)
    data = row.to_json()
    assert data["perplexity"]["value"] == pytest.approx(math.exp(1.6))
    assert [data[key] for key in ("increase", "kl", "top1", "kl_difference")] == [None] * 4


def test_limits_name_the_models_that_do_not_keep_them() -> None:
    found = quality(WINDOWS, FINER)
    assert exceeded(found) == []
    assert exceeded(found, max_kl=0.1, max_increase=0.2) == []
    assert [sentence.partition(":")[0] for sentence in exceeded(found, max_kl=0.05)] == ["m0"]
    assert [sentence.partition(":")[0] for sentence in exceeded(found, max_increase=0.01)] == ["m0", "m1"]


def test_a_figure_that_is_no_number_keeps_no_limit() -> None:
    broken = quality([Tally(10, math.nan, math.nan, 0), Tally(10, 1.0, 0.0, 0)])
    assert len(exceeded(broken, max_kl=1e9, max_increase=1e9)) == 2
    assert json.dumps(broken.to_json(), allow_nan=False)
