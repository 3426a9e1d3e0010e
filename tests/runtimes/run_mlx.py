"""Runs exports in stock mlx-lm and compares them with the same architecture on float32 weights decoded here."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm import utils as mlx_lm_utils

from tests.runtimes.answering import answer_jobs
from tests.runtimes.decoding import mlx_weights, read_arrays

_PARAMETERS = ("mode", "bits", "group_size")


class _RoundedEmbedding(nn.Embedding):
    """Looks rows up in bfloat16, as mlx does in every quantized embedding but the affine ones."""

    def __call__(self, x: mx.array) -> mx.array:
        return super().__call__(x).astype(mx.bfloat16)


def compare(
    folder: str,
    formats: list[list[str]],
    tokens: list[int],
    trust: bool = False,
    rounded_embedding: bool = False,
    as_stored: bool = True,
    logits_file: str = "",
) -> dict[str, Any]:
    """Load an export as it is and in float32 activations, and the decoded weights; what they have in common."""
    model, tokenizer = mlx_lm.load(folder, trust_remote_code=trust)
    if not as_stored:
        model.set_dtype(mx.float32)
    text = mlx_lm.generate(model, tokenizer, prompt="The ocean is", max_tokens=8)
    stored = _logits(model, tokens)
    layers = _layers(model)
    model.set_dtype(mx.float32)
    ours = _logits(model, tokens)
    expected_model = _decoded_model(Path(folder), formats, rounded_embedding)
    expected = _logits(expected_model, tokens)
    if logits_file:
        np.save(logits_file, expected)
    return {
        "text": text,
        "layers": layers,
        "difference": float(np.abs(ours - expected).max() / np.abs(expected).max()),
        "as_stored_difference": float(np.abs(stored - expected).max() / np.abs(expected).max()),
        "argmax": float((stored.argmax(-1) == expected.argmax(-1)).mean()),
        "arguments": {name: getattr(model.args, name, None) for name in ("rope_theta", "num_experts")},
    }


def errors(folder: str, formats: list[list[str]], source: str) -> dict[str, float]:
    """Relative error of every decoded weight against the source, whose names mlx-lm itself maps to its own."""
    decoded = mlx_weights(read_arrays(Path(folder)), formats)
    model = _empty_model(Path(folder))
    stored: dict[str, mx.array] = {}
    for path in sorted(Path(source).glob("model*.safetensors")):
        stored |= mx.load(str(path))
    weights = {name: np.array(array.astype(mx.float32)) for name, array in model.sanitize(stored).items()}
    return {name: _relative(decoded[name], weight) for name, weight in weights.items()}


def load(folder: str, trust: bool = False) -> bool:
    """Only load."""
    mlx_lm.load(folder, trust_remote_code=trust)
    return True


def _relative(decoded: np.ndarray, weight: np.ndarray) -> float:
    difference = np.linalg.norm((decoded - weight).reshape(-1).astype(np.float64))
    return float(difference / np.linalg.norm(weight.reshape(-1).astype(np.float64)))


def _empty_model(folder: Path) -> nn.Module:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind, arguments = mlx_lm_utils._get_classes(config)
    return kind(arguments.from_dict(config))


def _decoded_model(folder: Path, formats: list[list[str]], rounded_embedding: bool) -> nn.Module:
    model = _empty_model(folder)
    if rounded_embedding:
        rows, columns = model.model.embed_tokens.weight.shape
        model.model.embed_tokens = _RoundedEmbedding(rows, columns)
    decoded = mlx_weights(read_arrays(folder), formats)
    model.load_weights([(name, mx.array(weight)) for name, weight in decoded.items()], strict=True)
    return model.eval()


def _logits(model: nn.Module, tokens: list[int]) -> np.ndarray:
    return np.array(model(mx.array([tokens])).astype(mx.float32))[0]


def _layers(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Class and quantization of every leaf module."""
    leaves = tree_flatten(model.leaf_modules(), is_leaf=nn.Module.is_module)
    return {
        path: {"class": type(leaf).__name__, **{key: getattr(leaf, key, None) for key in _PARAMETERS}}
        for path, leaf in leaves
    }


if __name__ == "__main__":
    mx.set_default_device(mx.cpu)
    answer_jobs({"compare": compare, "errors": errors, "load": load})
