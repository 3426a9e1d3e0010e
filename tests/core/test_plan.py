"""Rules decide in order, patterns and ranges mean what they say, and mistakes are named."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from studio import core
from tests.core.checkpoints import checkpoint, gaussian, llama


@pytest.fixture
def model(tmp_path: Path) -> core.Model:
    tensors = {**llama(), "model.layers.1.mlp.odd_proj.weight": gaussian(8, 40)}
    return core.open_model(checkpoint(tmp_path / "model", tensors))


def formats(plan: core.Plan, model: core.Model) -> dict[str, str]:
    return {choice.layer.name: choice.format for choice in core.resolve(plan, model)}


def plan(*rules: core.Rule) -> core.Plan:
    return core.Plan(rules)


def test_the_default_preset_quantizes_linear_layers_and_gives_a_reason_for_every_other(model: core.Model) -> None:
    choices = core.resolve(core.preset("linear"), model)
    assert {c.layer.role for c in choices if c.recipe} == {"linear"}
    assert all(c.reason for c in choices if not c.recipe)
    assert not any(c.reason for c in choices if c.recipe)


def test_a_width_that_is_no_multiple_of_the_block_is_kept_and_says_so(model: core.Model) -> None:
    choice = {c.layer.name: c for c in core.resolve(core.preset("linear"), model)}["model.layers.1.mlp.odd_proj"]
    assert choice.format == core.KEEP
    assert "40" in choice.reason
    assert "16" in choice.reason


def test_the_first_rule_that_matches_wins(model: core.Model) -> None:
    found = formats(
        plan(
            core.Rule(names=("*.0.mlp.*",), format="mxfp8"),
            core.Rule(names=("*mlp.down_proj",), format="int8-g64"),
            core.Rule(roles=("linear",)),
        ),
        model,
    )
    assert found["model.layers.0.mlp.down_proj"] == "mxfp8"
    assert found["model.layers.1.mlp.down_proj"] == "int8-g64"
    assert found["model.layers.1.mlp.up_proj"] == "nvfp4-3t"
    assert found["lm_head"] == core.KEEP


def test_patterns_may_be_regular_expressions_and_blocks_ranges(model: core.Model) -> None:
    found = formats(plan(core.Rule(names=("re:(q|k)_proj$",), blocks="1", format="mxfp4")), model)
    assert [name for name, chosen in found.items() if chosen == "mxfp4"] == [
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.self_attn.k_proj",
    ]


@pytest.mark.parametrize(
    "names",
    [
        ("*mlp*",),
        ("*.0.*",),
        ("*.?.*",),
        ("*[0]*",),
        ("*[!0]*",),
        ("re:\\.1\\.",),
        ("*up*", "lm_head"),
        ("*.mlp.*", "*0*"),
        (),
    ],
)
def test_a_rule_decides_for_each_layer_as_when_it_is_asked_alone(names: tuple[str, ...], model: core.Model) -> None:
    rules = core.Rule(names=names, blocks="1", format="mxfp8"), core.Rule(names=names), core.Rule(roles=("norm",))
    slow = [next((i for i, rule in enumerate(rules) if rule.matches(layer)), -1) for layer in model.layers]
    optional = plan(*(replace(rule, optional=True) for rule in rules))
    assert list(core.deciding_rules(optional, model)) == slow


def test_every_preset_keeps_norms_and_routers(tmp_path: Path) -> None:
    tensors = {
        **llama(1),
        "model.layers.0.mlp.gate.weight": gaussian(4, 64),
        **{f"model.layers.0.mlp.experts.{e}.up_proj.weight": gaussian(32, 64, seed=e) for e in range(4)},
        "model.vision_tower.blocks.0.attn.qkv.weight": gaussian(32, 64),
    }
    with core.open_model(checkpoint(tmp_path / "moe", tensors)) as model:
        for name in core.preset_names():
            chosen = {c.layer.name: c.layer.role for c in core.resolve(core.preset(name), model) if c.recipe}
            assert set(chosen.values()) <= {"linear", "expert", "embedding", "head"}, name
            assert not any("vision" in layer for layer in chosen), name
            assert "model.layers.0.mlp.experts.3.up_proj" in chosen, name


def test_a_rule_that_matches_nothing_is_an_error_that_names_it(model: core.Model) -> None:
    with pytest.raises(core.PlanError, match=r"qq_proj.*matches no layer"):
        core.resolve(plan(core.Rule(names=("*qq_proj",))), model)


def test_a_plan_survives_json() -> None:
    for name in core.preset_names():
        preset = core.preset(name).with_format("mxfp4").with_exponent("floor")
        again = core.plan_from_json(json.loads(json.dumps(preset.to_json())))
        assert again == preset


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"schema": 2, "rules": []}, "schema"),
        ({"schema": 1}, "rules"),
        ({"schema": 1, "rules": [{"nams": ["x"]}]}, "nams"),
        ({"schema": 1, "rules": [{"names": "x"}]}, "names"),
        ({"schema": 1, "rules": [{"format": "nvfp5"}]}, "nvfp5"),
        ({"schema": 1, "rules": [{"roles": ["lineer"]}]}, "lineer"),
        ({"schema": 1, "rules": [{"blocks": "3-"}]}, "3-"),
        ({"schema": 1, "rules": [{"names": ["re:("]}]}, "pattern"),
        ({"schema": 1, "rules": [{"optional": 1}]}, "optional"),
        ({"schema": 1, "rules": [], "exponent": "round"}, "round"),
        ({"schema": 1, "rules": [], "format": 4}, "format"),
    ],
)
def test_a_malformed_plan_is_refused_in_words(data: dict[str, object], words: str) -> None:
    with pytest.raises(core.PlanError, match=words):
        core.plan_from_json(data)


def test_sizes_are_those_of_the_files(model: core.Model, tmp_path: Path) -> None:
    for name in core.FORMATS:
        plan_ = core.preset("linear").with_format(name)
        layout = next(layout for layout in core.LAYOUTS.values() if name in layout.formats and not layout.static_inputs)
        with core.start(core.Machine(threads=1), model) as engine:
            choices = core.resolve(plan_, model)
            job = core.prepare(model, plan_, choices, layout, tmp_path / name)
            list(core.export(engine, job))
        tensors = sum(t.nbytes for shard in job.shards for t in shard.lay_out(job.model, job.layout).tensors.values())
        assert tensors == sum(choice.nbytes for choice in job.choices)
        assert (tmp_path / name / "model.safetensors").stat().st_size == job.shards[0].nbytes
