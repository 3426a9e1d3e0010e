"""Turns an export back into a plain checkpoint of what its bytes say, in float32, by its manifest."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from kernels import FORMATS, Quantized
from kernels.reference import decode
from tests.runtimes.decoding import Arrays, read_arrays

LARGEST_ERROR = 0.2
"""Relative error that no 4-bit format has on weights like these; more means that the bytes say something else."""

_MULTIPLIER = {
    "mlx": lambda stored: stored / np.float32(2688),
    "compressed-tensors": lambda stored: np.float32(1) / stored,
    "modelopt": lambda stored: stored,
}
_SECTIONS = ("quantization", "quantization_config", "model_file")


class DecodingError(Exception):
    """An export that holds other weights than its source."""


def write_decoded(source: Path, export: Path, folder: Path) -> Path:
    """A checkpoint of the weights of `export` below `folder`, in the names of `source`; equal ones are written once."""
    manifest = json.loads((export / "nvfp4_studio.json").read_text(encoding="utf-8"))
    tensors = _decoded(manifest, read_arrays(source), read_arrays(export))
    config = json.loads((export / "config.json").read_text(encoding="utf-8"))
    text = json.dumps({key: value for key, value in config.items() if key not in _SECTIONS}, indent=2)
    target = folder / _digest(text, tensors)
    if not (target / "config.json").exists():
        target.mkdir(parents=True, exist_ok=True)
        for path in (*source.glob("tokenizer*"), *source.glob("generation_config.json")):
            (target / path.name).write_bytes(path.read_bytes())
        save_file(tensors, target / "model.safetensors", {"format": "pt"})
        (target / "config.json").write_text(text, encoding="utf-8")
    return target


def _decoded(manifest: Mapping[str, Any], tensors: Arrays, arrays: Arrays) -> Arrays:
    found = dict(tensors)
    for layer in manifest["layers"]:
        for matrix in layer["matrices"]:
            name = f"{matrix['name']}.weight"
            weights = _matrix(layer["format"], matrix, manifest["layout"], arrays)
            original = tensors[name].astype(np.float32)
            error = np.linalg.norm(weights - original) / np.linalg.norm(original)
            if not error < LARGEST_ERROR:
                raise DecodingError(f"{name} decodes to something else, relative error {error:.2f}")
            found[name] = weights
    return found


def _matrix(name: str, matrix: Mapping[str, Any], layout: str, arrays: Arrays) -> Any:
    row, rows, columns = FORMATS[name], matrix["rows"], matrix["columns"]
    parts = {part["content"]: _part(part, arrays) for part in matrix["parts"]}
    blocks = (rows, columns // row.block)
    codes = parts["codes"].view(np.uint8).reshape(rows, columns * row.bits // 8)
    biases = parts["biases"].reshape(blocks) if "biases" in parts else None
    g = _MULTIPLIER[layout](parts["tensor_scale"][0]) if "tensor_scale" in parts else np.float32(1)
    scale = np.array(g, np.float32) if row.tensor_scale else None
    return decode(Quantized(row, codes, parts["scales"].reshape(blocks), biases, scale))


def _part(part: Mapping[str, Any], arrays: Arrays) -> Any:
    stored = arrays[part["name"]].reshape(-1)
    start, count = part.get("offset", 0) // stored.itemsize, part["nbytes"] // stored.itemsize
    return stored[start : start + count]


def _digest(text: str, tensors: Arrays) -> str:
    found = hashlib.sha256(text.encode())
    for name, array in sorted(tensors.items()):
        found.update(name.encode() + array.tobytes())
    return found.hexdigest()[:16]
