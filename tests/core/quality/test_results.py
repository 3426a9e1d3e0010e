"""Rows of an evaluation: what they hold, as JSON and back, and the limits they are held to."""

import json
import math
from pathlib import Path

import pytest

from studio import core
from studio.core.quality.metrics import Tally
from studio.core.quality.results import Quality, Subject, Text, evaluated, exceeded
from tests.core.checkpoints import checkpoint
from tests.core.conftest import Studio

SOURCE = [Tally(10, 10.0), Tally(10, 20.0)]
WINDOWS = [Tally(10, 11.0, 0.5, 9), Tally(10, 21.0, 1.5, 8)]
FINER = [Tally(10, 10.5, 0.1, 10), Tally(10, 20.5, 0.3, 9)]


FORMATS = ("nvfp4-3t", "nvfp4-2t")


def quality(*windows: list[Tally]) -> Quality:
    rows = [
        evaluated(Subject(f"m{i}", FORMATS[i], "max"), each, 1.5, SOURCE, windows[0]) for i, each in enumerate(windows)
    ]
    text = Text("eval.txt", "0" * 64, 2, 11, 0)
    return Quality(tuple(rows), evaluated(Subject("model"), SOURCE, 1.0), text, "mlx-lm", "0.32.2", 3.0)


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


def test_what_was_found_stands_in_the_report_and_the_model_card(tmp_path: Path, studio: Studio) -> None:
    source = checkpoint(tmp_path / "model")
    core.save_quality(quality(WINDOWS, FINER), tmp_path / "quality.json")
    told = ("--quality", tmp_path / "quality.json", "--report", tmp_path / "report", "--method", "max")
    ran = studio("quantize", source, tmp_path / "out", *told)
    assert ran.code == 0, ran.err
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| m0 | nvfp4-3t | max | 4.95 ± " in card
    assert "| m1 |" not in card
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<h2>Quality</h2>" in page
    assert "m1" in page
    assert studio("verify", tmp_path / "out").code == 0


@pytest.mark.parametrize(
    ("content", "options", "word"),
    [
        ("{}", (), "not an evaluation"),
        ('{"schema": 1, "models": [{}]}', (), "damaged evaluation"),
        ("", ("--format", "mxfp8"), "no row for mxfp8"),
    ],
)
def test_an_evaluation_of_something_else_is_refused(
    tmp_path: Path, studio: Studio, content: str, options: tuple[str, ...], word: str
) -> None:
    source, path = checkpoint(tmp_path / "model"), tmp_path / "quality.json"
    if content:
        path.write_text(content)
    else:
        core.save_quality(quality(WINDOWS), path)
    ran = studio("quantize", source, tmp_path / "out", "--quality", path, *options)
    assert ran.code == 2
    assert word in ran.err


def test_an_evaluation_of_another_model_is_refused(tmp_path: Path, studio: Studio) -> None:
    core.save_quality(quality(WINDOWS), tmp_path / "quality.json")
    ran = studio("quantize", checkpoint(tmp_path / "other"), tmp_path / "out", "--quality", tmp_path / "quality.json")
    assert ran.code == 2
    assert "is of model, not of other" in ran.err
