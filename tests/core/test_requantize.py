"""quantize on what is quantized already: exports of ours and folders of others get another grid, and that is said."""

from pathlib import Path

import pytest

from studio import core
from tests.core.checkpoints import checkpoint, llama
from tests.core.conftest import Studio
from tests.core.gguf_sources import made

LAYOUTS = ("mlx", "modelopt", "compressed-tensors")
SAID = "errors are those against what is stored; convert keeps the codes"


@pytest.mark.parametrize("there", LAYOUTS)
@pytest.mark.parametrize("foreign", [False, True])
def test_another_grid_is_chosen_for_what_is_stored(studio: Studio, tmp_path: Path, there: str, foreign: bool) -> None:
    source, first, second = checkpoint(tmp_path / "model", llama(1)), tmp_path / "first", tmp_path / "second"
    how = ("--layout", there, "--format", "nvfp4-3t", "--method", "max", "--exclude", "*down_proj")
    assert studio("quantize", source, first, *how).code == 0
    if foreign:
        (first / "nvfp4_studio.json").unlink()
        (first / "SHA256SUMS").unlink()
    ran = studio("quantize", first, second, "--layout", "mlx", "--format", "mxfp8", "--method", "max")
    assert ran.code == 0, ran.err
    assert ran.err.count("quantized already, as ") == ran.err.count(SAID) == 1
    assert "6 layers like model.layers.0." in ran.err
    assert "or casts them" not in ran.err
    told = studio("plan", first, "--format", "mxfp4").err
    assert told.count(f"{SAID}, or casts them to mxfp4 where that is exact") == 1
    with core.open_model(first) as before, core.open_model(second) as after:
        assert [layer.name for layer in after.layers if layer.source.format] == [
            layer.name for layer in before.layers if "proj" in layer.name
        ]
    stated = {result.name: result.rel_err for result in core.exported_results(second)}
    assert all(0 < stated[name] < 0.05 for name in stated if "proj" in name)
    assert studio("verify", second, "--source", first).code == 0


def test_the_same_grid_keeps_what_it_can_hold(studio: Studio, tmp_path: Path) -> None:
    source, first, second = checkpoint(tmp_path / "model", llama(1)), tmp_path / "first", tmp_path / "second"
    how = ("--layout", "mlx", "--format", "mxfp4", "--method", "max")
    assert studio("quantize", source, first, *how).code == 0
    assert studio("quantize", first, second, *how).code == 0
    assert all(result.rel_err == 0 for result in core.exported_results(second))
    assert "B decodes to the weights of A, bit by bit." in studio("compare", first, second).out


def test_experts_and_gguf_are_sources_too(studio: Studio, tmp_path: Path) -> None:
    source, first = made(tmp_path / "model", "qwen3_moe"), tmp_path / "first"
    assert (
        studio(
            "quantize", source, first, "--layout", "mlx", "--format", "nvfp4-2t", "--exclude", "*experts*up_proj"
        ).code
        == 0
    )
    assert studio("quantize", first, tmp_path / "second", "--layout", "modelopt", "--for", "vllm").code == 0
    ran = studio("gguf", first, tmp_path / "x.gguf", "--format", "mxfp4")
    assert ran.code == 0, ran.err
    assert ran.err.count(SAID) == 1
    assert studio("plan", first).code == studio("measure", first).code == 0


def test_what_mlx_lm_stores_with_other_values_is_not_quantized_as_if_it_were_the_makers(
    studio: Studio, tmp_path: Path
) -> None:
    from tests.core.test_convert import mx_folder

    source = mx_folder(tmp_path / "mx", -9, -2)
    config = source / "config.json"
    config.write_text(config.read_text().replace('"llama"', '"qwen3_next"'))
    for layout in ("mlx", "modelopt"):
        ran = studio("quantize", source, tmp_path / "out", "--layout", layout, "--format", "nvfp4-3t")
        assert ran.code == 2
        assert "than its makers; this program can not turn them back" in ran.err
