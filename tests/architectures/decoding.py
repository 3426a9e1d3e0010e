"""Puts the decoded weights of an export back into the tensors of its source, by the manifest of the export."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file, save_file

from kernels import FORMATS, Quantized
from kernels.reference import decode
from studio import core
from studio.core.exporting.manifest import Manifest
from tests.runtimes.decoding import Arrays, read_arrays

_STORED = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32}
_MULTIPLIER = {
    "mlx": lambda stored: stored / np.float32(2688),
    "compressed-tensors": lambda stored: np.float32(1) / stored,
    "modelopt": lambda stored: stored,
}
_BESIDE = (
    "visual",
    "vision",
    "audio",
    "projector",
    "embed",
    "wte",
    "wpe",
    "lm_head",
    "norm",
    "conv",
    "router",
    "mlp.gate.",
    "moe.gate.",
    "feed_forward.gate.",
)


def read_manifest(export: Path) -> dict[str, Any]:
    """The layout, and of each layer its name, format and where its matrices lie."""
    found = Manifest(export)
    layers = [
        {"name": entry.result.name, "format": entry.result.format, "matrices": list(map(asdict, entry.matrices))}
        for entry in found.entries()
    ]
    return {"layout": found.layout.name, "layers": layers}


def decoded_source(source: Path, export: Path) -> tuple[Arrays, dict[str, float]]:
    """The tensors of the source with float32 decoded weights in place of quantized ones, and the error of each layer.

    Kept tensors stay as they are stored, since a runtime may compute with them, and round, before they become float32.
    """
    manifest = read_manifest(export)
    arrays = read_arrays(export)
    tensors = load_file(source / "model.safetensors")
    errors = {}
    with core.open_model(source) as model, core.open_model(export) as opened:
        for layer in manifest["layers"]:
            if not layer["matrices"]:
                continue
            _check_opened(opened.by_name[layer["name"]], layer, manifest["layout"], arrays)
            name = model.by_name[layer["name"]].tensor.name
            original = tensors[name].astype(np.float32)
            tensors[name] = _decoded(layer, original, manifest["layout"], arrays, model.by_name[layer["name"]])
            errors[layer["name"]] = float(np.linalg.norm(tensors[name] - original) / np.linalg.norm(original))
    return tensors, errors


def write_decoded(source: Path, folder: Path, tensors: Arrays) -> None:
    """A dense checkpoint of decoded weights, with the config.json of the source."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())


def _decoded(layer: Mapping[str, Any], original: Any, layout: str, arrays: Arrays, known: core.Layer) -> Any:
    firsts = {matrix.name: matrix for matrix in known.matrices}
    flat = original.reshape(-1).copy()
    for matrix in layer["matrices"]:
        place = _positions(matrix, firsts.get(matrix["name"]))
        flat[place] = _matrix(layer["format"], matrix, layout, arrays)
    return flat.reshape(original.shape)


def _check_opened(opened: core.Layer, layer: Mapping[str, Any], layout: str, arrays: Arrays) -> None:
    """An export that is opened gives the weights that are decoded here."""
    for shown, matrix in zip(opened.matrices, layer["matrices"], strict=True):
        weights = opened.source.rows(shown, 0, shown.rows)
        np.testing.assert_array_equal(weights, _matrix(layer["format"], matrix, layout, arrays), err_msg=opened.name)


def _positions(matrix: Mapping[str, Any], known: Any) -> Any:
    """Indices of the elements of a matrix in its flattened source tensor, [rows, columns]."""
    rows, columns = np.arange(matrix["rows"]), np.arange(matrix["columns"])
    return known.first + rows[:, None] * known.row_step + columns[None] * known.column_step


def _matrix(name: str, matrix: Mapping[str, Any], layout: str, arrays: Arrays) -> Any:
    row, rows, columns = FORMATS[name], matrix["rows"], matrix["columns"]
    parts = {part["content"]: _bytes_of(part, arrays) for part in matrix["parts"]}
    stored = {part["content"]: part["dtype"] for part in matrix["parts"]}
    if row.scale == "float32":
        return _fp8(parts, stored, rows, columns)
    if row.symmetric:
        return _symmetric(row.bits, parts, stored, rows, columns)
    codes = parts["codes"].reshape(rows, columns * row.bits // 8)
    scales = parts["scales"].view(_STORED.get(stored["scales"], np.uint8)).reshape(rows, columns // row.block)
    biases = parts["biases"].view(_STORED[stored["biases"]]).reshape(scales.shape) if "biases" in parts else None
    g = _MULTIPLIER[layout](parts["tensor_scale"].view(np.float32)[0]) if "tensor_scale" in parts else None
    return decode(Quantized(row, codes, scales, biases, None if g is None else np.array(g, np.float32)))


def _fp8(parts: Mapping[str, Any], stored: Mapping[str, str], rows: int, columns: int) -> Any:
    """E4M3 numbers under one scale, one per row, or one per 128 x 128, told apart by how many there are."""
    values = parts["codes"].reshape(rows, columns).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    kind = "scales" if "scales" in parts else "multiplier"
    scales = parts[kind].view(_STORED[stored[kind]]).astype(np.float32)
    if scales.size == 1:
        return values * scales
    if scales.size == rows:
        return values * scales[:, None]
    tiles = scales.reshape(-(-rows // 128), -(-columns // 128))
    return values * tiles.repeat(128, 0)[:rows].repeat(128, 1)[:, :columns]


def _symmetric(bits: int, parts: Mapping[str, Any], stored: Mapping[str, str], rows: int, columns: int) -> Any:
    """Whole numbers of `bits`, the lowest bits of a word first, the middle one zero, under a scale per group."""
    words = parts["codes"].view("<u4").reshape(rows, -1, 1) >> np.arange(0, 32, bits, dtype=np.uint32)
    codes = (words & (2**bits - 1)).reshape(rows, -1)[:, :columns].astype(np.float32) - 2.0 ** (bits - 1)
    scales = parts["scales"].view(_STORED[stored["scales"]]).astype(np.float32).reshape(rows, -1)
    return codes.astype(np.float32) * scales.repeat(columns // scales.shape[1], 1)


def _bytes_of(part: Mapping[str, Any], arrays: Arrays) -> Any:
    data = arrays[part["name"]].reshape(-1).view(np.uint8)
    offset = part.get("offset", 0)
    return data[offset : offset + part["nbytes"]]


def quantized_share(source: Path, export: Path) -> float:
    """The share of the bytes of linear weights, experts among them, that the export holds quantized."""
    layers = {layer["name"] for layer in read_manifest(export)["layers"] if layer["matrices"]}
    total = quantized = 0
    for name, array in load_file(source / "model.safetensors").items():
        if is_linear(name, array.shape):
            total += array.nbytes
            quantized += array.nbytes * (name in layers or name.removesuffix(".weight") in layers)
    return quantized / total if total else 1.0


def is_linear(name: str, shape: tuple[int, ...]) -> bool:
    """True for the weights of linear layers, told by name and shape alone."""
    is_matrix = len(shape) in (2, 3) and min(shape[-2:]) >= 32 and not name.endswith("bias")
    return is_matrix and not any(part in name for part in _BESIDE)
