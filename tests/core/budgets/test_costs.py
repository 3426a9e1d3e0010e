"""Costs: the error of outputs against a plain computation, what is measured once, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from studio import core
from studio.core.budgets import stacks
from studio.core.budgets.costs import Costs
from studio.core.budgets.decisions import Decisions, decide
from studio.core.budgets.pricing import price
from studio.core.budgets.records import Records
from studio.core.statistics import open_statistics, with_statistics
from tests.core.budgets.conftest import LINEAR, ended, priced
from tests.core.checkpoints import CONFIG, checkpoint, llama
from tests.core.statistics_files import statistics_of

DOWN = "model.layers.1.mlp.down_proj"


def costs_of(engine: core.Engine, model: core.Model, folder: Path) -> Costs:
    return priced(engine, decide(model, LINEAR, *core.layout_for("mlx", "")), folder)


def decoded(engine: core.Engine, layer: core.Layer, choice: core.Choice) -> np.ndarray:
    """What a choice without a tensor scale makes of a layer, and the layer itself."""
    matrix = layer.matrices[0]
    weights = layer.source.rows(matrix, 0, matrix.rows)
    context = choice.guide.context(matrix) if choice.guide else None
    quantized = engine.backend.encode(weights, choice.recipe, context=context).quantized
    return weights.astype(np.float64), engine.backend.decode(quantized).astype(np.float64)


@pytest.mark.parametrize("known", ["nothing", "statistics"])
@pytest.mark.parametrize("name", ["nvfp4-2t", "mxfp4"])
def test_damage_is_the_relative_squared_error_of_the_outputs(
    engine: core.Engine, dense: core.Model, tmp_path: Path, known: str, name: str
) -> None:
    model = dense
    if known == "statistics":
        model = with_statistics(dense, open_statistics(statistics_of(dense, tmp_path / "s.safetensors"), dense))
    costs = costs_of(engine, model, tmp_path)
    item = next(i for i in costs.decisions.items if model.layers[i.layers[0]].name == DOWN)
    option = next(option for option in item.options if option.format == name)
    weights, found = decoded(engine, model.by_name[DOWN], costs.decisions.choice(item.layers[0], option))
    squares = np.linspace(0.1, 4.0, weights.shape[1]) if known == "statistics" else np.ones(weights.shape[1])
    expected = ((weights - found) ** 2 @ squares).sum() / (weights**2 @ squares).sum()
    assert costs.damage(item, option) == pytest.approx(expected, rel=1e-5)
    assert costs.rel_err(item, option) == pytest.approx(np.sqrt(((weights - found) ** 2).sum() / (weights**2).sum()))


def test_errors_are_those_that_measuring_finds(engine: core.Engine, sparse: core.Model, tmp_path: Path) -> None:
    costs = costs_of(engine, sparse, tmp_path)
    decisions = costs.decisions
    for name in ("nvfp4-3t", "int4-g32", "int8-g64"):
        options = [next(o for o in item.options if o.format == name) for item in decisions.items]
        events = list(core.measure(engine, sparse, decisions.choices(options)))
        measured = {result.name: result.rel_err for result in events[-1].outcome.layers}
        for item, option in zip(decisions.items, options, strict=True):
            for index in item.layers:
                assert costs.of(index, option).rel_err == pytest.approx(measured[sparse.layers[index].name], rel=1e-6)


@pytest.mark.parametrize("layout", sorted(core.LAYOUTS))
def test_every_option_of_every_layout_has_the_error_that_measuring_finds(
    engine: core.Engine, tmp_path: Path, layout: str
) -> None:
    tensors = llama(1, hidden=192, inner=320)
    with core.open_model(checkpoint(tmp_path / "odd", tensors, config={**CONFIG, "num_hidden_layers": 1})) as model:
        small = replace(engine, slab_nbytes=20_000)
        decisions = decide(model, LINEAR, *core.layout_for(layout, ""))
        costs = priced(small, decisions, tmp_path)
        names = {str(option) for item in decisions.items for option in item.options} - {core.KEEP}
        assert len(names) > 2
        for name in names:
            options = [next((o for o in item.options if str(o) == name), item.options[-1]) for item in decisions.items]
            events = list(core.measure(small, model, decisions.choices(options)))
            measured = {result.name: result.rel_err for result in events[-1].outcome.layers if result.quantized}
            for item, option in zip(decisions.items, options, strict=True):
                for index in item.layers if option.format != core.KEEP else ():
                    assert costs.of(index, option).rel_err == pytest.approx(
                        measured[model.layers[index].name], rel=1e-6
                    )


@pytest.mark.parametrize("known", ["nothing", "statistics"])
def test_small_matrices_cost_together_what_they_cost_one_by_one(
    engine: core.Engine, sparse: core.Model, tmp_path: Path, known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = sparse
    if known == "statistics":
        model = with_statistics(sparse, open_statistics(statistics_of(sparse, tmp_path / "s.safetensors"), sparse))
    together = costs_of(engine, model, tmp_path / "together")
    monkeypatch.setattr(stacks, "BUNDLE_NBYTES", 1)
    assert costs_of(engine, model, tmp_path / "alone").known == together.known


def test_a_kept_layer_costs_nothing(engine: core.Engine, dense: core.Model, tmp_path: Path) -> None:
    costs = costs_of(engine, dense, tmp_path)
    item = costs.decisions.items[0]
    assert costs.damage(item, item.options[-1]) == costs.rel_err(item, item.options[-1]) == 0


def first_decisions(model: core.Model) -> Decisions:
    return decide(model, LINEAR, *core.layout_for("mlx", ""))


def test_what_was_measured_is_not_measured_again(engine: core.Engine, dense: core.Model, tmp_path: Path) -> None:
    first = costs_of(engine, dense, tmp_path)
    again = price(engine, first_decisions(dense), Records({}, tmp_path))
    assert next(again).total == 0
    assert ended(again).known == first.known
    assert first.known


def test_a_stopped_run_goes_on(engine: core.Engine, dense: core.Model, tmp_path: Path) -> None:
    engine = replace(engine, slab_nbytes=1 << 14)
    decisions, records = first_decisions(dense), Records({}, tmp_path / "stopped")
    events = price(engine, decisions, records)
    whole = next(events).total
    while not list(records):
        next(events)
    events.close()
    with next((tmp_path / "stopped").iterdir()).open("a") as file:
        file.write('{"cut sho')
    assert 0 < next(price(engine, decisions, records)).total < whole
    assert ended(price(engine, decisions, records)).known == costs_of(engine, dense, tmp_path / "other").known


def test_other_statistics_are_other_costs(engine: core.Engine, dense: core.Model, tmp_path: Path) -> None:
    plain = costs_of(engine, dense, tmp_path)
    guided = with_statistics(dense, open_statistics(statistics_of(dense, tmp_path / "s.safetensors"), dense))
    assert costs_of(engine, guided, tmp_path).known != plain.known


def test_weights_that_are_no_numbers_are_refused(engine: core.Engine, tmp_path: Path) -> None:
    tensors = {name: data.copy() for name, data in llama().items()}
    tensors[f"{DOWN}.weight"][0, 0] = np.nan
    with (
        core.open_model(checkpoint(tmp_path / "bad", tensors)) as model,
        pytest.raises(core.CheckpointError, match="NaN"),
    ):
        costs_of(engine, model, tmp_path)
