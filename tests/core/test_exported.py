"""An export of ours that is opened shows the layers of the model, decoded, with what its manifest knows of them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from studio import core
from tests.core.checkpoints import checkpoint, gaussian, llama
from tests.core.conftest import Studio
from tests.core.gguf_sources import made

MIXTURE = {
    "model.embed_tokens.weight": gaussian(64, 64),
    "model.layers.0.self_attn.q_proj.weight": gaussian(64, 64, seed=1),
    "model.layers.0.mlp.gate.weight": gaussian(4, 64, seed=2),
    "model.layers.0.mlp.experts.gate_up_proj": gaussian(4, 128, 64, seed=3),
    "model.layers.0.mlp.experts.down_proj": gaussian(4, 64, 64, seed=4),
    "model.norm.weight": gaussian(64, seed=5),
    "lm_head.weight": gaussian(64, 64, seed=6),
}
QWEN = {"model_type": "qwen3_5_moe_text", "architectures": ["Qwen3_5MoeForCausalLM"], "num_hidden_layers": 1}


@pytest.fixture(params=["dense", "mixture"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "dense":
        return checkpoint(tmp_path / "model", llama(2), shards=2)
    return checkpoint(tmp_path / "model", MIXTURE, config=QWEN)


@pytest.mark.parametrize("format_name", ["nvfp4-3t", "mxfp4", "int4-g32"])
@pytest.mark.parametrize("layout", list(core.LAYOUTS))
def test_every_layer_is_there_with_its_format_its_error_and_its_weights(
    studio: Studio, source: Path, tmp_path: Path, layout: str, format_name: str
) -> None:
    if format_name not in core.LAYOUTS[layout].formats:
        pytest.skip("the layout has no such format")
    target = tmp_path / "out"
    assert studio("quantize", source, target, "--layout", layout, "--format", format_name).code == 0
    with core.open_model(source) as before, core.open_model(target) as after:
        found = core.exported(after)
        assert found is not None
        assert found.layout.name == layout
        assert after.quantized_by.startswith(f"by NVFP4 Studio, layout {layout}, ")
        assert after.count == before.count
        assert not after.warnings
        quantized = [choice for choice in found.choices if choice.recipe]
        assert {choice.format for choice in quantized} <= {format_name, "nvfp4-2t"}
        results = {result.name: result for result in found.results}
        assert set(results) == {layer.name for layer in before.layers}
        for choice in quantized:
            layer, whole = choice.layer, before.by_name[choice.layer.name]
            assert (layer.shape, layer.role, layer.block) == (whole.shape, whole.role, whole.block)
            errors = [compared(layer, whole, matrix) for matrix in range(len(layer.matrices))]
            rel_err = np.sqrt(sum(error for error, _ in errors) / sum(square for _, square in errors))
            assert rel_err == pytest.approx(results[layer.name].rel_err, rel=1e-4)
            assert 0 < rel_err < 0.2


def compared(layer: core.Layer, whole: core.Layer, number: int) -> tuple[float, float]:
    """Sums of squared errors and of squares of a matrix that is decoded from the export."""
    matrix, there = whole.matrices[number], layer.matrices[number]
    assert (there.name, there.rows, there.columns) == (matrix.name, matrix.rows, matrix.columns)
    right = whole.source.rows(matrix, 0, matrix.rows).astype(np.float64)
    decoded = layer.source.rows(there, 0, there.rows)
    part = layer.source.rows(there, 3, 7)
    np.testing.assert_array_equal(part, decoded[3:7])
    return float(((decoded - right) ** 2).sum()), float((right**2).sum())


def test_it_can_be_looked_at_and_says_where_it_runs(studio: Studio, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", llama(1))
    assert studio("quantize", source, tmp_path / "out", "--layout", "modelopt").code == 0
    with core.open_model(tmp_path / "out") as model, core.start(core.Machine(threads=1), model) as engine:
        found = core.exported(model)
        assert found is not None
        choice = next(choice for choice in found.choices if choice.recipe)
        detail = core.inspect_layer(engine, replace(choice, recipe=None))
        assert detail.a is None
        assert detail.sigma > 0
        assert core.claims(model, found.choices, found.layout)
    ran = studio("inspect", tmp_path / "out")
    assert "nvfp4-3t, 4.5" in ran.out
    assert "relative error" in ran.out
    assert "left out" not in ran.err


@pytest.mark.parametrize("damage", ["cut", "other tensors", "another shape", "schema"])
def test_a_manifest_that_is_not_true_is_told_and_the_tensors_are_shown_as_they_are(
    studio: Studio, tmp_path: Path, damage: str
) -> None:
    source, target = checkpoint(tmp_path / "model", llama(1)), tmp_path / "out"
    assert studio("quantize", source, target, "--layout", "modelopt").code == 0
    path = target / "nvfp4_studio.json"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    else:
        data = json.loads(path.read_text())
        layer = next(layer for layer in data["layers"] if "matrices" in layer)
        if damage == "other tensors":
            data["layers"].remove(layer)
        elif damage == "another shape":
            layer["matrices"][0]["parts"][0]["shape"][0] += 1
        else:
            data["schema"] = 99
        path.write_text(json.dumps(data))
    with core.open_model(target) as model:
        assert core.exported(model) is None
        assert any("not as its manifest says" in warning for warning in model.warnings)
        packed = [layer for layer in model.layers if layer.source.format]
        assert packed
        assert all(layer.source.meaning == "NVFP4, three tiers, ModelOpt" for layer in packed)


@pytest.mark.parametrize("layout", ["mlx", "modelopt", "compressed-tensors"])
@pytest.mark.parametrize("kind", ["stacks", "experts"])
def test_experts_that_were_kept_are_those_of_the_source(studio: Studio, tmp_path: Path, layout: str, kind: str) -> None:
    source = (
        checkpoint(tmp_path / "model", MIXTURE, config=QWEN)
        if kind == "stacks"
        else made(tmp_path / "model", "qwen3_moe")
    )
    target = tmp_path / "out"
    how = ("--layout", layout, "--exclude", "*experts*", *(["--for", "vllm"] if layout != "mlx" else []))
    assert studio("quantize", source, target, *how).code == 0
    with core.open_model(source) as before, core.open_model(target) as after:
        assert after.count == before.count
        for layer in before.layers:
            found = after.by_name[layer.name]
            if layer.role == "expert":
                assert found.shape == layer.shape
                np.testing.assert_array_equal(rows(found, found.whole), rows(layer, layer.whole))
                for own, theirs in zip(found.matrices, layer.matrices, strict=True):
                    assert own.name == theirs.name
                    np.testing.assert_array_equal(rows(found, own), rows(layer, theirs))


def rows(layer: core.Layer, matrix: object) -> np.ndarray:
    """All rows of a matrix, in slices that do not end where its experts do."""
    count = matrix.rows  # type: ignore[attr-defined]
    parts = [layer.source.rows(matrix, start, min(start + 37, count)) for start in range(0, count, 37)]  # type: ignore[arg-type]
    return np.concatenate([np.array(part, np.float32) for part in parts])
