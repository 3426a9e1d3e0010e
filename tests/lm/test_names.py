"""Matrices of a checkpoint are found where runtimes put them."""

import pytest

from studio import core
from studio.lm.names import mlx_places, torch_places
from tests.core.checkpoints import CONFIG, checkpoint, gaussian, llama

EXPERTS = 3


def opened(folder, tensors, **config):
    return core.open_model(checkpoint(folder / "model", tensors, {**CONFIG, **config}))


def mixtral():
    tensors = {name: array for name, array in llama(1).items() if "mlp" not in name}
    for expert in range(EXPERTS):
        for name, shape in {"w1": (128, 64), "w2": (64, 128), "w3": (128, 64)}.items():
            tensors[f"model.layers.0.block_sparse_moe.experts.{expert}.{name}.weight"] = gaussian(*shape, seed=expert)
    return tensors


def test_experts_apart_are_found_in_the_stacks_of_both(tmp_path):
    stack = "model.layers.0.mlp.experts"
    with opened(tmp_path, mixtral(), model_type="mixtral", num_local_experts=EXPERTS) as model:
        parameters = {f"{stack}.gate_up_proj": (EXPERTS, 256, 64), f"{stack}.down_proj": (EXPERTS, 64, 128)}
        in_torch, in_mlx = torch_places(model, parameters), mlx_places(model)
    ours = "model.layers.0.block_sparse_moe.experts"
    for expert in range(EXPERTS):
        assert in_torch[f"{stack}.gate_up_proj", expert] == [f"{ours}.{expert}.w1", f"{ours}.{expert}.w3"]
        assert in_torch[f"{stack}.down_proj", expert] == [f"{ours}.{expert}.w2"]
        theirs = "model.layers.0.block_sparse_moe.switch_mlp"
        for name, known in {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}.items():
            assert in_mlx[f"{theirs}.{known}", expert] == [f"{ours}.{expert}.{name}"]


def test_a_text_model_in_a_larger_one_is_not_taken_for_its_tower(tmp_path):
    text = {f"language_model.{name}": array for name, array in llama(1).items()}
    tower = {f"vision_tower.encoder.layers.0.self_attn.{name}_proj.weight": gaussian(64, 64) for name in "qkv"}
    with opened(tmp_path, {**text, **tower}, model_type="llava") as model:
        parameters = {
            "model.language_model.layers.0.self_attn.q_proj.weight": (64, 64),
            "model.vision_tower.encoder.layers.0.self_attn.q_proj.weight": (64, 64),
        }
        found = torch_places(model, parameters)
    name = "language_model.model.layers.0.self_attn.q_proj"
    assert found == {("model.language_model.layers.0.self_attn.q_proj", None): [name]}


@pytest.mark.parametrize("shape", [(EXPERTS, 128, 64), (64,)])
def test_a_parameter_of_another_kind_is_no_place_of_a_matrix(tmp_path, shape):
    with opened(tmp_path, llama(1)) as model:
        assert torch_places(model, {"model.layers.0.mlp.up_proj.weight": shape}) == {}
