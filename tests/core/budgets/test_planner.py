"""Planner: what budgets come to, against trying everything; single formats; the curve; what can not be kept."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from studio import core
from studio.core.budgets.decisions import decide
from studio.core.budgets.planner import Planner
from studio.core.budgets.sensitivity import Sensitivity, part_names
from tests.core.budgets.conftest import LINEAR, priced

KNOWN = 0.5
"""KL per unit of damage in the sensitivity of these tests."""


def planner(
    engine: core.Engine, model: core.Model, folder: Path, *rules: core.Rule, layout: str = "mlx", known: bool = True
) -> Planner:
    decisions = decide(model, LINEAR.preceded_by(rules), *core.layout_for(layout, ""))
    parts = dict.fromkeys(part_names(decisions.items), KNOWN)
    return Planner(priced(engine, decisions, folder), Sensitivity(parts) if known else None)


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
