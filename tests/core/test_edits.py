"""Formats chosen by hand become rules and a command line that choose the same."""

from pathlib import Path

from studio import core


def names(model: core.Model) -> list[str]:
    return [layer.name for layer in model.layers]


def resolved(model: core.Model, edits: dict[str, str]) -> tuple[tuple[core.Rule, ...], dict[str, str]]:
    rules = core.hand_rules(edits, names(model))
    choices = core.resolve(core.preset("linear").preceded_by(rules), model)
    return rules, {choice.layer.name: choice.format for choice in choices if choice.layer.name in edits}


def test_rules_choose_what_was_chosen_by_hand() -> None:
    with core.open_model(core.demo_checkpoint()) as model:
        edits = {"model.layers.0.mlp.up_proj": "keep", "model.layers.2.self_attn.q_proj": "int8-g64"}
        _, found = resolved(model, edits)
    assert found == edits


def test_one_pattern_stands_for_all_layers_of_a_kind() -> None:
    with core.open_model(core.demo_checkpoint()) as model:
        edits = {name: "mxfp8" for name in names(model) if name.endswith("down_proj")}
        rules, found = resolved(model, edits)
    assert found == edits
    assert [rule.names for rule in rules] == [("*.mlp.down_proj",)]


def test_a_pattern_never_reaches_layers_of_another_kind() -> None:
    edits = {"a.experts.0.up_proj": "mxfp8", "a.experts.1.up_proj": "mxfp8"}
    (rule,) = core.hand_rules(edits, [*edits, "a.mlp.up_proj", "b.mlp.up_proj"])
    assert set(rule.names) == set(edits)


def test_names_with_wildcards_stay_themselves() -> None:
    (rule,) = core.hand_rules({"a.[b]*": "mxfp8"}, ["a.[b]*", "a.bc"])
    assert rule.names == ("a.[[]b][*]",)


def test_the_command_line_names_the_same_choices(tmp_path: Path) -> None:
    rules = core.hand_rules({"a.b": "mxfp8", "c.d": "keep"}, ["a.b", "c.d", "e.f"])
    text = core.command_line(
        "quantize", tmp_path, core.preset("linear"), rules, target=tmp_path / "x y", options={"layout": "mlx"}
    )
    assert text is not None
    assert text.startswith(f"nvfp4-studio quantize {tmp_path} '{tmp_path}/x y' --preset linear --format nvfp4-3t")
    assert "--include a.b=mxfp8" in text
    assert "--exclude c.d" in text


def test_too_many_choices_belong_in_a_file(tmp_path: Path) -> None:
    edits = {f"a{i}.b{i}": "mxfp8" for i in range(40)}
    assert core.command_line("measure", tmp_path, core.preset("linear"), core.hand_rules(edits, [*edits])) is None
