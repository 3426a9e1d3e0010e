"""Reports say what was found, survive hostile names, and need nothing from elsewhere."""

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from studio import core
from studio.core.reporting.report import CSV_COLUMNS, report_csv, report_html
from studio.core.results import LayerResult
from tests.core.checkpoints import checkpoint, gaussian, llama

HOSTILE = "model.layers.0.<img src=x onerror=alert(1)>\n=cmd|'/c calc'!A1"


@pytest.fixture
def measured(tmp_path: Path) -> tuple[core.Model, core.Plan, core.Outcome]:
    tensors = {**llama(), f"{HOSTILE}.weight": gaussian(16, 64), "=1+1.weight": gaussian(16, 64)}
    model = core.open_model(checkpoint(tmp_path / "model", tensors))
    plan = core.preset("linear")
    with core.start(core.Machine(threads=1), model) as engine:
        *_, last = core.measure(engine, model, core.resolve(plan, model))
    assert isinstance(last, core.Finished)
    return model, plan, last.outcome


def test_json_holds_every_layer_and_reads_back(measured: tuple[core.Model, core.Plan, core.Outcome]) -> None:
    model, plan, outcome = measured
    data = json.loads(json.dumps(core.report_json(model, plan, outcome)))
    assert [LayerResult.from_json(layer) for layer in data["layers"]] == list(outcome.layers)
    assert data["summary"]["rel_err"] == outcome.rel_err
    assert core.plan_from_json(data["plan"]) == plan


def test_csv_has_a_row_per_layer_and_no_formula(measured: tuple[core.Model, core.Plan, core.Outcome]) -> None:
    rows = list(csv.DictReader(io.StringIO(report_csv(measured[2]))))
    assert len(rows) == len(measured[2].layers)
    assert list(rows[0]) == list(CSV_COLUMNS)
    assert not any(row["name"].startswith("=") for row in rows)
    assert all("\n" not in row["name"] for row in rows)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_html_is_self_contained_and_names_are_text(measured: tuple[core.Model, core.Plan, core.Outcome]) -> None:
    page = report_html(*measured)
    tags = Tags()
    tags.feed(page)
    assert not {"img", "script", "link", "iframe", "object"} & {tag for tag, _ in tags.found}
    assert not any(key in attributes for _, attributes in tags.found for key in ("src", "href", "onerror"))
    assert "url(" not in page
    assert sum(tag == "svg" for tag, _ in tags.found) == 3
    assert sum(tag == "circle" for tag, _ in tags.found) == len(measured[2].quantized)


def test_html_of_a_run_that_kept_everything_has_no_empty_chart(tmp_path: Path) -> None:
    with core.open_model(checkpoint(tmp_path / "model")) as model, core.start(core.Machine(threads=1)) as engine:
        plan = core.Plan((core.Rule(format=core.KEEP),))
        *_, last = core.measure(engine, model, core.resolve(plan, model))
        assert isinstance(last, core.Finished)
        assert "<svg" not in report_html(model, plan, last.outcome)
