"""What llama.cpp changes of weights beside their names is turned back: orders, shapes, parts, exponentials."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from studio import core
from studio.core.errors import CheckpointError
from studio.core.sources.row_orders import ByPart, InPairs, InTurns
from studio.core.sources.undone import log_of_negative
from tests.core.checkpoints import gaussian
from tests.core.gguf_files import Info, float32
from tests.core.gguf_models import HIDDEN, INNER, PAIRS, WORDS, model
from tests.core.test_gguf_models import weights

ROWS = np.arange(48)


@pytest.mark.parametrize(
    ("order", "stored"),
    [
        (InPairs(8), ROWS.reshape(6, 2, 4).swapaxes(1, 2)),
        (ByPart(3, (8, 4, 4)), np.concatenate([part.ravel() for part in np.split(ROWS.reshape(3, 16), [8, 12], 1)])),
        (InTurns(0, 3, 4, 4), ROWS.reshape(3, 4, 4).swapaxes(0, 1)),
        (InTurns(12, 3, 2, 6), np.concatenate([ROWS[:12], ROWS[12:].reshape(3, 2, 6).swapaxes(0, 1).ravel()])),
    ],
)
def test_rows_are_found_where_llama_cpp_put_them(order: Any, stored: np.ndarray) -> None:
    np.testing.assert_array_equal(np.asarray(stored).ravel()[order.places(ROWS)], ROWS)


@pytest.mark.parametrize(("kind", "dtype"), [(ml_dtypes.bfloat16, "BF16"), (np.float16, "F16"), (np.float32, "F32")])
def test_logarithms_are_found_to_the_bit_where_their_numbers_lie_apart(kind: Any, dtype: str) -> None:
    logs = np.random.default_rng(3).uniform(-3, 3, 500).astype(kind).astype(np.float32)
    undo = log_of_negative(-np.exp(logs))
    found = undo(-np.exp(logs))
    assert undo.dtype == dtype
    if dtype == "F32":
        np.testing.assert_allclose(np.exp(found), np.exp(logs), rtol=3e-7)
    else:
        np.testing.assert_array_equal(found, logs)


@pytest.mark.parametrize("bad", [0.0, 1.0, np.nan, -np.inf])
def test_what_is_no_exponential_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="below 0"):
        log_of_negative(np.array([-1.0, bad], np.float32))


def pairs(name: str, **said: Any) -> dict[str, Any]:
    """The pairs of another architecture than that of `gguf_models`."""
    shape = {
        key.replace("llama.", f"{name}."): value for key, value in PAIRS.items() if key.startswith("llama.attention")
    }
    shape |= {f"{name}.{key}": PAIRS[f"llama.{key}"] for key in ("context_length", "embedding_length")}
    shape |= {f"{name}.block_count": 1, f"{name}.feed_forward_length": INNER, "general.architecture": name}
    own = {f"{name}.{key.replace('__', '.')}": value for key, value in said.items()}
    return {**{key: None for key in PAIRS if key.startswith("llama.")}, **shape, **own}


def entry(name: str, *shape: int) -> Info:
    return float32(name, gaussian(*shape, seed=len(name) + sum(shape), dtype=np.float32))


HEADS, WIDTH, TURNED, VALUE, RANK = 4, 12, 4, 20, 32
LATENT = pairs(
    "deepseek2",
    attention__head_count_kv=1,
    attention__kv_lora_rank=RANK,
    attention__key_length=RANK + TURNED,
    attention__value_length=RANK,
    attention__key_length_mla=WIDTH + TURNED,
    attention__value_length_mla=VALUE,
    rope__dimension_count=TURNED,
    expert_count=2,
    expert_used_count=1,
    expert_shared_count=1,
    expert_feed_forward_length=INNER,
    leading_dense_block_count=1,
)
OLDER = {
    "deepseek2.attention.key_length": WIDTH + TURNED,
    "deepseek2.attention.value_length": VALUE,
    "deepseek2.attention.head_count_kv": HEADS,
    "deepseek2.attention.key_length_mla": None,
    "deepseek2.attention.value_length_mla": None,
}
KV_B = gaussian(HEADS * (WIDTH + VALUE), RANK, seed=7, dtype=np.float32)
CUT = KV_B.reshape(HEADS, WIDTH + VALUE, RANK)
K_B = float32("blk.0.attn_k_b.weight", np.ascontiguousarray(CUT[:, :WIDTH].swapaxes(1, 2)))
V_B = float32("blk.0.attn_v_b.weight", np.ascontiguousarray(CUT[:, WIDTH:]))
WHOLE = float32("blk.0.attn_kv_b.weight", KV_B)
REST = [entry("token_embd.weight", WORDS, HIDDEN), entry("output_norm.weight", HIDDEN)]


def opened(folder: Path, said: dict[str, Any], entries: list[Info]) -> core.Model:
    path = folder / "model.gguf"
    path.write_bytes(model(said, entries))
    return core.open_model(path)


@pytest.mark.parametrize(("said", "parts"), [({}, [K_B, V_B]), (OLDER, [WHOLE])], ids=["in two", "whole"])
def test_keys_and_values_of_deepseek_become_one_matrix(said: dict[str, Any], parts: list[Info], tmp_path: Path) -> None:
    with opened(tmp_path, LATENT | said, [*REST, *parts]) as found:
        layer = found.by_name["model.layers.0.self_attn.kv_b_proj"]
        np.testing.assert_array_equal(weights(layer, 5), KV_B)
        assert (layer.source.format, [matrix.rows for matrix in layer.matrices]) == (None, [len(KV_B)])
        config = found.config
        assert [config[key] for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")] == [WIDTH, TURNED, VALUE]
        assert (config["model_type"], config["num_key_value_heads"]) == ("deepseek_v2", HEADS)
        assert any("expert_group_count is missing" in warning for warning in found.warnings)


def test_deepseek_with_a_bias_of_scores_is_the_third(tmp_path: Path) -> None:
    with opened(tmp_path, LATENT, [*REST, K_B, V_B, entry("blk.0.exp_probs_b.bias", 2)]) as found:
        assert found.config["model_type"] == "deepseek_v3"
        assert "model.layers.0.mlp.gate.e_score_correction_bias" in found.by_name


SPACE = pairs(
    "qwen35",
    attention__head_count_kv=2,
    ssm__conv_kernel=4,
    ssm__state_size=8,
    ssm__group_count=2,
    ssm__time_step_rank=6,
    ssm__inner_size=6 * 16,
    rope__dimension_count=8,
    rope__dimension_sections=[2, 1, 1, 0],
    nextn_predict_layers=1,
    block_count=2,
)
LOGS = np.array([0.5, -0.25, 1.0, 2.0, -1.5, 0.125], np.float32)


def turned(array: np.ndarray, axis: int = 0, width: int = 16) -> np.ndarray:
    """Heads of values, 3 for each of 2 heads of keys, as the file has them."""
    cut = np.moveaxis(array, axis, 0).reshape(2, 3, width, *np.delete(array.shape, axis))
    return np.ascontiguousarray(np.moveaxis(cut.swapaxes(0, 1).reshape(-1, *np.delete(array.shape, axis)), 0, axis))


def test_heads_of_values_of_qwen_come_back_in_order(tmp_path: Path) -> None:
    qkv, conv, out = (gaussian(*shape, dtype=np.float32) for shape in ((128, HIDDEN), (128, 1, 4), (HIDDEN, 96)))
    stored = {
        "attn_qkv.weight": np.concatenate([qkv[:32], turned(qkv[32:])]),
        "ssm_conv1d.weight": np.concatenate([conv[:32], turned(conv[32:])]).reshape(128, 4),
        "ssm_out.weight": turned(out, axis=1),
        "ssm_a": turned(-np.exp(LOGS), width=1),
        "ssm_dt.bias": turned(LOGS, width=1),
    }
    entries = [*REST, *(float32(f"blk.0.{name}", array) for name, array in stored.items())]
    further = [entry("blk.1.nextn.enorm.weight", HIDDEN), entry("blk.1.ffn_up.weight", INNER, HIDDEN)]
    with opened(tmp_path, SPACE, [*entries, *further]) as found:
        inside = "model.layers.0.linear_attn."
        np.testing.assert_array_equal(weights(found.by_name[f"{inside}in_proj_qkv"]), qkv)
        np.testing.assert_array_equal(weights(found.by_name[f"{inside}conv1d"]), conv)
        layer = found.by_name[f"{inside}out_proj"]
        np.testing.assert_array_equal(weights(layer), out)
        assert layer.source.rows(layer.whole, 3, 9).flags.c_contiguous
        np.testing.assert_array_equal(weights(found.by_name[f"{inside}A_log"]).ravel(), LOGS)
        np.testing.assert_array_equal(weights(found.by_name[f"{inside}dt_bias"]).ravel(), LOGS)
        assert found.by_name["mtp.layers.0.mlp.up_proj"].role == "draft"
        assert "mtp.pre_fc_norm_embedding" in found.by_name
        assert (found.config["num_hidden_layers"], found.config["layer_types"]) == (1, ["linear_attention"])


HYBRID = pairs(
    "granitehybrid",
    attention__head_count_kv=[0, 2],
    expert_shared_feed_forward_length=INNER,
    ssm__conv_kernel=4,
    ssm__state_size=8,
    ssm__group_count=2,
    ssm__time_step_rank=4,
    ssm__inner_size=2 * HIDDEN,
    block_count=2,
)
STATE = [entry("blk.0.ssm_out.weight", HIDDEN, 2 * HIDDEN)]


def test_blocks_of_granite_are_told_apart_and_gate_and_up_become_one(tmp_path: Path) -> None:
    gate, up = (gaussian(INNER, HIDDEN, seed=seed, dtype=np.float32) for seed in (1, 2))
    parts = [float32("blk.0.ffn_gate.weight", gate), float32("blk.0.ffn_up.weight", up)]
    numbers = [float32("blk.0.ssm_a", -np.exp(LOGS[:4, None])), float32("blk.0.ssm_norm.weight", np.ones((2, HIDDEN)))]
    with opened(tmp_path, HYBRID, [*REST, *STATE, *parts, *numbers]) as found:
        joined = weights(found.by_name["model.layers.0.shared_mlp.input_linear"], 7)
        np.testing.assert_array_equal(joined, np.concatenate([gate, up]))
        shapes = [found.by_name[f"model.layers.0.mamba.{name}"].shape for name in ("A_log", "norm")]
        assert shapes == [(4,), (2 * HIDDEN,)]
        config = found.config
        assert (config["layer_types"], config["num_key_value_heads"]) == (["mamba", "attention"], 2)


@pytest.mark.parametrize(
    ("said", "entries", "words"),
    [
        (HYBRID | {"granitehybrid.attention.head_count_kv": [0, 0]}, STATE, "does not tell the heads"),
        (LATENT, [K_B], "attn_v_b.weight: is missing"),
        (LATENT, [K_B, float32("blk.0.attn_v_b.weight", CUT[:, WIDTH:, :-1])], "no part of .*kv_b_proj"),
        (LATENT, [K_B, V_B, WHOLE], "same name"),
        (SPACE, [entry("blk.0.ssm_dt.bias", 7)], "not that of 6 heads of values"),
        (SPACE, [entry("blk.0.ssm_a", 6)], "holds numbers that are not below 0"),
        (SPACE, [entry("blk.0.ssm_conv1d.weight", 128)], "not how llama.cpp stores it"),
        (SPACE, [entry("blk.2.attn_norm.weight", HIDDEN)], "no part of qwen35"),
        (SPACE | {"qwen35.ssm.group_count": 4}, [], "do not fit together"),
        (SPACE | {"qwen35.nextn_predict_layers": 2}, [], "0 blocks"),
    ],
)
def test_what_does_not_fit_is_refused(said: dict[str, Any], entries: list[Info], words: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=words):
        opened(tmp_path, said, [*REST, *entries])
