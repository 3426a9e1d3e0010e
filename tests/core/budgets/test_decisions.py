"""Decisions: what is decided together, what can be chosen, what is pinned, and exact sizes."""

import random

import pytest

from studio import core
from studio.core.budgets.decisions import Decisions, decide
from studio.core.budgets.rules import planned
from studio.core.exporting.shards import plan_shards
from tests.core.budgets.conftest import LINEAR


def names(decisions: Decisions) -> list[set[str]]:
    layers = decisions.model.layers
    return [{layers[index].name.partition("layers.")[2] for index in item.layers} for item in decisions.items]


def decided(model: core.Model, layout: str = "mlx", *rules: core.Rule, forbidden: set[str] | None = None) -> Decisions:
    found, reader = core.layout_for(layout, "")
    return decide(model, LINEAR.preceded_by(rules), found, reader, forbidden or set())


def formats(decisions: Decisions, at: int = 0) -> list[str]:
    return list(dict.fromkeys(option.format for option in decisions.items[at].options))


def test_what_runtimes_join_is_decided_together(dense: core.Model) -> None:
    found = names(decided(dense))
    assert {f"0.self_attn.{kind}_proj" for kind in "qkv"} in found
    assert {"1.mlp.gate_proj", "1.mlp.up_proj"} in found
    assert {"2.mlp.down_proj"} in found
    assert len(found) == 12


def test_all_experts_of_a_block_are_decided_together(sparse: core.Model) -> None:
    gate_up = {f"0.mlp.experts.{expert}.{kind}_proj" for expert in range(3) for kind in ("gate", "up")}
    down = {f"0.mlp.experts.{expert}.down_proj" for expert in range(3)}
    assert gate_up in names(decided(sparse))
    assert down in names(decided(sparse))
    assert gate_up | down in names(decided(sparse, "modelopt"))


def test_all_experts_are_decided_together_where_they_are_read_by_one_scheme(sparse: core.Model) -> None:
    assert [len(group) for group in names(decided(sparse, "compressed-tensors"))].count(18) == 1
    layout, reader = core.layout_for("compressed-tensors", "vllm")
    assert [len(item.layers) for item in decide(sparse, LINEAR, layout, reader).items].count(9) == 2


def test_experts_that_the_reader_finds_packed_only_are_never_kept(sparse: core.Model) -> None:
    for reader in ("transformers", "vllm"):
        layout, reader = core.layout_for("compressed-tensors", reader)
        decisions = decide(sparse, LINEAR, layout, reader)
        kept = {
            sparse.layers[item.layers[0]].role
            for item in decisions.items
            if any(option.format == core.KEEP for option in item.options)
        }
        assert kept == ({"linear"} if reader == "transformers" else {"linear", "expert"})


def test_options_are_what_the_layout_can_store(dense: core.Model, sparse: core.Model) -> None:
    stored = core.LAYOUTS["mlx"].formats
    assert formats(decided(dense)) == [*(name for name in core.FORMATS if name in stored), core.KEEP]
    assert {"nvfp4-2t", "nvfp4-3t", core.KEEP} <= set(formats(decided(dense, "modelopt")))
    assert not {"int4-g32", "mxfp4"} & set(formats(decided(dense, "modelopt")))
    (experts,) = (item for item in decided(sparse, "compressed-tensors").items if len(item.layers) > 3)
    assert "nvfp4-3t" not in {option.format for option in experts.options} > {"nvfp4-2t", "mxfp4"}


def test_formats_that_are_read_alone_only_are_no_options(dense: core.Model) -> None:
    assert "fp8-channel" in core.LAYOUTS["modelopt"].formats
    assert "fp8-channel" not in formats(decided(dense, "modelopt"))
    rule = core.Rule(names=("*layers.0*q_proj",), format="fp8-channel")
    with pytest.raises(core.PlanError, match=r"is pinned to fp8-channel: .*for all layers or none"):
        decided(dense, "modelopt", rule)


def test_forbidden_formats_are_no_options(dense: core.Model) -> None:
    found = decided(dense, forbidden={"mxfp4", "keep"})
    assert not {"mxfp4", "keep"} & {option.format for item in found.items for option in item.options}
    with pytest.raises(core.PlanError, match=r"every format that .* can be stored in is forbidden"):
        decided(dense, forbidden={*core.FORMATS, "keep"})


def test_a_pin_holds_for_all_that_is_decided_together(dense: core.Model) -> None:
    found = decided(dense, "mlx", core.Rule(names=("*layers.0*q_proj",), format="mxfp8"), forbidden={"mxfp8"})
    pinned = [{option.format for option in item.options} for item in found.items if len(item.layers) == 3]
    assert pinned == [{"mxfp8"}, *pinned[1:]]
    assert all("mxfp8" not in others for others in pinned[1:])


def test_pins_that_can_not_hold_are_refused(dense: core.Model) -> None:
    rules = [
        core.Rule(names=(f"*layers.0*{kind}_proj",), format=name) for kind, name in (("q", "mxfp8"), ("k", "mxfp4"))
    ]
    with pytest.raises(core.PlanError, match=r"pinned to mxfp8: .*q_proj, to mxfp4: .*k_proj, which get one format"):
        decided(dense, "mlx", *rules)
    with pytest.raises(core.PlanError, match=r"is pinned to mxfp4: layout modelopt can not store mxfp4"):
        decided(dense, "modelopt", rules[1])


def test_a_plan_that_keeps_everything_is_refused(dense: core.Model) -> None:
    with pytest.raises(core.PlanError, match="keeps every layer"):
        decided(dense, "mlx", core.Rule(format=core.KEEP))


@pytest.mark.parametrize("layout", sorted(core.LAYOUTS))
def test_a_plan_of_any_options_comes_to_them_in_exactly_their_bytes(
    dense: core.Model, sparse: core.Model, layout: str
) -> None:
    chance = random.Random(layout)  # noqa: S311 - the same each time
    for model in (dense, sparse):
        decisions = decided(model, layout)
        for _ in range(4):
            options = [chance.choice(item.options) for item in decisions.items]
            choices = core.resolve(planned(decisions, options), model)
            found, refusals = core.fitted(decisions.layout, decisions.reader, model, choices)
            assert not refusals
            assert [choice.recipe for choice in found] == [choice.recipe for choice in decisions.choices(options)]
            told = decisions.settled_nbytes + sum(option.nbytes for option in options)
            assert told == sum(shard.data_nbytes for shard in plan_shards(model, found, decisions.layout))


def test_layers_of_a_kind_that_agree_are_one_rule(sparse: core.Model) -> None:
    decisions = decided(sparse)
    options = [next(o for o in item.options if o.format == "mxfp8") for item in decisions.items]
    plan = planned(decisions, options)
    assert [rule.names for rule in plan.rules if "down" in str(rule)] == [("model.layers.*.mlp.experts.*.down_proj",)]
    assert not any(rule.blocks for rule in plan.rules)
