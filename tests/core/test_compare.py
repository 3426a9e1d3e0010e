"""compare: two checkpoints of one model, whatever both are stored in, and the plan of one of them."""

import json
from pathlib import Path

import numpy as np
import pytest

from studio import core
from tests.core.checkpoints import checkpoint, llama
from tests.core.conftest import Studio
from tests.core.gguf_sources import made


def lines(text: str, kind: str) -> list[dict[str, object]]:
    """The JSON lines of one kind."""
    return [found for found in map(json.loads, text.splitlines()) if found["event"] == kind]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "model", llama(2))


def quantized(studio: Studio, source: Path, name: str, *options: str) -> Path:
    """The source, quantized beside it."""
    target = source.parent / name
    ran = studio("quantize", source, target, *options)
    assert ran.code == 0, ran.err
    return target


def test_both_sides_are_measured_against_the_source(studio: Studio, source: Path) -> None:
    a = quantized(studio, source, "a", "--layout", "modelopt", "--format", "nvfp4-3t", "--method", "max")
    b = quantized(studio, source, "b", "--layout", "mlx", "--format", "mxfp8", "--method", "max")
    ran = studio("compare", a, b, "--source", source, "--json")
    assert ran.code == 0, ran.err
    stated = {folder: {result.name: result.rel_err for result in core.exported_results(folder)} for folder in (a, b)}
    pairs = lines(ran.out, "pair")
    assert len(pairs) == 14
    for pair in pairs:
        assert (pair["format_a"], pair["format_b"]) == ("nvfp4-3t", "mxfp8")
        assert pair["error_a"] == pytest.approx(stated[a][str(pair["name"])], rel=1e-5)
        assert pair["error_b"] == pytest.approx(stated[b][str(pair["name"])], rel=1e-5)
    (found,) = lines(ran.out, "compared")
    assert found["only_a"] == found["only_b"] == found["lost"] == []


def test_without_a_source_b_is_measured_against_a(studio: Studio, source: Path) -> None:
    a = quantized(studio, source, "a", "--layout", "modelopt")
    same = source.parent / "same"
    assert studio("convert", a, same, "--layout", "mlx").code == 0
    assert "B decodes to the weights of A, bit by bit." in studio("compare", a, same).out
    ran = studio("compare", source, a)
    assert "B differs from A in 14 of" in ran.out
    assert "\n7 layers the same in both" in ran.out


@pytest.mark.parametrize("kind", ["llama", "qwen3_moe"])
def test_stacks_experts_and_gguf_are_the_same_layers(studio: Studio, tmp_path: Path, kind: str) -> None:
    source = made(tmp_path / "model", kind)
    mlx = quantized(studio, source, "mlx", "--layout", "mlx", "--format", "nvfp4-3t")
    (mlx / "nvfp4_studio.json").unlink()
    assert studio("convert", mlx, tmp_path / "x.gguf", "--layout", "gguf").code == 0
    for first, second in ((mlx, tmp_path / "x.gguf"), (tmp_path / "x.gguf", mlx)):
        ran = studio("compare", first, second)
        assert "B decodes to the weights of A, bit by bit." in ran.out
        assert "only" not in ran.out


def test_lifted_layers_are_compared_as_they_were(studio: Studio, tmp_path: Path) -> None:
    small = {name: (value / 8).astype(value.dtype) if "proj" in name else value for name, value in llama(1).items()}
    source = checkpoint(tmp_path / "model", small)
    how = ("--layout", "mlx", "--format", "nvfp4-2t", "--method", "max")
    lifted, bare = quantized(studio, source, "lifted", *how, "--lift"), quantized(studio, source, "bare", *how)
    assert any(result.lift for result in core.exported_results(lifted))
    ran = studio("compare", lifted, bare, "--source", source, "--json")
    assert all(0 < pair["error_a"] < 0.1 < pair["error_b"] < 1 for pair in lines(ran.out, "pair"))


def test_what_only_one_has_is_named_with_the_reason(studio: Studio, source: Path) -> None:
    tensors = llama(2)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    tensors["model.layers.1.mlp.down_proj.weight"] = tensors["model.layers.1.mlp.down_proj.weight"][:-2]
    tensors["model.extra.weight"] = np.zeros((4, 4), np.float32)
    other = checkpoint(source.parent / "other", tensors)
    ran = studio("compare", source, other)
    assert ran.code == 0
    assert "only A has 2 layers: " in ran.out
    assert "model.layers.1.mlp.up_proj" in ran.out
    assert "down_proj: of shape" in ran.out
    assert "only B has 2 layers" in ran.out
    assert "19 layers have the same weights in both, bit by bit, 4 layers are only in one of them." in ran.out
    assert "model.extra" in ran.out


def test_the_plan_of_b_quantizes_a_source_like_b(studio: Studio, source: Path) -> None:
    how = (
        "--format",
        "nvfp4-2t",
        "--method",
        "max",
        "--include",
        "*down_proj=mxfp8",
        "--exclude",
        "re:layers\\.0\\.mlp",
    )
    b, plan = quantized(studio, source, "b", "--layout", "mlx", *how), source.parent / "plan.json"
    assert studio("compare", source, b, "--plan", plan).code == 0
    again = quantized(studio, source, "again", "--layout", "mlx", "--plan", str(plan))
    ran = studio("compare", b, again)
    assert "B decodes to the weights of A, bit by bit." in ran.out
    assert "21 layers the same in both" in ran.out


def test_codes_that_no_plan_knows_are_told(studio: Studio, source: Path) -> None:
    fp8 = source.parent / "fp8"
    import ml_dtypes

    tensors = {
        name: (value.astype(np.float32) * 8).astype(ml_dtypes.float8_e4m3fn) if "proj" in name else value
        for name, value in llama(2).items()
    }
    checkpoint(fp8, tensors)
    ran = studio("compare", source, fp8, "--plan", source.parent / "plan.json")
    assert ran.code == 0, ran.err
    assert "no plan knows" in ran.out
    assert "14 layers of B kept" in ran.out
