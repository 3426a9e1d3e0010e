"""GGUF models are the models that they were made from: names, order of rows, values, config."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from studio import core

DENSE = (
    "llama",
    "tied llama",
    "biased llama",
    "llama 3",
    "linear llama",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
)
MIXTURES = ("mixtral", "qwen2moe", "qwen3moe")


def plain(path, folder):
    """The model of a GGUF file as a plain folder in float32."""
    folder.mkdir()
    with core.open_model(path) as model:
        assert model.known
        assert model.warnings == ()
        arrays = {}
        for layer in model.layers:
            whole = layer.whole
            rows = [layer.source.rows(whole, start, min(start + 5, whole.rows)) for start in range(0, whole.rows, 5)]
            arrays[layer.weight_name] = np.concatenate(rows).astype(np.float32).reshape(layer.shape)
        (folder / "config.json").write_text(json.dumps(model.config))
        for document in model.documents:
            (folder / document.name).write_bytes(document.content)
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    return sum(array.size for array in arrays.values())


@pytest.mark.parametrize("kind", [*DENSE, *MIXTURES])
def test_a_model_read_back_is_the_same_model(kind, tmp_path, gguf_runtime):
    path, folder = tmp_path / "model.gguf", tmp_path / "plain"
    made = gguf_runtime.ask("make", target=path, kind=kind, stored="F16")
    assert plain(path, folder) == made["weights"]
    assert gguf_runtime.ask("run", folder=folder) == {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}
    np.testing.assert_array_equal(np.load(folder / "logits.npy"), np.load(f"{path}.npy"))


@pytest.mark.usefixtures("accelerate")
@pytest.mark.parametrize("stored", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16", "F32"])
def test_quantized_weights_are_those_that_transformers_decodes_itself(stored, tmp_path, gguf_runtime):
    path, folder = tmp_path / "model.gguf", tmp_path / "plain"
    gguf_runtime.ask("make", target=path, kind="llama", stored=stored)
    plain(path, folder)
    gguf_runtime.ask("run", folder=folder)
    gguf_runtime.ask("run_gguf", path=path, target=tmp_path / "theirs.npy")
    np.testing.assert_array_equal(np.load(folder / "logits.npy"), np.load(tmp_path / "theirs.npy"))


@pytest.mark.usefixtures("accelerate")
@pytest.mark.parametrize("kind", ["tied llama", "qwen2"])
def test_other_architectures_are_read_as_transformers_reads_them(kind, tmp_path, gguf_runtime):
    """Of those whose config transformers 5.23 makes as it must be: it knows no widths of heads and of experts."""
    path, folder = tmp_path / "model.gguf", tmp_path / "plain"
    gguf_runtime.ask("make", target=path, kind=kind, stored="Q8_0")
    plain(path, folder)
    gguf_runtime.ask("run", folder=folder)
    gguf_runtime.ask("run_gguf", path=path, target=tmp_path / "theirs.npy")
    np.testing.assert_array_equal(np.load(folder / "logits.npy"), np.load(tmp_path / "theirs.npy"))
