"""Choices made for all layers at once are those that are made one by one."""

from pathlib import Path

import numpy as np
import pytest

from studio import core
from studio.gui.layers.choices import CODES, FORMAT_NAMES, Chooser, Edits, Names, PlanState
from studio.gui.layers.known import Known
from tests.benchmarks.window_cases import expert_checkpoint


@pytest.fixture(params=["demo", "experts"])
def model(request: pytest.FixtureRequest, tmp_path: Path):
    path = core.demo_checkpoint() if request.param == "demo" else expert_checkpoint(tmp_path / "experts", 2, 4)
    with core.open_model(path) as opened:
        yield opened


def state_of(model: core.Model, plan: core.Plan, codes: np.ndarray | None = None) -> PlanState:
    rules = np.array([choice.rule for choice in core.resolve(plan, model)], np.int32)
    return PlanState(plan, rules, Edits(Names([layer.name for layer in model.layers]), codes))


@pytest.mark.parametrize("preset", core.preset_names())
@pytest.mark.parametrize("format_name", core.FORMATS)
def test_a_plan_chooses_the_same_as_rule_by_rule(model: core.Model, preset: str, format_name: str) -> None:
    plan = core.preset(preset).with_format(format_name)
    found, expected = Chooser(model.layers).choose(state_of(model, plan)), core.resolve(plan, model)
    assert list(found) == list(expected)
    assert [choice.nbytes for choice in found] == [choice.nbytes for choice in expected]


def test_choices_by_hand_are_the_same_as_one_by_one(model: core.Model) -> None:
    plan = core.preset("linear").with_exponent("floor")
    offered = [-1, *(CODES[name] for name in (*core.FORMATS, core.KEEP))]
    codes = np.random.default_rng(3).choice(offered, len(model.layers)).astype(np.int8)
    state = state_of(model, plan, codes)
    expected = [
        base if code < 0 else core.choose_format(base.layer, FORMAT_NAMES[code], "floor", plan.method)
        for base, code in zip(core.resolve(plan, model), codes, strict=True)
    ]
    assert list(Chooser(model.layers).choose(state)) == expected
    assert dict(state.edits) == {c.layer.name: FORMAT_NAMES[n] for c, n in zip(expected, codes, strict=True) if n >= 0}


def test_contents_differ_where_choices_do(model: core.Model) -> None:
    chooser, plan = Chooser(model.layers), core.preset("linear")
    before = chooser.choose(state_of(model, plan))
    codes = np.full(len(model.layers), -1, np.int8)
    codes[::3] = CODES["mxfp8"]
    after = chooser.choose(state_of(model, plan, codes))
    assert (before.contents != after.contents).tolist() == [a != b for a, b in zip(before, after, strict=True)]
    assert list(chooser.take(list(after))) == list(after)


def test_what_a_cache_knew_before_is_found_again(model: core.Model) -> None:
    cache, groups, chooser = core.ResultCache(), core.ScaleGroups(model), Chooser(model.layers)
    choices = chooser.choose(state_of(model, core.preset("linear")))
    index = next(i for i, choice in enumerate(choices) if choice.recipe and groups.peers(i, choices))
    layer = choices[index].layer
    head = (layer.name, layer.role, layer.block, layer.tensor.dtype, layer.shape, choices[index].format, "")
    result = core.LayerResult(*head, layer.count, layer.nbytes, choices[index].nbytes, sum_squares=1.0, sum_error=0.01)
    cache.add(choices[index], groups.peers(index, choices), result)
    known = Known(cache, groups, len(choices))
    assert np.flatnonzero(known.there(choices, groups.marks(choices.tiered))).tolist() == [index]
    alone = np.zeros(len(choices), np.uint64)
    alone[index] = groups.mark_of(index, ())
    assert known.results(choices, groups.marks(choices.tiered))[index] is result
