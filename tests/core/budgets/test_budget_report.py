"""Reports of plans for budgets: what they hold, that names are escaped, that they refuse in time."""

import json
from pathlib import Path

import pytest

from studio import core
from studio.core.budgets.decisions import decide
from studio.core.budgets.parts import part_names
from studio.core.budgets.planner import Planner
from studio.core.budgets.sensitivity import Sensitivity
from tests.core.budgets.conftest import LINEAR, priced
from tests.core.conftest import Studio


@pytest.fixture
def planner(engine: core.Engine, dense: core.Model, tmp_path: Path) -> Planner:
    decisions = decide(dense, LINEAR, *core.layout_for("mlx", ""))
    costs = priced(engine, decisions, tmp_path)
    return Planner(costs, Sensitivity(dict.fromkeys(part_names(costs), 0.5)))


def test_a_report_holds_the_curve_and_what_each_decision_came_to(planner: Planner, tmp_path: Path) -> None:
    mix = planner.within_nbytes(int(planner.least_nbytes * 1.2))
    page, data = (core.write_budget(tmp_path / "report", planner, mix, ["nvfp4-studio plan <SRC>"])[i] for i in (1, 0))
    found = json.loads(data.read_text())
    assert found["unit"] == "KL"
    assert found["mix"]["kl"] == pytest.approx(mix.kl)
    assert found["curve"] == sorted(found["curve"])
    assert sum(decision["share"] for decision in found["decisions"]) == pytest.approx(1)
    assert core.plan_from_json(found["plan"]).prediction.kl == pytest.approx(mix.kl)
    text = page.read_text()
    assert "nvfp4-studio plan &lt;SRC&gt;" in text
    assert text.count('class="dot single"') == len(found["singles"]) - 1
    assert "<script" not in text


def test_reasons_are_the_best_steps_up_and_down(planner: Planner) -> None:
    mix = planner.within_nbytes(int(planner.least_nbytes * 1.2))
    reasons = planner.reasons(mix)
    assert [reason.option for reason in reasons] == list(mix.options)
    paid = [reason.finer.rate for reason in reasons if reason.finer and reason.finer.gain > 0]
    saved = [reason.coarser.rate for reason in reasons if reason.coarser]
    assert sorted(paid)[len(paid) // 2] < sorted(saved)[len(saved) // 2]
    lightest = planner.reasons(planner.within_nbytes(planner.least_nbytes))
    assert all(reason.coarser is None for reason in lightest)


def test_a_folder_that_can_not_be_written_is_refused_before_the_work(
    studio: Studio, dense: core.Model, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    ran = studio("plan", dense.path, "--bits", "8", "--report", tmp_path / "file")
    assert ran.code == 4
    assert "file" in ran.err
