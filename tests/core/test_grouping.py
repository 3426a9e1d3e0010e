"""Stacks of experts are cut into matrices; roles follow names."""

from pathlib import Path

import numpy as np
import pytest

from studio import core
from studio.core.reading import read_slab, slabs
from studio.core.roles import fused_group, role
from tests.core.checkpoints import CONFIG, checkpoint, gaussian


def read(model: core.Model, name: str, nbytes: int = 4096) -> np.ndarray:
    layer = model.by_name[name]
    return np.concatenate([read_slab(slab) for m in layer.matrices for slab in slabs(layer, m, nbytes)])


@pytest.mark.parametrize(
    ("projection", "shape", "parts"),
    [
        ("gate_up_proj", (3, 64, 32), ("gate_proj", "up_proj")),
        ("down_proj", (3, 32, 64), ("down_proj",)),
    ],
)
def test_a_stack_of_experts_is_cut_into_matrices(
    tmp_path: Path, projection: str, shape: tuple[int, ...], parts: tuple[str, ...]
) -> None:
    name = f"model.layers.0.mlp.experts.{projection}"
    weight = gaussian(*shape)
    folder = checkpoint(tmp_path / "moe", {name: weight}, {**CONFIG, "hidden_size": 32})
    with core.open_model(folder) as model:
        layer = model.by_name[name]
        assert layer.role == "expert"
        wanted = [f"model.layers.0.mlp.experts.{e}.{part}" for e in range(3) for part in parts]
        assert [matrix.name for matrix in layer.matrices] == wanted
        np.testing.assert_array_equal(read(model, name), weight.reshape(-1, shape[-1]))


def test_experts_stored_input_first_are_kept_with_the_reason(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.experts.gate_up_proj"
    folder = checkpoint(tmp_path / "moe", {name: gaussian(3, 32, 64)}, {**CONFIG, "hidden_size": 32})
    with core.open_model(folder) as model:
        assert "input-first" in model.by_name[name].obstacle


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        ("model.embed_tokens.weight", (96, 64), "embedding"),
        ("lm_head.weight", (96, 64), "head"),
        ("model.layers.3.self_attn.q_proj.weight", (64, 64), "linear"),
        ("model.layers.3.mlp.gate.weight", (8, 64), "router"),
        ("model.layers.3.mlp.gate_proj.weight", (128, 64), "linear"),
        ("model.layers.3.block_sparse_moe.gate.weight", (8, 64), "router"),
        ("model.layers.3.mlp.shared_expert_gate.weight", (1, 64), "router"),
        ("model.layers.3.mlp.shared_expert.up_proj.weight", (128, 64), "linear"),
        ("model.layers.3.mlp.experts.7.w1.weight", (128, 64), "expert"),
        ("model.layers.3.input_layernorm.weight", (64,), "norm"),
        ("transformer.h.3.ln_1.weight", (64,), "norm"),
        ("transformer.wte.weight", (96, 64), "embedding"),
        ("model.layers.3.self_attn.q_proj.bias", (64,), "other"),
        ("model.layers.3.linear_attn.conv1d.weight", (64, 1, 4), "other"),
    ],
)
def test_roles_follow_the_usual_names(name: str, shape: tuple[int, ...], wanted: str) -> None:
    assert role(name, shape) == wanted


def test_projections_that_runtimes_join_share_a_group() -> None:
    def same(*names: str) -> bool:
        return len({fused_group(f"m.layers.0.{name}") for name in names}) == 1

    assert same("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    assert same("mlp.gate_proj", "mlp.up_proj")
    assert same("mlp.experts.1.gate_proj", "mlp.experts.1.up_proj")
    assert same("block_sparse_moe.experts.1.w1", "block_sparse_moe.experts.1.w3")
    assert same("self_attn.q_a_proj", "self_attn.kv_a_proj_with_mqa")
    assert not same("mlp.experts.1.gate_proj", "mlp.experts.2.gate_proj")
    assert fused_group("m.layers.0.mlp.down_proj") is None
