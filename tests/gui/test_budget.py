"""The page Budget: what is priced, dragged, pinned and taken into the plan."""

import json
import math
import random
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QPointF
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from studio import core
from studio.core.budgets.costs import CostTable, recipe_text
from studio.core.budgets.parts import part_names
from studio.gui.jobs.budgeting import STOPPED
from studio.gui.layers.columns import COLUMNS
from studio.gui.shell.studio import Studio
from studio.gui.views.budget import STEPS, BudgetView
from tests.core.checkpoints import CONFIG, checkpoint, llama
from tests.gui.conftest import PATIENCE

Wait = Callable[[], None]


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))


def view(studio: Studio) -> BudgetView:
    found = studio.workspace.views["BudgetView"]
    assert isinstance(found, BudgetView)
    return found


@pytest.fixture
def priced(studio: Studio, wait: Wait) -> Iterator[Studio]:
    studio.workspace.show_page("budget")
    view(studio).price_button.click()
    wait()
    yield studio
    view(studio).target.setCurrentIndex(0)


def formats(studio: Studio) -> set[str]:
    return {choice.format for choice in studio.document.choices if choice.recipe}


def test_before_anything_it_says_what_comes_next(studio: Studio) -> None:
    assert view(studio).empty.text().startswith("No formats are priced yet.")
    assert view(studio).price_button.isEnabled()


def test_a_budget_is_dragged_and_its_mix_taken_in_one_step(priced: Studio) -> None:
    page = view(priced)
    before = priced.document.state
    page.slider.setValue(STEPS // 2)
    assert page.mix.nbytes <= page.budget()
    assert "damage" in page.says.text()
    smaller = page.mix
    page.slider.setValue(STEPS * 3 // 4)
    assert page.mix.damage < smaller.damage
    page.slider.setValue(STEPS // 4)
    page.use_button.click()
    chosen = page.planner.decisions.choices(page.mix.options)
    assert [c.recipe for c in priced.document.choices] == [c.recipe for c in chosen]
    assert len(formats(priced)) > 1
    assert sum(c.nbytes for c in priced.document.choices) <= page.budget()
    priced.document.undo.undo()
    assert priced.document.state.same(before)


def test_what_changes_against_the_mix_of_now_is_told(priced: Studio) -> None:
    page = view(priced)
    page.slider.setValue(STEPS // 2)
    page.use_button.click()
    rows = page.numbers.model().figure.rows
    assert sum(row[1] for row in rows) == sum(len(item.layers) for item in page.planner.decisions.items)
    assert [row[3] for row in rows] == [row[1] for row in rows]
    page.tables.setCurrentWidget(page.changed)
    assert page.changed.model().figure.rows == []
    page.slider.setValue(STEPS // 3)
    rows = page.changed.model().figure.rows
    assert sum(row[5] for row in rows) == page.mix.nbytes - page.before.nbytes
    page.changed.clicked.emit(page.changed.model().index(0, 0))
    assert len(priced.document.selection) == rows[0][4]


def test_two_budgets_are_compared_by_a_mark(priced: Studio) -> None:
    page = view(priced)
    page.slider.setValue(STEPS // 2)
    page.mark_button.click()
    marked = page.mix
    page.slider.setValue(STEPS // 4)
    page.tables.setCurrentWidget(page.changed)
    figure = page.changed.model().figure
    assert figure.heads[2] == "at the mark"
    assert sum(row[5] for row in figure.rows) == page.mix.nbytes - marked.nbytes < 0
    assert [line.value() for line in page.plot._marks] == pytest.approx(
        [page._bits(page.budget()), page._bits(marked.nbytes)]
    )
    page.mark_button.click()
    assert page.changed.model().figure.heads[2] == "in the plan"
    assert len(page.plot._marks) == 1


def cells(studio: Studio, name: str) -> dict[str, str]:
    """What the table shows for a layer."""
    table = studio.workspace.layers.table
    row = table.row_of(studio.document.store.index[name])
    return {column.key: table.cell(row, number)[0] for number, column in enumerate(COLUMNS)}


def test_the_table_follows_the_budget_and_lets_go_of_it(priced: Studio) -> None:
    page, document = view(priced), priced.document
    name = "model.layers.1.mlp.down_proj"
    before = cells(priced, name)
    page.slider.setValue(0)
    chosen = page.planner.decisions.choices(page.mix.options)[document.store.index[name]]
    shown = cells(priced, name)
    assert (shown["format"], shown["method"]) == (chosen.format, chosen.method)
    assert shown["format"] != before["format"]
    assert shown["size"] == core.size_text(chosen.nbytes)
    assert shown["status"] == "◇ proposed"
    cost = page.planner.costs.known.of(document.store.index[name], recipe_text(chosen.recipe))
    assert shown["err"].split()[-1] == f"{cost.rel_err:.4f}"
    assert document.store.format_of(document.store.index[name]) == before["format"]
    page.slider.setValue(STEPS)
    assert cells(priced, name)["format"] != shown["format"]
    priced.workspace.show_page("overview")
    assert cells(priced, name) == before
    priced.workspace.show_page("budget")
    assert cells(priced, name) == before


def test_what_the_table_shows_is_pinned_with_all_that_goes_with_it(
    priced: Studio, names: Callable[[str], list[str]]
) -> None:
    page, document = view(priced), priced.document
    page.slider.setValue(0)
    least = page.mix
    (name,) = names("layers.2.self_attn.k_proj")
    document.select([name])
    priced.commands.perform("pin")
    assert {one.rpartition(".")[2] for one in document.state.edits} == {"q_proj", "k_proj", "v_proj"}
    page.slider.setValue(STEPS)
    assert "3 layers pinned" in page.says.text()
    place = document.store.index[name]
    assert page.planner.decisions.choices(page.mix.options)[place].format == cells(priced, name)["format"]
    assert cells(priced, name)["format"] == page.planner.decisions.choices(least.options)[place].format
    assert cells(priced, name)["status"] == "◆ pinned"
    page.use_button.click()
    assert "3 layers pinned" in page.says.text()
    recipes = [choice.recipe for choice in document.choices]
    assert recipes == [choice.recipe for choice in page.planner.decisions.choices(page.before.options)]
    assert core.as_planned(document.model, document.plan).plan.prediction.nbytes == page.before.nbytes
    page.slider.setValue(STEPS // 2)
    assert cells(priced, name)["status"] == "◆ pinned"
    document.undo.undo()
    document.undo.undo()
    assert "pinned" not in page.says.text()


def test_mixes_are_for_the_layout_that_is_chosen(priced: Studio, wait: Wait) -> None:
    page = view(priced)
    page.target.setCurrentIndex(page.target.findText("modelopt for vLLM"))
    page.target.activated.emit(page.target.currentIndex())
    wait()
    assert page.planner.decisions.layout.name == "modelopt"
    assert page.planner.decisions.reader == "vllm"
    page.slider.setValue(STEPS // 2)
    page.use_button.click()
    assert formats(priced) <= {"nvfp4-2t", "nvfp4-3t", "mxfp8"}


def test_what_was_measured_stands_beside_what_is_predicted(priced: Studio) -> None:
    page = view(priced)
    parts = dict.fromkeys(part_names(page.planner.costs), 0.5)
    draws = tuple(core.Sensitivity(dict.fromkeys(parts, value)) for value in (0.4, 0.6))
    page.show_planner(core.Planner(page.planner.costs, core.Sensitivity(parts, draws=draws)))
    page.show_measured([("nvfp4-3t", 6.0, 0.05, 0.002)])
    assert page.plot.entries()[-1].name == "measured"
    spot = page.plot.measured[0]
    assert page.tip_at(QPointF(spot.bits, math.log10(spot.lost)))[-1] == "measured KL 0.05 ± 0.002"
    assert f"± {page.mix.noise:.2g}" in page.says.text()
    assert page.mix.noise == pytest.approx(page.mix.kl * 0.2 * math.sqrt(2))
    assert page.plot._band.isVisible()


def test_formats_chosen_by_hand_are_pins(priced: Studio, names: Callable[[str], list[str]]) -> None:
    page = view(priced)
    page.slider.setValue(STEPS // 4)
    priced.document.set_format(names("layers.1.mlp.down_proj"), "mxfp8")
    page.use_button.click()
    chosen = {choice.layer.name: choice.format for choice in priced.document.choices}
    assert chosen["model.layers.1.mlp.down_proj"] == "mxfp8"
    priced.document.set_format(names("layers.0.self_attn.q_proj"), "mxfp4")
    priced.document.set_format(names("layers.0.self_attn.k_proj"), "mxfp8")
    assert "can not be pinned" in page.empty.text()
    priced.document.undo.undo()
    assert page.planner is not None


def test_pricing_again_after_a_mix_was_taken_begins_with_the_same_plan(priced: Studio, wait: Wait) -> None:
    page = view(priced)
    page.use_button.click()
    least = page.planner.least_nbytes
    priced.document.set_plan(
        core.plan_from_json(json.loads(json.dumps(priced.document.state.plan.to_json()))), "as it is opened again"
    )
    page.price_button.click()
    wait()
    assert page.planner.least_nbytes == least


def test_probes_tell_what_damage_means(studio: Studio, wait: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    class Probing:
        def __init__(self, costs: core.Costs, _reading: core.Reading) -> None:
            self.costs = costs

        def known(self) -> None:
            return None

        def run(self, _engine: core.Engine, **_: Any) -> Generator[core.Event, None, core.Sensitivity]:
            yield core.Started("evaluate", 1, 0)
            return core.Sensitivity({"any": 1.0})

    monkeypatch.setattr(core, "Probing", Probing)
    studio.workspace.show_page("budget")
    view(studio).probe_button.click()
    wait()
    assert "predicted KL" in view(studio).says.text()


def test_a_stopped_run_says_so_and_goes_on(studio: Studio, wait: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*_: Any) -> Generator[core.Event, None, None]:
        yield core.Started("price", 1, 0)
        while True:
            yield core.Progress("price", 0, "")

    monkeypatch.setattr(core, "price", endless)
    studio.workspace.show_page("budget")
    view(studio).price_button.click()
    studio.runs.stop()
    wait()
    assert view(studio).empty.text() == STOPPED


def test_the_numbers_are_those_of_the_curve(priced: Studio, tmp_path: Path) -> None:
    page = view(priced)
    page.save(tmp_path / "budget.csv")
    lines = (tmp_path / "budget.csv").read_text().splitlines()
    assert lines[0] == "plan,bytes,bits per weight,damage,standard error"
    assert any(line.startswith("int8-g64/max") for line in lines)
    sizes = [float(line.split(",")[2]) for line in lines[1:] if line.startswith("best mix")]
    assert sizes == sorted(sizes)


def test_a_click_on_the_plot_goes_to_that_size(priced: Studio) -> None:
    page = view(priced)
    low, high = (page._bits(nbytes) for nbytes in page._range())
    page.plot.box.picked.emit(page.plot.box.mapSceneToView(page.plot.sceneRect().center()), False)
    assert low <= 8 * page.budget() / priced.document.model.count <= high
    QApplication.processEvents()


def test_another_checkpoint_begins_anew(priced: Studio) -> None:
    priced.commands.perform("close")
    assert view(priced).planner is None


def test_what_is_chosen_while_another_page_is_shown_is_seen_later(
    priced: Studio, names: Callable[[str], list[str]]
) -> None:
    page = view(priced)
    shown = page.planner
    priced.workspace.show_page("overview")
    priced.document.set_format(names("layers.1.mlp.down_proj"), "mxfp8")
    assert page.planner is shown
    priced.workspace.show_page("budget")
    QApplication.processEvents()
    assert page.planner is not shown


def made_up(_engine: core.Engine, decisions: core.Decisions) -> Generator[core.Event, None, core.Costs]:
    """Costs as pricing would find them in formats of so many bits, without reading a weight."""
    chance, known = random.Random(0), CostTable()  # noqa: S311 - the same each time
    for item in decisions.items:
        size = chance.lognormvariate(0, 1)
        for option in item.options:
            for index in item.layers:
                if recipe := decisions.choice(index, option).recipe:
                    error = size * 0.4**recipe.format.bits * chance.uniform(0.9, 1.1)
                    known.add(index, [recipe_text(recipe)], np.array([1.0, 1.0, error, error]))
    yield core.Started("price", 0, 0)
    return core.Costs(decisions, known)


def test_a_step_of_the_budget_is_little_work_for_thousands_of_layers(
    priced: Studio, wait: Wait, tmp_path: Path, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls and returns are counted, not seconds: 70,000 take some 15 ms."""
    folder = checkpoint(tmp_path / "deep", llama(300), config={**CONFIG, "num_hidden_layers": 300})
    priced.open(folder)
    qtbot.waitUntil(lambda: priced.document.model is not None and len(priced.document.store) > 2000, timeout=PATIENCE)
    monkeypatch.setattr(core, "price", made_up)
    priced.workspace.show_page("budget")
    priced.budgeting.price()
    wait()
    page = view(priced)
    assert len(page.planner.decisions.items) == 1200
    calls: list[int] = []
    for place in range(100, 900, 80):
        calls.append(0)
        sys.setprofile(lambda *_: calls.append(calls.pop() + 1))
        page.slider.setValue(place)
        sys.setprofile(None)
    assert sorted(calls)[len(calls) // 2] < 100_000, calls
