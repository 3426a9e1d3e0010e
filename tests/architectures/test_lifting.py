"""Lifted models compute the same bits as before, in every architecture that the table of flows knows."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from studio import core
from studio.core.architectures.flows import FLOWS, flow_of
from studio.core.containers.dtypes import ARRAY_DTYPES
from studio.core.model import Layer
from studio.core.planning.lifting import lifted
from studio.core.running.reading import Slab, read_slab
from tests.architectures.rows import ROWS, model_type
from tests.core.checkpoints import write_json, write_safetensors
from tests.runtimes.conftest import MLX, TRANSFORMERS
from tests.runtimes.lifting import powers_of
from tests.runtimes.worker import Worker, missing

pytestmark = pytest.mark.skipif(bool(missing(TRANSFORMERS)), reason=missing(TRANSFORMERS))


def text_type(name: str) -> str:
    return str(ROWS[name].get("text_config", {}).get("model_type", model_type(name)))


def is_lifted(name: str) -> bool:
    flow = flow_of({"model_type": text_type(name)})
    return flow is not None and not flow.refused


LIFTED_ROWS = sorted(filter(is_lifted, ROWS))

IN_MLX = (
    "llama",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "mixtral",
    "deepseek_v3",
    "gpt2-hub",
    "phi",
    "starcoder2",
    "granitemoe",
)
"""Norms with and without bias, biases of matrices, norms of queries and keys, experts apart and stacked, MLA."""


@pytest.fixture(scope="module")
def torch(tmp_path_factory) -> Iterator[Worker]:
    worker = Worker("tests.architectures.run_transformers", tmp_path_factory.mktemp("torch") / "log.txt")
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def mlx(tmp_path_factory) -> Iterator[Worker]:
    worker = Worker("tests.architectures.run_mlx", tmp_path_factory.mktemp("mlx") / "log.txt")
    yield worker
    worker.close()


def test_every_architecture_of_the_table_is_run_here():
    known = {kind for flow in FLOWS if not flow.refused for kind in flow.model_types}
    assert known - {text_type(name).removesuffix("_text") for name in LIFTED_ROWS} == set()


def stored(layer: Layer) -> np.ndarray:
    if layer.lift:
        return read_slab(Slab(layer, layer.whole, 0, layer.whole.rows)).reshape(layer.shape)
    raw = layer.stored.file.read(layer.tensor.start, layer.tensor.nbytes)
    return np.frombuffer(raw, ARRAY_DTYPES[layer.tensor.dtype]).reshape(layer.shape)


def write_lifted(source: Path, target: Path, change=lambda _powers: None) -> dict[str, int]:
    """The checkpoint multiplied by powers of two, which `change` may spoil first."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    with core.open_model(source) as model:
        powers = powers_of(model)
        change(powers)
        layers = lifted(model, (), core.Lifting(powers))[0].layers
        tensors = {layer.tensor.name: stored(layer) for layer in layers}
    write_json(target / "config.json", config)
    write_safetensors(target / "model.safetensors", tensors, {"format": "pt"})
    return powers


def logits(runtime: Worker, folder: Path, job: str = "dense_logits") -> np.ndarray:
    file = folder / f"{job}.npy"
    told = runtime.ask(job, folder=folder, file=file)
    assert not any(told.values())
    return np.load(file)


@pytest.mark.sampled(31)
@pytest.mark.parametrize("name", LIFTED_ROWS)
def test_a_lifted_model_computes_the_same_bits_in_transformers(name, torch, tmp_path):
    torch.ask("build", name=name, folder=tmp_path)
    source = tmp_path / "hub"
    powers = write_lifted(source, tmp_path / "lifted")
    assert len(powers) > 4
    before, after = logits(torch, source), logits(torch, tmp_path / "lifted")
    assert np.abs(before).max() > 0.1
    np.testing.assert_array_equal(after, before)


@pytest.mark.sampled(9)
@pytest.mark.skipif(bool(missing(MLX)), reason=missing(MLX))
@pytest.mark.parametrize("name", IN_MLX)
def test_a_lifted_model_computes_the_same_bits_in_mlx(name, torch, mlx, tmp_path):
    torch.ask("build", name=name, folder=tmp_path)
    write_lifted(tmp_path / "hub", tmp_path / "lifted")
    before, after = (logits(mlx, tmp_path / kind, "logits") for kind in ("hub", "lifted"))
    assert np.abs(before).max() > 0.1
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("llama", "input_layernorm"),
        ("llama", "k_proj"),
        ("llama", "o_proj"),
        ("llama", "up_proj"),
        ("qwen2", "v_proj.bias"),
        ("qwen2", "model.norm"),
        ("starcoder2", "post_attention_layernorm.bias"),
        ("qwen3_moe", "mlp.gate"),
        ("qwen3_moe", "experts.2.down_proj"),
        ("qwen2_moe", "shared_expert_gate"),
        ("deepseek_v3", "kv_b_proj"),
        ("gpt_oss", "router"),
    ],
)
def test_one_tensor_that_is_not_multiplied_is_seen(name, left, torch, tmp_path):
    torch.ask("build", name=name, folder=tmp_path)

    def leave_out(powers: dict[str, int]) -> None:
        for key in [key for key in powers if key.endswith(left)]:
            del powers[key]

    source = tmp_path / "hub"
    whole = write_lifted(source, tmp_path / "whole")
    assert len(write_lifted(source, tmp_path / "lifted", leave_out)) < len(whole)
    assert np.abs(logits(torch, source) - logits(torch, tmp_path / "lifted")).max() > 1e-4
