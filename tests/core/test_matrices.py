"""Stored tensors are cut into matrices whose rows are outputs, or kept with the true reason."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studio import core
from studio.core.architectures import base_name, family_of, role
from studio.core.model import Matrix
from studio.core.opening.matrices import LONGEST_ROW, matrices_of
from studio.core.running.reading import read_slab, slabs
from tests.core.checkpoints import BF16, CONFIG, FP8, checkpoint, gaussian

MOE = "model.layers.0.mlp"
Config = Mapping[str, Any]
Shape = tuple[int, ...]


def cut(config: Config, name: str, shape: Shape, **others: Shape) -> tuple[tuple[Matrix, ...], str]:
    shapes = {base_name(name): shape, **{f"{MOE}.experts.{other}": size for other, size in others.items()}}
    return matrices_of(base_name(name), shape, family_of(config), config, shapes)


def values(matrix: Matrix, tensor: np.ndarray) -> np.ndarray:
    """The matrix by the definition of its fields, element by element."""
    row_step = matrix.row_step or matrix.columns
    rows, columns = np.ogrid[: matrix.rows, : matrix.columns]
    return tensor.reshape(-1)[matrix.first + rows * row_step + columns * matrix.column_step]


HALVES_OUT = {"gate_proj": lambda t: t[:, : t.shape[1] // 2], "up_proj": lambda t: t[:, t.shape[1] // 2 :]}
HALVES_IN = {
    "gate_proj": lambda t: t[:, :, : t.shape[2] // 2].transpose(0, 2, 1),
    "up_proj": lambda t: t[:, :, t.shape[2] // 2 :].transpose(0, 2, 1),
}
INTERLEAVED_OUT = {"gate_proj": lambda t: t[:, 0::2], "up_proj": lambda t: t[:, 1::2]}
INTERLEAVED_IN = {
    "gate_proj": lambda t: t[:, :, 0::2].transpose(0, 2, 1),
    "up_proj": lambda t: t[:, :, 1::2].transpose(0, 2, 1),
}


def alone(projection: str, transposed: bool = False, experts: int = 0) -> dict[str, Any]:
    def of(t: np.ndarray) -> np.ndarray:
        t = t.reshape(experts, -1, t.shape[-1]) if experts else t
        return t.transpose(0, 2, 1) if transposed else t

    return {projection: of}


@pytest.mark.parametrize(
    ("config", "name", "shape", "wanted"),
    [
        ({"hidden_size": 4}, f"{MOE}.experts.gate_up_proj", (3, 6, 4), HALVES_OUT),
        ({"hidden_size": 4}, f"{MOE}.experts.gate_up_proj", (3, 4, 6), HALVES_IN),
        ({"hidden_size": 4}, f"{MOE}.experts.down_proj", (3, 4, 6), alone("down_proj")),
        ({"hidden_size": 4}, f"{MOE}.experts.down_proj", (3, 6, 4), alone("down_proj", transposed=True)),
        ({"model_type": "gpt_oss"}, f"{MOE}.experts.gate_up_proj", (3, 4, 6), INTERLEAVED_IN),
        ({"model_type": "gpt_oss"}, f"{MOE}.experts.down_proj", (3, 4, 4), alone("down_proj", transposed=True)),
        ({"model_type": "openai_privacy_filter"}, f"{MOE}.experts.gate_up_proj", (3, 4, 6), HALVES_IN),
        ({"model_type": "llama4"}, "model.layers.0.feed_forward.experts.gate_up_proj", (3, 4, 4), HALVES_IN),
        ({"model_type": "qwen3_vl_moe"}, f"{MOE}.experts.gate_up_proj", (3, 4, 4), HALVES_IN),
        ({"model_type": "aria"}, f"{MOE}.experts.fc1.weight", (3, 4, 6), HALVES_IN),
        ({"model_type": "aria"}, f"{MOE}.experts.fc2.weight", (3, 3, 4), alone("fc2", transposed=True)),
        ({"model_type": "inkling_mm_model"}, f"{MOE}.experts.w13_weight", (3, 6, 4), INTERLEAVED_OUT),
        ({"model_type": "inkling_mm_model"}, f"{MOE}.experts.w2_weight", (3, 4, 3), alone("w2")),
        ({"model_type": "inkling_mm_model"}, f"{MOE}.shared_experts.shared_w13_weight", (2, 6, 4), INTERLEAVED_OUT),
        ({"model_type": "moondream3"}, "model.text.blocks.4.mlp.fc1.weight", (3, 4, 4), alone("fc1")),
        (
            {"model_type": "gemma4"},
            "model.language_model.layers.0.experts.switch_glu.up_proj",
            (3, 6, 4),
            alone("up_proj"),
        ),
        ({"model_type": "step3p5"}, "model.layers.3.moe.down_proj.weight", (3, 6, 4), alone("down_proj")),
        (
            {"model_type": "jetmoe"},
            "model.layers.0.self_attention.experts.input_linear.weight",
            (3, 6, 4),
            alone("input_linear"),
        ),
        (
            {"model_type": "granitemoe"},
            "model.layers.0.block_sparse_moe.input_linear.weight",
            (3, 6, 4),
            {"w1": HALVES_OUT["gate_proj"], "w3": HALVES_OUT["up_proj"]},
        ),
        (
            {"model_type": "dbrx", "ffn_config": {"moe_num_experts": 3}},
            "transformer.blocks.0.ffn.experts.mlp.v1",
            (9, 4),
            alone("v1", experts=3),
        ),
        (
            {"model_type": "dbrx", "ffn_config": {"moe_num_experts": 3}},
            "transformer.blocks.0.ffn.experts.mlp.w2",
            (9, 4),
            alone("w2", transposed=True, experts=3),
        ),
        (
            {"model_type": "nomic_bert", "num_experts": 3},
            "encoder.layers.1.mlp.experts.mlp.w1",
            (9, 4),
            alone("w1", experts=3),
        ),
        (
            {"model_type": "nomic_bert", "num_experts": 3},
            "encoder.layers.1.mlp.experts.mlp.w2",
            (9, 4),
            alone("w2", transposed=True, experts=3),
        ),
    ],
)
def test_a_stack_is_cut_where_its_runtime_cuts_it(
    config: Config, name: str, shape: Shape, wanted: Mapping[str, Any]
) -> None:
    tensor = np.arange(np.prod(shape)).reshape(shape)
    matrices, obstacle = cut(config, name, shape)
    assert not obstacle
    assert role(name, shape, family_of(config)) == "expert"
    assert {matrix.projection for matrix in matrices} == set(wanted)
    assert len({matrix.name for matrix in matrices}) == len(matrices)
    for matrix in matrices:
        np.testing.assert_array_equal(values(matrix, tensor), wanted[matrix.projection](tensor)[matrix.expert])
    np.testing.assert_array_equal(
        np.sort(np.concatenate([values(m, tensor).ravel() for m in matrices])), tensor.ravel()
    )


@pytest.mark.parametrize("model_type", ["born_yesterday", "qwen3_vl_moe", "qwen3_5_moe"])
def test_the_other_stack_of_a_block_tells_inputs_from_outputs(model_type: str) -> None:
    config = {"model_type": model_type}
    for joined, down, rows in (((3, 6, 4), (3, 4, 3), 3), ((3, 4, 6), (3, 3, 4), 3)):
        matrices, _ = cut(config, f"{MOE}.experts.gate_up_proj", joined, down_proj=down)
        assert {(m.rows, m.columns) for m in matrices} == {(rows, 4)}
        matrices, _ = cut(config, f"{MOE}.experts.down_proj", down, gate_up_proj=joined)
        assert {(m.rows, m.columns) for m in matrices} == {(4, 3)}


def test_a_stack_that_nothing_tells_the_axis_of_is_kept() -> None:
    for config, shape in (({}, (3, 6, 4)), ({"hidden_size": 4}, (3, 4, 4))):
        matrices, obstacle = cut(config, f"{MOE}.experts.gate_up_proj", shape)
        assert not matrices
        assert "neither shapes nor config.json tell the inputs from the outputs" in obstacle


@pytest.mark.parametrize(
    ("config", "name", "stack", "expert", "projection"),
    [
        ({}, f"{MOE}.experts.7.up_proj", MOE, 7, "up_proj"),
        ({"model_type": "phi-msft"}, "transformer.h.0.moe.mlp.3.fc1", "transformer.h.0.moe", 3, "fc1"),
        (
            {"model_type": "grok-1"},
            "transformer.decoder_layer.0.moe.5.linear_1",
            "transformer.decoder_layer.0.moe",
            5,
            "linear_1",
        ),
        ({"model_type": "smallthinker"}, f"{MOE}.experts.2.gate", MOE, 2, "gate"),
        ({"model_type": "grovemoe"}, f"{MOE}.chunk_experts.1.down_proj", f"{MOE}.chunk_experts", 1, "down_proj"),
        ({"model_type": "grovemoe"}, f"{MOE}.experts.1.down_proj", MOE, 1, "down_proj"),
        ({"model_type": "switch_transformers"}, f"{MOE}.experts.expert_4.wi", MOE, 4, "wi"),
    ],
)
def test_single_experts_know_their_place(config: Config, name: str, stack: str, expert: int, projection: str) -> None:
    (matrix,), _ = cut(config, name, (6, 4))
    assert (matrix.name, matrix.stack, matrix.expert, matrix.projection) == (name, stack, expert, projection)
    assert (matrix.rows, matrix.columns, matrix.is_contiguous) == (6, 4, True)


@pytest.mark.parametrize(
    ("model_type", "name", "transposed"),
    [
        ("gpt2", "h.0.attn.c_attn.weight", True),
        ("openai-gpt", "transformer.h.0.mlp.c_proj.weight", True),
        ("gpt_bigcode", "transformer.h.0.attn.c_attn.weight", False),
        ("ernie4_5_moe_vl", "model.layers.1.mlp.gate.weight_1", True),
        ("ernie4_5_moe", "model.layers.1.mlp.gate.weight", False),
    ],
)
def test_weights_stored_input_first_are_turned(model_type: str, name: str, transposed: bool) -> None:
    tensor = np.arange(24).reshape(4, 6)
    (matrix,), _ = cut({"model_type": model_type}, name, (4, 6))
    np.testing.assert_array_equal(values(matrix, tensor), tensor.T if transposed else tensor)


@pytest.mark.parametrize(
    ("config", "name", "shape", "reason"),
    [
        ({}, "model.norm.weight", (64,), "biases, vectors and buffers are never quantized"),
        ({}, "model.scale", (), "biases, vectors and buffers are never quantized"),
        ({}, "model.layers.0.mlp.up_proj.weight", (0, 64), "empty tensors are copied as they are"),
        ({}, "model.layers.0.conv1d.weight", (64, 1, 4), "3-dimensional, and no stack of experts"),
        ({}, "patch_embed.proj.weight", (64, 3, 2, 2), "4-dimensional, and no stack of experts"),
        ({}, f"{MOE}.experts.strange", (3, 6, 4), "3-dimensional, and no stack of experts"),
        ({"hidden_size": 4}, f"{MOE}.experts.gate_up_proj", (3, 5, 4), "odd number of outputs"),
        ({"model_type": "dbrx"}, "transformer.blocks.0.ffn.experts.mlp.w1", (9, 4), "number config.json does not tell"),
        (
            {"model_type": "nomic_bert", "num_experts": 2},
            "encoder.layers.1.mlp.experts.mlp.w1",
            (9, 4),
            "number config.json does not tell",
        ),
        ({}, "model.layers.0.mlp.up_proj.weight", (2, LONGEST_ROW + 1), "rows of more than"),
    ],
)
def test_what_is_kept_says_the_true_reason(config: Config, name: str, shape: Shape, reason: str) -> None:
    matrices, obstacle = cut(config, name, shape)
    assert not matrices
    assert reason in obstacle


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("dtype", [BF16, FP8])
def test_rows_of_input_first_stacks_are_read_in_any_slabs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, interleaved: bool, dtype: Any
) -> None:
    experts, inputs, outputs = 3, 48, 64
    stored = gaussian(experts, inputs, outputs, sigma=1, dtype=dtype)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    config = {**CONFIG, "hidden_size": inputs, "model_type": "gpt_oss" if interleaved else "llama4"}
    monkeypatch.setattr("studio.core.sources.plain.TURNED_NBYTES", 5 * outputs * stored.itemsize)
    with core.open_model(checkpoint(tmp_path / "m", {name: stored}, config)) as model:
        layer = model.by_name[name]
        for place, matrix in enumerate(layer.matrices):
            expert, part = divmod(place, 2)
            half = slice(part, None, 2) if interleaved else slice(part * outputs // 2, (part + 1) * outputs // 2)
            wanted = stored[expert][:, half].T.astype(np.float32)
            found = np.concatenate([read_slab(slab) for slab in slabs(layer, matrix, 7 * inputs * 4)])
            np.testing.assert_array_equal(found.astype(np.float32), wanted)
