"""Planner: what budgets come to, against trying everything; single formats; the curve; what can not be kept."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from studio import core
from studio.core.budgets.decisions import decide
from studio.core.budgets.parts import part_names
from studio.core.budgets.planner import Planner
from studio.core.budgets.sensitivity import Sensitivity
from tests.core.budgets.conftest import LINEAR, priced
from tests.core.statistics_files import statistics_of

KNOWN = 0.5
"""KL per unit of damage in the sensitivity of these tests."""


def planner(
    engine: core.Engine, model: core.Model, folder: Path, *rules: core.Rule, layout: str = "mlx", known: bool = True
) -> Planner:
    decisions = decide(model, LINEAR.preceded_by(rules), *core.layout_for(layout, ""))
    costs = priced(engine, decisions, folder)
    return Planner(costs, Sensitivity(dict.fromkeys(part_names(costs), KNOWN)) if known else None)


@pytest.mark.proof
def test_no_mix_of_that_size_does_less_damage(engine: core.Engine, sparse: core.Model, tmp_path: Path) -> None:
    pins = [core.Rule(names=("*o_proj",), format="mxfp8"), core.Rule(names=("*.0.*q_proj",), format="int4-g32")]
    found = planner(engine, sparse, tmp_path, *pins, layout="mlx", known=False)
    tried = list(itertools.product(*(item.options for item in found.decisions.items)))
    tried = tried[:: max(len(tried) // 20_000, 1)]
    sizes = [sum(option.nbytes for option in options) for options in tried]
    damages = [damage_of(found, options) for options in tried]
    for limit in np.quantile(sizes, [0.02, 0.2, 0.5, 0.8]):
        mix = found.within_nbytes(int(limit) + found.decisions.settled_nbytes)
        assert mix.gap == 0
        assert mix.nbytes <= limit + found.decisions.settled_nbytes
        assert mix.damage == pytest.approx(damage_of(found, mix.options))
        assert mix.damage <= min(d for d, size in zip(damages, sizes, strict=True) if size <= limit) * (1 + 1e-9)


def damage_of(found: Planner, options: tuple[object, ...]) -> float:
    return sum(map(found.costs.damage, found.decisions.items, options))


def test_pins_and_layouts_hold_in_every_mix(engine: core.Engine, dense: core.Model, tmp_path: Path) -> None:
    pin = core.Rule(names=("*layers.1*down_proj",), format="int8-g64")
    found = planner(engine, dense, tmp_path, pin)
    for share in (0.0, 0.3, 0.9):
        plan = found.plan(found.within_nbytes(int(found.least_nbytes * (1 + share))))
        formats = {choice.layer.name: choice.format for choice in core.resolve(plan, dense)}
        assert formats["model.layers.1.mlp.down_proj"] == "int8-g64"
        for block in range(3):
            assert len({formats[f"model.layers.{block}.self_attn.{kind}_proj"] for kind in "qkv"}) == 1


def test_a_mix_is_never_worse_than_a_single_format_of_its_size(
    engine: core.Engine, dense: core.Model, tmp_path: Path
) -> None:
    found = planner(engine, dense, tmp_path)
    for name in {str(option) for item in found.decisions.items for option in item.options}:
        single = found.uniform(name)
        assert found.within_nbytes(single.nbytes).kl <= single.kl * (1 + 1e-9)
        assert found.within_kl(single.kl).nbytes <= single.nbytes


def test_the_curve_falls_and_ends_where_nothing_is_lost(engine: core.Engine, dense: core.Model, tmp_path: Path) -> None:
    found = planner(engine, dense, tmp_path)
    sizes, kl = found.curve()
    assert (np.diff(sizes) > 0).all()
    assert (np.diff(kl) < 0).all()
    assert (sizes[0], kl[-1]) == (found.least_nbytes, 0)
    assert [found.within_nbytes(int(size)).kl for size in sizes] == pytest.approx(list(kl), abs=1e-12)


def test_a_kl_is_kept_by_the_smallest_mix(engine: core.Engine, dense: core.Model, tmp_path: Path) -> None:
    found = planner(engine, dense, tmp_path)
    mix = found.within_kl(0.02)
    assert mix.kl <= 0.02 * (1 + 1e-9)
    with_less = found.within_nbytes(mix.nbytes - 1)
    assert with_less.kl > 0.02
    assert found.within_kl(0.0).kl == 0


def test_a_relative_error_is_kept_by_every_layer(engine: core.Engine, dense: core.Model, tmp_path: Path) -> None:
    found = planner(engine, dense, tmp_path, known=False)
    mix = found.within_rel_err(0.1)
    assert mix.kl is None
    events = list(core.measure(engine, dense, found.decisions.choices(mix.options)))
    measured = [layer for layer in events[-1].outcome.layers if layer.quantized]
    assert max(layer.rel_err for layer in measured) <= 0.1
    assert mix.nbytes < found.within_rel_err(0.01).nbytes
    assert {layer.format for layer in measured} <= {"nvfp4-2t", "nvfp4-3t", "int4-g32", "int4-g64"}


def test_the_files_of_an_export_keep_their_size(engine: core.Engine, sparse: core.Model, tmp_path: Path) -> None:
    found = planner(engine, sparse, tmp_path, layout="mlx")
    least = found.file_nbytes(found.within_nbytes(found.least_nbytes))
    for budget in (least + 3000, least + 30_000, least + 100_000):
        mix = found.within_file_nbytes(budget)
        layout, _ = core.layout_for("mlx", "")
        plan = found.plan(mix)
        job = core.prepare(sparse, plan, core.resolve(plan, sparse), layout, tmp_path / "out")
        written = sum(shard.nbytes for shard in job.shards)
        assert written == found.file_nbytes(mix) <= budget
        assert budget - written < 20_000


def test_what_can_not_be_kept_is_refused_with_what_can(engine: core.Engine, dense: core.Model, tmp_path: Path) -> None:
    found = planner(engine, dense, tmp_path)
    with pytest.raises(core.PlanError, match=f"the smallest takes {found.least_nbytes:,}"):
        found.within_nbytes(found.least_nbytes - 1)
    with pytest.raises(core.PlanError, match="the smallest export takes"):
        found.within_file_nbytes(found.least_nbytes)
    blind = Planner(found.costs)
    with pytest.raises(core.PlanError, match="nothing is known of what damage means"):
        blind.within_kl(0.1)
    rules = [core.Rule(names=("*down_proj",), format="mxfp4")]
    bound = planner(engine, dense, tmp_path, *rules)
    with pytest.raises(core.PlanError, match="the finest is predicted to have"):
        bound.within_kl(bound.least_kl / 2)
    with pytest.raises(core.PlanError, match=r"the finest has 0\.1"):
        bound.within_rel_err(0.05)
    assert not math.isnan(bound.least_kl)


def test_pins_and_formats_are_taken_without_pricing_again(
    engine: core.Engine, dense: core.Model, tmp_path: Path
) -> None:
    found = planner(engine, dense, tmp_path)
    pin = next(option for option in found.decisions.items[3].options if option.format == "mxfp8")
    bound = found.narrowed({3: pin}, {"int8-g64", "int8-g128"})
    rules = [core.Rule(names=("*layers.0*down_proj",), format="mxfp8")]
    layout, reader = core.layout_for("mlx", "")
    decisions = decide(dense, LINEAR.preceded_by(rules), layout, reader, {"int8-g64", "int8-g128"})
    anew = Planner(priced(engine, decisions, tmp_path), found.sensitivity)
    assert dense.layers[found.decisions.items[3].layers[0]].name == "model.layers.0.mlp.down_proj"
    for share in (1.05, 1.2, 1.5):
        mix, other = (one.within_nbytes(int(found.least_nbytes * share)) for one in (bound, anew))
        assert (mix.nbytes, mix.kl, mix.options) == (other.nbytes, pytest.approx(other.kl), other.options)
    assert found.within_nbytes(int(found.least_nbytes * 1.5)).options != mix.options
    with pytest.raises(core.PlanError, match="no mix keeps every layer at a relative error"):
        bound.within_rel_err(0.01)
    with pytest.raises(core.PlanError, match="down_proj is left without a format"):
        planner(engine, dense, tmp_path, *rules).narrowed({}, {"mxfp8"})


def test_what_changes_between_two_budgets_is_told(engine: core.Engine, dense: core.Model, tmp_path: Path) -> None:
    found = planner(engine, dense, tmp_path)
    small, large = (found.within_nbytes(int(found.least_nbytes * share)) for share in (1.1, 1.15))
    changes = found.changes(small, large)
    assert found.changes(small, small) == []
    assert 0 < len(changes) < len(found.decisions.items)
    assert sum(change.nbytes for change in changes) == large.nbytes - small.nbytes
    assert sum(change.damage for change in changes) == pytest.approx(large.damage - small.damage)
    formats = [core.resolve(found.plan(mix), dense) for mix in (small, large)]
    moved = {index for index in range(len(dense.layers)) if formats[0][index].recipe != formats[1][index].recipe}
    assert {index for change in changes for index in change.layers} == moved
    for change in changes:
        assert all(core.Rule(blocks=change.blocks).matches(dense.layers[index]) for index in change.layers)
        assert all(change.new.startswith(formats[1][index].format) for index in change.layers)


def test_what_a_mix_gives_to_how_many_layers_adds_up(engine: core.Engine, sparse: core.Model, tmp_path: Path) -> None:
    found = planner(engine, sparse, tmp_path)
    mix = found.within_nbytes(int(found.least_nbytes * 1.2))
    shares = found.shares(mix)
    assert sum(nbytes for _, _, nbytes in shares) + found.decisions.settled_nbytes == mix.nbytes
    chosen = [choice.format for choice in found.decisions.choices(mix.options) if choice.recipe]
    assert {name: count for name, count, _ in shares if name != "keep"} == {
        name: sum(f == name.partition("/")[0] for f in chosen) for name, _, _ in shares if name != "keep"
    }


def test_a_plan_is_told_as_the_mix_that_it_is(engine: core.Engine, dense: core.Model, tmp_path: Path) -> None:
    found = planner(engine, dense, tmp_path)
    mix = found.within_nbytes(int(found.least_nbytes * 1.2))
    pinned = found.pinned([core.Rule(names=("*down_proj",), format="mxfp8")])
    for one in (found, pinned):
        again = one.mix_of(core.resolve(found.plan(mix), dense))
        assert (again.options, again.nbytes, again.damage) == (mix.options, mix.nbytes, mix.damage)
    assert found.mix_of(core.resolve(core.Plan((core.Rule(roles=("linear",), format="fp8-tensor"),)), dense)) is None


def test_feedback_is_priced_as_what_it_begins_with_and_says_so(
    engine: core.Engine, dense: core.Model, tmp_path: Path
) -> None:
    guided = core.with_statistics(dense, core.open_statistics(statistics_of(dense, tmp_path / "s"), dense))
    layout, reader = core.layout_for("mlx", "")
    found = {}
    for method in ("feedback", "hessian"):
        decisions = decide(guided, LINEAR.with_method(method), layout, reader)
        found[method] = Planner(priced(engine, decisions, tmp_path))
    assert found["feedback"].cautions == ["feedback is priced as hessian: --probe tells what it gains beyond that"]
    assert found["hessian"].cautions == []
    damages = [one.within_nbytes(one.least_nbytes + 4000).damage for one in found.values()]
    assert damages[0] == pytest.approx(damages[1])
    assert "nvfp4-3t/feedback" in {name for name, _ in found["feedback"].uniforms()}


def test_rules_pin_decisions(engine: core.Engine, dense: core.Model, tmp_path: Path) -> None:
    found = planner(engine, dense, tmp_path)
    mix = found.pinned([core.Rule(names=("*.1.*up_proj",), format="mxfp8")]).within_nbytes(
        int(found.least_nbytes * 1.2)
    )
    formats = {c.layer.name: c.format for c in found.decisions.choices(mix.options)}
    assert formats["model.layers.1.mlp.gate_proj"] == formats["model.layers.1.mlp.up_proj"] == "mxfp8"
    single = found.pinned([core.Rule(names=("*.1.*up_proj",), format="mxfp8")]).uniform("int8-g64/max")
    assert {option.format for option in single.options} == {"int8-g64", "mxfp8"}
    assert found.pinned([]).within_nbytes(mix.nbytes).options == found.within_nbytes(mix.nbytes).options
    torn = [core.Rule(names=(f"*.1.*{kind}_proj",), format=name) for kind, name in (("up", "mxfp8"), ("gate", "mxfp4"))]
    with pytest.raises(core.PlanError, match="its others have another format"):
        found.pinned(torn)
    with pytest.raises(core.PlanError, match="it can not have nvfp4-3t"):
        found.pinned([core.Rule(names=("*.1.*up_proj",), format="nvfp4-3t", method="max")]).within_nbytes(mix.nbytes)
