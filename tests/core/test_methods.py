"""Methods in plans, exports and what is kept of them: the recipe is the whole of it, and the norm in front guides."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from kernels import Context, importance_of, recipe, reference
from studio import core
from tests.core.checkpoints import checkpoint, gaussian, llama
from tests.core.conftest import Studio

METHODS = ("max", "four-six", "search", "importance")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tensors = llama(2)
    for name, tensor in tensors.items():
        if "norm" in name:
            spread = np.exp(np.random.default_rng(len(name)).standard_normal(tensor.shape))
            tensors[name] = spread.astype(ml_dtypes.bfloat16)
    return checkpoint(tmp_path / "model", tensors, config={"model_type": "llama", "num_hidden_layers": 2})


def _choices(model: core.Model, method: str) -> dict[str, core.Choice]:
    return {c.layer.name: c for c in core.resolve(core.preset("linear").with_method(method), model)}


def test_layers_behind_a_norm_are_guided_by_it_and_others_by_nothing(source: Path) -> None:
    with core.open_model(source) as model:
        found = _choices(model, "hessian")
        assert found["model.layers.0.self_attn.q_proj"].method == "importance"
        assert found["model.layers.1.mlp.up_proj"].guide.meaning.startswith(
            "norm model.layers.1.post_attention_layernorm.weight,"
        )
        assert found["model.layers.0.self_attn.o_proj"].method == "search"
        assert found["model.layers.0.mlp.down_proj"].guide is None


def test_an_importance_is_the_square_of_the_norm(source: Path, studio: Studio, tmp_path: Path) -> None:
    with core.open_model(source) as model:
        layer = model.by_name["model.layers.0.mlp.gate_proj"]
        weights = layer.source.rows(layer.matrices[0], 0, layer.matrices[0].rows)
        norm = model.by_name["model.layers.0.post_attention_layernorm"].source.stored
        raw = np.frombuffer(norm.file.read(norm.tensor.start, norm.tensor.nbytes), ml_dtypes.bfloat16)
    context = Context(importance_of(raw.astype(np.float32) ** 2))
    want = reference.encode(weights, recipe("nvfp4-2t", "ceil", "importance"), 1.0, context)
    target = tmp_path / "out"
    assert studio("quantize", source, target, "--format", "nvfp4-2t", "--method", "importance").code == 0
    with core.open_model(target) as after:
        layer = after.by_name["model.layers.0.mlp.gate_proj"]
        got = layer.source.rows(layer.matrices[0], 0, layer.matrices[0].rows)
    assert np.array_equal(got, reference.decode(want))


@pytest.mark.parametrize("layout", ["mlx", "compressed-tensors"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_exports_what_verifies_and_is_said(
    source: Path, studio: Studio, tmp_path: Path, method: str, layout: str
) -> None:
    target = tmp_path / "out"
    assert studio("quantize", source, target, "--method", method, "--layout", layout).code == 0
    assert studio("verify", target, "--source", source).code == 0
    manifest = json.loads((target / "nvfp4_studio.json").read_text())
    assert manifest["plan"]["method"] == method
    told = {layer["name"]: (layer.get("method"), layer.get("guide", "")) for layer in manifest["layers"]}
    assert told["model.layers.0.self_attn.q_proj"] == (method, "norm" if method == "importance" else "")
    with core.open_model(target) as model:
        choices = {choice.layer.name: choice for choice in core.exported(model).choices}
        assert choices["model.layers.0.self_attn.q_proj"].method == method


def test_the_error_falls_with_the_search(source: Path, studio: Studio) -> None:
    def error(method: str) -> float:
        events = [json.loads(line) for line in studio("measure", source, "--method", method, "--json").out.splitlines()]
        layers = [event for event in events if event.get("event") == "layer" and event.get("rel_err")]
        return sum(layer["sum_error"] for layer in layers)

    assert error("search") < error("four-six") < error("max")


def test_a_method_is_chosen_by_rule_and_on_the_command_line(source: Path, studio: Studio) -> None:
    with core.open_model(source) as model:
        rule = core.include_rule("*.down_proj=nvfp4-2t/max", "nvfp4-3t")
        choices = core.resolve(core.preset("linear").with_method("search").preceded_by([rule]), model)
        found = {choice.layer.name: (choice.format, choice.method) for choice in choices}
    assert found["model.layers.0.mlp.down_proj"] == ("nvfp4-2t", "max")
    assert found["model.layers.0.mlp.up_proj"] == ("nvfp4-3t", "search")
    hand = core.hand_rules({"model.layers.0.mlp.down_proj": "nvfp4-2t/max"}, list(found))
    plan = core.preset("linear").with_method("search")
    line = core.command_line("measure", source, plan, hand)
    assert "--method search" in line
    assert "--include model.layers.0.mlp.down_proj=nvfp4-2t/max" in line
    assert core.plan_from_json(json.loads(json.dumps(plan.preceded_by(hand).to_json()))) == plan.preceded_by(hand)
    refused = studio("measure", source, "--include", "*.down_proj=nvfp4-2t/best")
    assert refused.code == 2
    assert "unknown method 'best'" in refused.err


def test_a_run_with_another_method_does_not_go_on_with_a_stopped_one(source: Path, tmp_path: Path) -> None:
    from studio.core.exporting import steps

    def identity(method: str) -> dict[str, object]:
        with core.open_model(source) as model:
            plan = core.preset("linear").with_method(method)
            layout, reader = core.layout_for("mlx", "")
            job = core.prepare(model, plan, core.resolve(plan, model), layout, tmp_path / "out", reader=reader)
            return steps.identity(job)

    assert identity("search")["plan"] != identity("max")["plan"]


def test_results_are_kept_by_method(source: Path) -> None:
    with core.open_model(source) as model, core.start(core.Machine("cpu", 1)) as engine:
        lines = core.ResultLines(model)
        kept = {}
        for method in ("max", "importance"):
            choice = _choices(model, method)["model.layers.0.self_attn.q_proj"]
            outcome = list(core.measure(engine, model, [choice]))[-1].outcome
            kept[method] = lines.known(lines.line(choice, (), outcome.layers[0]))
        assert kept["max"][0].method == "max"
        assert kept["importance"][0].method == "importance"
        assert kept["max"][2].sum_error != kept["importance"][2].sum_error
        cache = core.ResultCache(kept.values())
        assert cache.find(kept["max"][0], ()).method == "max"
        assert cache.find(_choices(model, "search")["model.layers.0.self_attn.q_proj"], ()) is None


def test_four_six_leaves_its_larger_scales_room(source: Path) -> None:
    with core.open_model(source) as model, core.start(core.Machine("cpu", 1)) as engine:
        for method, divisor in (("max", 2688), ("four-six", 1536)):
            choice = _choices(model, method)["model.layers.0.mlp.down_proj"]
            result = list(core.measure(engine, model, [choice]))[-1].outcome.layers[0]
            assert result.tensor_scales == (float(np.float32(result.statistics.max_abs) / np.float32(divisor)),)


def test_norms_of_another_width_or_of_an_unknown_model_guide_nothing(tmp_path: Path) -> None:
    tensors = llama(1) | {"model.layers.0.input_layernorm.weight": gaussian(32)}
    odd = checkpoint(tmp_path / "odd", tensors, config={"model_type": "llama", "num_hidden_layers": 1})
    strange = checkpoint(tmp_path / "strange", llama(1), config={"model_type": "never_seen", "num_hidden_layers": 1})
    with core.open_model(odd) as one, core.open_model(strange) as other:
        assert one.by_name["model.layers.0.self_attn.q_proj"].guide is None
        assert all(layer.guide is None for layer in other.layers)


def test_integers_are_searched_only_when_that_is_asked_for(source: Path) -> None:
    with core.open_model(source) as model:
        layer = model.by_name["model.layers.0.mlp.gate_proj"]
        found = {method: core.choose_format(layer, "int4-g32", "ceil", method).method for method in core.METHODS}
        assert found == dict.fromkeys(core.METHODS, "max") | {"search": "search"}
        assert core.choose_format(layer, "mxfp4", "ceil", "hessian").method == "search"
        assert core.choose_format(layer, "mxfp8", "ceil", "hessian").method == "max"
