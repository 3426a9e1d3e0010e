"""Work as JSON: what comes back is what was there, and anything else is refused in words."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio import core
from studio.gui.keeping.ranges import numbers_of, ranges
from studio.gui.keeping.work import NO_RULES, SCHEMA, Encoder, NewerError, Work, decode
from studio.gui.layers.choices import BY_PLAN, CODES, METHOD_CODES, Edits, Names, PlanState
from tests.core.checkpoints import checkpoint, llama

NAMES = [f"model.layers.{number}.mlp.up_proj" for number in range(40)]
LINEAR = core.preset("linear")
CHOICES = ["mxfp8", "int4-g64", core.KEEP, "/search", "nvfp4-2t/hessian"]


@given(st.sets(st.integers(0, 200)))
def test_ranges_say_every_number(numbers: set[int]) -> None:
    assert numbers_of(ranges(numbers), 201).tolist() == sorted(numbers)


@pytest.mark.parametrize("text", ["-1", "3-2", "40", "a", "1-2-3", "0-40"])
def test_a_range_out_of_bounds_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        numbers_of(text, 40)


def state_of(plan: core.Plan, chosen: dict[str, str], names: list[str] = NAMES) -> PlanState:
    """A state of the plan as it is read."""
    edits, places = Edits(Names(names)), Names(names).places(list(chosen))
    said = [value.partition("/") for value in chosen.values()]
    codes = np.array([CODES.get(format_name, BY_PLAN) for format_name, _, _ in said], np.int8)
    methods = np.array([METHOD_CODES[method] if method else BY_PLAN for _, _, method in said], np.int8)
    return PlanState(plan, NO_RULES, edits.changed(places, codes).with_methods(places, methods))


def said(work: Work) -> tuple[object, ...]:
    states = [(state.plan, dict(state.edits)) for state in work.states]
    return states, work.texts, work.at, work.saved, work.view, work.statistics


edits = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(CHOICES))
plans = st.sampled_from([LINEAR, LINEAR.with_format("mxfp4"), core.preset("mlp")])


@given(st.lists(st.tuples(plans, edits), min_size=1, max_size=6), st.data())
def test_every_state_of_the_plan_comes_back(history: list[tuple[core.Plan, dict[str, str]]], data: Any) -> None:
    states = tuple(state_of(plan, chosen) for plan, chosen in history)
    texts = tuple(f"step {number}" for number in range(len(states) - 1))
    at, saved = (data.draw(st.integers(low, len(states) - 1)) for low in (0, -1))
    work = Work(states, texts, at, saved, {"filter": "err>0.1", "selection": NAMES[3:5]}, "/a/file")
    encoder = Encoder(NAMES)
    assert said(decode(encoder.encode(work))) == said(work)
    assert said(decode(encoder.encode(work))) == said(work)  # from what the encoder remembers


def some_work() -> dict[str, Any]:
    states = (state_of(LINEAR, {}), state_of(LINEAR, dict.fromkeys(NAMES[:7], "mxfp8")))
    found: dict[str, Any] = json.loads(Encoder(NAMES).encode(Work(states, ("mxfp8 for 7 layers",), 1, 0)))
    return found


def test_a_choice_for_all_layers_takes_a_few_bytes() -> None:
    assert some_work()["steps"][1] == {"text": "mxfp8 for 7 layers", "plan": 0, "set": {"mxfp8": "0-6"}, "drop": ""}


@pytest.mark.parametrize(
    "change",
    [
        {"schema": None},
        {"steps": []},
        {"steps": 3},
        {"at": 2},
        {"saved": 7},
        {"layers": []},
        {"plans": []},
        {"view": []},
        {"steps": [{"text": "", "plan": 0, "set": {"fp2": "1"}, "drop": ""}]},
        {"steps": [{"text": "", "plan": 0, "set": {}, "drop": "", "methods": {"guess": "1"}}]},
    ],
)
def test_work_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decode(json.dumps({**some_work(), **change}).encode())


def test_every_cut_of_the_file_is_refused() -> None:
    whole = json.dumps(some_work()).encode()
    for end in range(0, len(whole), 11):
        with pytest.raises(ValueError, match=r"\w"):
            decode(whole[:end])


def test_work_of_the_version_without_methods_is_read() -> None:
    old = {key: value for key, value in {**some_work(), "schema": 1}.items() if key != "statistics"}
    found = decode(json.dumps(old).encode())
    assert (found.by_hand, found.statistics) == (7, "")


def test_a_later_version_is_told_from_damage() -> None:
    with pytest.raises(NewerError, match=f"schema {SCHEMA + 1}, this version reads {SCHEMA}"):
        decode(json.dumps({"schema": SCHEMA + 1, "anything": "else"}).encode())


def test_steps_that_no_longer_fit_the_checkpoint_go_and_the_others_stay(tmp_path: Path) -> None:
    gone = core.Plan((core.Rule(names=("model.layers.9.*",)),))
    fitting = LINEAR.with_format("mxfp4")
    layer = "model.layers.0.mlp.up_proj"
    chosen = {layer: "mxfp8", "nowhere": "mxfp8"}
    states = tuple(state_of(plan, chosen, list(chosen)) for plan in (LINEAR, gone, fitting, LINEAR))
    with core.open_model(checkpoint(tmp_path / "model", llama(2))) as model:
        found = Work(states, ("a", "b", "c"), 2, 0).resolved(model)
        with pytest.raises(core.PlanError):
            Work(states, ("a", "b", "c"), 1, 0).resolved(model)
    assert [state.plan for state in found.states] == [fitting, LINEAR]
    assert (found.texts, found.at, found.saved) == (("c",), 0, -1)
    assert found.now.edits == {layer: "mxfp8"}
    assert len(found.now.rules) == len(found.now.edits.names)
