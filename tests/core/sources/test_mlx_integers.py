"""MLX integers of every width, as mlx packs and decodes them, told by the config or by the widths of a checkpoint."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from studio import core
from tests.core.checkpoints import CONFIG, checkpoint, llama
from tests.core.conftest import Studio

WIDTHS = [(bits, group) for bits in (2, 3, 4, 5, 6, 8) for group in (32, 64, 128)]
HIDDEN = 128

Arrays = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(autouse=True)
def _on_the_processor() -> None:
    mx.set_default_device(mx.cpu)


def packed(bits: int, group: int, rows: int = 2 * HIDDEN) -> tuple[Arrays, Arrays]:
    """The tensors of a small llama whose projections mlx quantized, and what mlx decodes them to in float32."""
    tensors, decoded = {}, {}
    rng = np.random.default_rng(bits * group)
    for name, value in llama(1).items():
        if "proj" not in name:
            shape = (300, HIDDEN) if value.ndim == 2 else (HIDDEN,)
            tensors[name] = rng.standard_normal(shape, np.float32)
            continue
        path = name.removesuffix(".weight")
        parts = mx.quantize(mx.array(rng.standard_normal((rows, HIDDEN), np.float32)), group_size=group, bits=bits)
        tensors[name], tensors[f"{path}.scales"], tensors[f"{path}.biases"] = map(np.array, parts)
        decoded[path] = np.array(mx.dequantize(*parts, group_size=group, bits=bits))
    return tensors, decoded


def config(bits: int, group: int, **overrides: Any) -> dict[str, Any]:
    """A config as mlx-lm writes it."""
    return {**CONFIG, "quantization": {"group_size": group, "bits": bits, "mode": "affine", **overrides}}


@pytest.mark.parametrize(("bits", "group"), WIDTHS)
def test_weights_are_those_that_mlx_decodes(tmp_path: Path, bits: int, group: int) -> None:
    tensors, decoded = packed(bits, group)
    with core.open_model(checkpoint(tmp_path / "model", tensors, config(bits, group))) as model:
        for name, wanted in decoded.items():
            layer = model.by_name[name]
            assert layer.source.format is not None
            assert layer.source.format.name == f"int{bits}-g{group}"
            np.testing.assert_array_equal(layer.source.rows(layer.matrices[0], 0, len(wanted)), wanted)
            np.testing.assert_array_equal(layer.source.rows(layer.matrices[0], 5, 9), wanted[5:9])


@pytest.mark.parametrize("height", [0, 96, 64])
def test_without_a_config_the_widths_of_the_checkpoint_tell(height: int, tmp_path: Path) -> None:
    tensors, decoded = packed(4, 64, rows=96)
    if height:  # MXFP8 has as many bits to a scale, in blocks of another width; 64 is half as wide as the rows are
        name = next(iter(decoded))
        del decoded[name], tensors[f"{name}.biases"]
        parts = mx.quantize(mx.ones((height, HIDDEN)), mode="mxfp8")
        tensors[f"{name}.weight"], tensors[f"{name}.scales"] = map(np.array, parts)
        tensors["lm_head.weight"] = np.ones((300, HIDDEN), np.float32)
    with core.open_model(checkpoint(tmp_path / "model", tensors, CONFIG)) as model:
        for name, wanted in decoded.items():
            layer = model.by_name[name]
            if height == HIDDEN // 2:
                assert "4 x 64 or 2 x 128 or 8 x 32, and no config says which" in layer.obstacle
            else:
                np.testing.assert_array_equal(layer.source.rows(layer.matrices[0], 0, len(wanted)), wanted)


def test_where_they_tell_two_ways_none_is_chosen(tmp_path: Path) -> None:
    tensors, decoded = packed(4, 64, rows=2 * HIDDEN)
    with core.open_model(checkpoint(tmp_path / "model", tensors, CONFIG)) as model:
        told = {model.by_name[name].obstacle for name in decoded}
    assert told == {"MLX integers of 256 bits to a scale: 4 x 64 or 2 x 128 or 8 x 32, and no config says which"}


def test_an_override_counts_and_a_contradiction_is_told(tmp_path: Path) -> None:
    tensors, _ = packed(8, 64)
    name = next(name for name in tensors if name.endswith("q_proj.weight")).removesuffix(".weight")
    said = config(4, 64, **{name: {"group_size": 64, "bits": 8}})
    with core.open_model(checkpoint(tmp_path / "model", tensors, said)) as model:
        assert model.by_name[name].source.bits == 8
        other = model.by_name[name.replace("q_proj", "k_proj")]
        assert other.obstacle == "MLX integers of 512 bits to a scale, but the config says 4 x 64"


@pytest.mark.parametrize(("bits", "group"), [(3, 32), (4, 128), (6, 64), (8, 32)])
def test_codes_of_every_width_are_handed_on_and_decoded(studio: Studio, tmp_path: Path, bits: int, group: int) -> None:
    tensors, decoded = packed(bits, group)
    source = checkpoint(tmp_path / "model", tensors, config(bits, group))
    for layout in ("mlx", "plain"):
        target = tmp_path / layout
        ran = studio("convert", source, target, "--layout", layout, "--dtype", "float32")
        assert ran.code == 0, ran.err
        assert ("codes kept" in ran.out) == (layout == "mlx")
        assert studio("verify", target, "--source", source).code == 0
        with core.open_model(target) as model:
            for name, wanted in decoded.items():
                layer = model.by_name[name]
                np.testing.assert_array_equal(layer.source.rows(layer.whole, 0, len(wanted)), wanted)
