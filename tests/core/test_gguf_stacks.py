"""Experts that llama.cpp splits are, opened, in the stacks that transformers has; their codes go on as they are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studio import core
from studio.core.containers.gguf import TYPES
from studio.core.errors import CheckpointError
from tests.core.checkpoints import gaussian
from tests.core.conftest import Studio
from tests.core.gguf_files import Info, float32
from tests.core.gguf_models import HIDDEN, INNER, PAIRS, WORDS, model

EXPERTS, HEADS, WIDTH = 3, 4, 16
STACK = "model.layers.0.mlp.experts"
MXFP4 = next(number for number, kind in TYPES.items() if kind.name == "MXFP4")
NUMBERS = {
    "context_length": 128,
    "block_count": 1,
    "embedding_length": HIDDEN,
    "attention.head_count": HEADS,
    "attention.head_count_kv": HEADS,
    "attention.key_length": WIDTH,
    "attention.value_length": WIDTH,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "attention.sliding_window": 16,
    "rope.freq_base": 150000.0,
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 32.0,
    "rope.scaling.original_context_length": 4096,
    "expert_feed_forward_length": INNER,
    "expert_count": EXPERTS,
    "expert_used_count": 2,
}
PLACES = {"gate": 0, "up": 1}


def pairs(**others: Any) -> dict[str, Any]:
    own = {f"gpt-oss.{key}": value for key, value in {**NUMBERS, **others}.items()}
    without = {key: None for key in PAIRS if key.startswith("llama.")}
    return {**without, "general.architecture": "gpt-oss", **own}


def blocks(seed: int, outputs: int, inputs: int) -> np.ndarray:
    """[experts, outputs, blocks, bytes] of MXFP4: a scale, and codes of which the first 16 lie in the low nibbles."""
    chance = np.random.default_rng(seed)
    found = chance.integers(0, 256, (EXPERTS, outputs, inputs // 32, 17), np.uint8)
    found[..., 0] = chance.integers(118, 124, found.shape[:-1])
    return found


def values(found: np.ndarray) -> np.ndarray:
    """What blocks of MXFP4 stand for, [experts, outputs, inputs]."""
    levels = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
    codes = np.concatenate([found[..., 1:] & 15, found[..., 1:] >> 4], axis=-1)
    scales = np.ldexp(np.float32(1), found[..., :1].astype(np.int32) - 127)
    signs = np.where(codes & 8, np.float32(-1), np.float32(1))
    return (levels[codes & 7] * signs * scales).reshape(*found.shape[:2], -1)


GATE, UP, DOWN = blocks(1, INNER, HIDDEN), blocks(2, INNER, HIDDEN), blocks(3, HIDDEN, INNER)
GATE_BIAS, UP_BIAS = (gaussian(EXPERTS, INNER, seed=seed, dtype=np.float32) for seed in (4, 5))


def entries() -> list[Info]:
    def stack(name: str, found: np.ndarray) -> Info:
        shape = (*found.shape[:2], found.shape[2] * 32)
        return Info(f"blk.0.ffn_{name}_exps.weight", shape, MXFP4, found.tobytes())

    def plain(name: str, *shape: int) -> Info:
        return float32(name, gaussian(*shape, seed=len(name), dtype=np.float32))

    found = [plain("token_embd.weight", WORDS, HIDDEN), plain("output.weight", WORDS, HIDDEN)]
    found += [plain("output_norm.weight", HIDDEN)]
    for name in ("attn_norm", "post_attention_norm"):
        found.append(plain(f"blk.0.{name}.weight", HIDDEN))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        found += [plain(f"blk.0.{name}.weight", HIDDEN, HIDDEN), plain(f"blk.0.{name}.bias", HIDDEN)]
    found += [plain("blk.0.attn_sinks.weight", HEADS), plain("blk.0.ffn_gate_inp.weight", EXPERTS, HIDDEN)]
    found += [plain("blk.0.ffn_gate_inp.bias", EXPERTS), plain("blk.0.ffn_down_exps.bias", EXPERTS, HIDDEN)]
    found += [float32("blk.0.ffn_gate_exps.bias", GATE_BIAS), float32("blk.0.ffn_up_exps.bias", UP_BIAS)]
    return [*found, stack("gate", GATE), stack("up", UP), stack("down", DOWN)]


def written(folder: Path, others: dict[str, Any] | None = None, without: str = "", more: Info | None = None) -> Path:
    path = folder / "model.gguf"
    kept = [info for info in entries() if info.name != without]
    path.write_bytes(model(pairs(**(others or {})), [*kept, *([more] if more else [])]))
    return path


def weights(layer: core.Layer, step: int = 50) -> np.ndarray:
    whole = layer.whole
    rows = [layer.source.rows(whole, at, min(at + step, whole.rows)) for at in range(0, whole.rows, step)]
    return np.concatenate(rows).reshape(layer.shape)


def test_gate_and_up_of_gpt_oss_lie_in_turns_with_the_inputs_first(tmp_path: Path) -> None:
    with core.open_model(written(tmp_path)) as found:
        assert found.config["rope_scaling"]["truncate"] is False
        joined, down = found.by_name[f"{STACK}.gate_up_proj"], found.by_name[f"{STACK}.down_proj"]
        wanted = np.stack([values(GATE), values(UP)], axis=2).reshape(EXPERTS, 2 * INNER, HIDDEN)
        np.testing.assert_array_equal(weights(joined), wanted.swapaxes(1, 2))
        np.testing.assert_array_equal(weights(down), values(DOWN).swapaxes(1, 2))
        bias = found.by_name[f"{STACK}.gate_up_proj_bias"]
        np.testing.assert_array_equal(weights(bias)[:, 0::2], GATE_BIAS)
        np.testing.assert_array_equal(weights(bias)[:, 1::2], UP_BIAS)
        assert (joined.weight_name, joined.source.format) == (f"{STACK}.gate_up_proj", core.FORMATS["mxfp4"])
        for matrix in joined.matrices:
            stored = values(GATE if matrix.projection == "gate_proj" else UP)[matrix.expert]
            np.testing.assert_array_equal(joined.source.rows(matrix, 3, 40), stored[3:40])


@pytest.mark.parametrize("layout", ["mlx", "plain"])
def test_its_experts_are_converted_without_loss(layout: str, tmp_path: Path, studio: Studio) -> None:
    source = written(tmp_path)
    ran = studio("convert", source, tmp_path / "out", "--layout", layout)
    assert ran.code == 0, ran.err
    assert studio("verify", tmp_path / "out", "--source", source).code == 0
    with core.open_model(tmp_path / "out") as made, core.open_model(source) as found:
        stored = {layer.source.format for layer in made.layers if layer.expert is None and "experts" in layer.name}
        assert (core.FORMATS["mxfp4"] in stored) == (layout == "mlx")
        for layer in found.layers:
            np.testing.assert_array_equal(weights(made.by_name[layer.name]), weights(layer))


@pytest.mark.parametrize(
    ("without", "others", "words"),
    [
        ("blk.0.ffn_up_exps.weight", {}, "ffn_up_exps.weight.*is missing"),
        ("blk.0.attn_k.bias", {}, "biases for some projections only"),
        ("", {"rope.scaling.type": "longrope"}, "'longrope', which is not read|longrope"),
    ],
)
def test_a_model_that_lacks_a_part_is_refused(without: str, others: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=words):
        core.open_model(written(tmp_path, others, without))


@pytest.mark.parametrize("shape", [(INNER,), (EXPERTS, INNER + 1), (EXPERTS, INNER, 1)])
def test_biases_of_another_shape_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    name = "blk.0.ffn_up_exps.bias"
    with pytest.raises(CheckpointError, match="not that of biases in"):
        core.open_model(written(tmp_path, without=name, more=float32(name, np.ones(shape, np.float32))))
