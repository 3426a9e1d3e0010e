"""Probing and sensitivity: a law that made the figures is found again; what was run is not run again."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from studio import core
from studio.core.budgets import probing
from studio.core.budgets.costs import Costs
from studio.core.budgets.decisions import Option, decide
from studio.core.budgets.parts import part_names
from studio.core.budgets.planner import Planner
from studio.core.budgets.probing import Probing, probes
from studio.core.budgets.records import Records
from studio.core.budgets.sensitivity import Probed, fit
from studio.core.quality.metrics import Tally
from studio.core.quality.noise import Estimate
from studio.core.quality.results import Evaluated
from tests.core.budgets.conftest import LINEAR, ended, priced

READING = core.Reading(())
EXPONENT = 0.85
Law = Callable[[core.Candidate], float]


@pytest.fixture
def costs(engine: core.Engine, dense: core.Model, tmp_path: Path) -> Costs:
    return priced(engine, decide(dense, LINEAR, *core.layout_for("mlx", ""), {"keep"}), tmp_path / "costs")


def law_of(costs: Costs) -> Law:
    """Layers of later blocks matter more, integers do more harm than their damage says, and it saturates."""

    def law(candidate: core.Candidate) -> float:
        chosen = {choice.layer.name: choice for choice in candidate.choices}
        total = 0.0
        for item in costs.decisions.items:
            choice = chosen[costs.decisions.model.layers[item.layers[0]].name]
            for option in item.options:
                if choice.recipe and costs.decisions.choice(item.layers[0], option).recipe == choice.recipe:
                    harm = 1.3 if option.format.startswith("int4") else 1.0
                    total += (1 + item.block) * harm * costs.damage(item, option)
                    break
        return total**EXPONENT

    return law


def evaluating(law: Law, ran: list[str], spread: float = 0.0) -> Callable[..., Iterator[core.Event]]:
    """Stands in for `evaluate`: what the law says of each candidate, more or less by a share on either window."""

    def evaluate(
        _started: object, source: core.Candidate, candidates: Sequence[core.Candidate], *_: object, **__: object
    ):
        zero = Estimate(0.0, 0.0)
        yield core.ModelDone(Evaluated(source.name, "", "", "", 1, 0.0, zero))
        for candidate in candidates:
            ran.append(candidate.name)
            kl = law(candidate)
            windows = (Tally(1, 0.0, kl * (1 - spread)), Tally(1, 0.0, kl * (1 + spread)))
            yield core.ModelDone(Evaluated(candidate.name, "", "", "", 1, 0.0, zero, kl=Estimate(kl, 0.0)), windows)

    return evaluate


def test_what_any_mix_does_is_predicted(
    engine: core.Engine, costs: Costs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    law = law_of(costs)
    monkeypatch.setattr(probing, "evaluate", evaluating(law, []))
    known = ended(Probing(costs, READING, records=Records({}, tmp_path)).run(engine))
    assert known.exponent == pytest.approx(EXPONENT, abs=0.01)
    found = Planner(costs, known)
    for share in (1.0, 1.1, 1.3, 1.6):
        mix = found.within_nbytes(int(found.least_nbytes * share))
        plan = found.plan(mix)
        assert mix.kl == pytest.approx(law(core.as_planned(costs.decisions.model, plan)), rel=0.06)


def test_what_was_run_is_not_run_again(
    engine: core.Engine, costs: Costs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(probing, "evaluate", evaluating(law_of(costs), ran))
    asked = Probing(costs, READING, records=Records({}, tmp_path))
    assert asked.known() is None
    events = asked.run(engine)
    events.close()
    first = ended(asked.run(engine))
    assert asked.known() == first == ended(asked.run(engine))
    assert len(ran) == len(set(ran))
    assert len(ran) <= len(probes(costs))


def test_parts_are_layers_of_a_kind(costs: Costs) -> None:
    items = costs.decisions.items
    assert len(set(part_names(costs))) == len(items) == 12
    few = part_names(costs, most=8)
    assert len(set(few)) == 8
    assert all(len({item.kind for item, mine in zip(items, few, strict=True) if mine == part}) == 1 for part in few)
    assert len(set(part_names(costs, most=1))) == 4


@pytest.mark.parametrize(
    ("damages", "expected"),
    [
        ((5.0, 5.1, 0.6, 5.2, 5.1, 5.0), "BBABBB"),  # one that looks harmless is found apart from the others
        ((5.0,) * 6, "AACCBB"),  # by depth where damages are alike: files tell block 10 before 2
    ],
)
def test_parts_are_alike_in_damage_then_in_depth(
    costs: Costs, damages: Sequence[float], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = costs.decisions.items[0]
    items = tuple(replace(item, block=block) for block in (0, 1, 10, 11, 2, 3))
    told = dict(zip((item.block for item in items), damages, strict=True))
    monkeypatch.setattr(Costs, "damages", lambda _, item: (np.full(len(item.options), told[item.block]), None))
    names = part_names(replace(costs, decisions=replace(costs.decisions, items=items)), most=len(set(expected)))
    assert "".join("_ABC"[int(name.rpartition(" ")[2].partition("/")[0])] for name in names) == expected


def test_a_part_without_damage_has_the_mean_sensitivity() -> None:
    alone = {
        "a": Probed(0.1, 0.0, {("a", "mxfp4/max"): 0.1}),
        "b": Probed(0.6, 0.0, {("b", "mxfp4/max"): 0.2}),
        "c": Probed(0.0, 0.0, {("c", "mxfp4/max"): 0.0}),
    }
    found = fit(alone, None, {})
    assert (found.parts, found.exponent) == ({"a": 1.0, "b": pytest.approx(3.0), "c": pytest.approx(2.0)}, 1.0)
    assert math.isnan(type(found)().kl(1.0))


def test_factors_that_noise_hides_are_those_of_their_kind() -> None:
    alone = {"a": Probed(1.0, 0.0, {("a", "mxfp4/max"): 1.0})}
    whole = {
        "int8-g64/max": Probed(0.03, 0.03, {("a", "int8-g64/max"): 0.01}),
        "int8-g128/max": Probed(0.011, 0.00001, {("a", "int8-g128/max"): 0.01}),
        "mxfp4/max": Probed(2.0, 0.00001, {("a", "mxfp4/max"): 1.0}),
    }
    found = fit(alone, None, whole).factors
    assert found["mxfp4/max"] == pytest.approx(2.0)
    assert found["int8-g128/max"] == pytest.approx(1.1, rel=0.01)
    assert found["int8-g64/max"] == pytest.approx(1.1, rel=0.03)


def test_what_windows_do_to_every_plan_is_no_noise_of_a_factor() -> None:
    def told(kl: float) -> Probed:
        return Probed(kl, kl / 2, {("a", "mxfp4/max"): 1.0}, (kl / 2, 2 * kl))

    found = fit({"a": told(1.0)}, None, {"mxfp4/max": told(1.0), "nvfp4-2t/max": told(2.0)})
    for known in (found, *found.draws):
        assert known.factors == {"mxfp4/max": pytest.approx(1.0), "nvfp4-2t/max": pytest.approx(2.0)}


def noisy(parts: list[tuple[float, float]]) -> core.Sensitivity:
    """What parts tell whose KL varies with the windows: (KL on even draws, on odd ones) each."""
    names = "abcdefgh"[: len(parts)]
    draws = {name: tuple(pair[number % 2] for number in range(10)) for name, pair in zip(names, parts, strict=True)}
    return fit(
        {name: Probed(sum(draws[name]) / 10, 0.0, {(name, "mxfp4/max"): 1.0}, draws[name]) for name in names}, None, {}
    )


def test_noise_of_predictions_is_that_of_the_windows_together() -> None:
    option = Option("mxfp4", "max", 0)
    for parts, expected in (([(1.0, 3.0), (1.0, 3.0)], 2.0), ([(1.0, 3.0), (3.0, 1.0)], 0.0)):
        found = noisy(parts)
        totals = [draw.kl(sum(draw.weight(part, option) for part in "ab")) for draw in found.draws]
        assert float(np.std(totals)) == pytest.approx(expected)
        assert found.kl(sum(found.weight(part, option) for part in "ab")) == pytest.approx(4.0)


def test_a_prediction_has_the_noise_of_its_probes(
    engine: core.Engine, costs: Costs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    law = law_of(costs)
    monkeypatch.setattr(probing, "evaluate", evaluating(law, [], spread=0.3))
    known = ended(Probing(costs, READING, records=Records({}, tmp_path)).run(engine))
    found = Planner(costs, known)
    mix = found.within_nbytes(int(found.least_nbytes * 1.3))
    assert mix.noise == pytest.approx(0.3 / math.sqrt(2) * mix.kl, rel=0.2)
    sizes, kl, noise = found.curve_noise()
    assert len(sizes) > 10
    assert noise[:-1] == pytest.approx(0.3 / math.sqrt(2) * kl[:-1], rel=0.3)
    assert Planner(costs, replace(known, draws=())).within_nbytes(mix.nbytes).noise is None
