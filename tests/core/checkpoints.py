"""Small checkpoints, good and bad, for tests: written by code that shares nothing with the code under test.

folder = checkpoint(tmp_path / "model")                       two blocks of a llama, one file, config, tokenizer
folder = checkpoint(tmp_path / "model", llama(3), shards=3)   three shards and an index
write_safetensors(path, {"w": np.ones((4, 16), BF16)})        one file of any arrays
write_raw(path, {"w": entry("BF16", [4, 16], 0, 128)}, b"")   a header as you please, bytes as you please
"""

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from studio.core.containers.files import SourceFile
from studio.core.containers.safetensors import Tensor, read_header

Tensors = Mapping[str, NDArray[Any]]

BF16 = np.dtype(ml_dtypes.bfloat16)
FP8 = np.dtype(ml_dtypes.float8_e4m3fn)
E8M0 = np.dtype(ml_dtypes.float8_e8m0fnu)
DISK_NAMES = {
    BF16: "BF16",
    FP8: "F8_E4M3",
    E8M0: "F8_E8M0",
    np.dtype(ml_dtypes.float8_e5m2): "F8_E5M2",
    np.dtype(np.float16): "F16",
    np.dtype(np.float32): "F32",
    np.dtype(np.float64): "F64",
    np.dtype(np.int8): "I8",
    np.dtype(np.int16): "I16",
    np.dtype(np.uint8): "U8",
    np.dtype(np.int32): "I32",
    np.dtype(np.uint32): "U32",
    np.dtype(np.int64): "I64",
    np.dtype(np.bool_): "BOOL",
}
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
TOKENIZER = b'{"version": "1.0", "model": {"type": "BPE"}}'
INDEX = "model.safetensors.index.json"
QUERY = "model.layers.0.self_attn.q_proj.weight"


def gaussian(*shape: int, seed: int = 0, sigma: float = 0.02, dtype: Any = BF16) -> NDArray[Any]:
    """Normal weights of any dtype, the same for the same seed."""
    return (np.random.default_rng([seed, *shape]).standard_normal(shape) * sigma).astype(dtype)


def llama(blocks: int = 2, hidden: int = 64, inner: int = 128, vocabulary: int = 96, dtype: Any = BF16) -> Tensors:
    """The tensors of a small llama in the order of a real one."""
    tensors = {"model.embed_tokens.weight": gaussian(vocabulary, hidden, dtype=dtype)}
    shapes = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (hidden // 2, hidden),
        "self_attn.v_proj": (hidden // 2, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    for block in range(blocks):
        for number, (name, shape) in enumerate(shapes.items()):
            tensors[f"model.layers.{block}.{name}.weight"] = gaussian(*shape, seed=10 * block + number, dtype=dtype)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{block}.{name}.weight"] = np.ones(hidden, dtype)
    tensors["model.norm.weight"] = np.ones(hidden, dtype)
    tensors["lm_head.weight"] = gaussian(vocabulary, hidden, seed=99, dtype=dtype)
    return tensors


def entry(dtype: Any, shape: Any, start: Any, stop: Any) -> dict[str, Any]:
    """One tensor of a safetensors header; nothing is checked."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def header_of(tensors: Tensors) -> dict[str, Any]:
    """The entries of a good header for `tensors`, stored in their order."""
    entries, position = {}, 0
    for name, array in tensors.items():
        entries[name] = entry(DISK_NAMES[array.dtype], list(array.shape), position, position + array.nbytes)
        position += array.nbytes
    return entries


def data_of(tensors: Tensors) -> bytes:
    """The bytes that follow the header."""
    return b"".join(array.tobytes() for array in tensors.values())


def write_raw(
    path: Path, header: Mapping[str, Any] | str | bytes, data: bytes = b"", length: int | None = None
) -> Path:
    """A file with this header (JSON, text or bytes), this length field (default: the true one) and this data."""
    text = header if isinstance(header, str | bytes) else json.dumps(header)
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


def write_safetensors(path: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> Path:
    """A good file."""
    entries = header_of(tensors)
    if metadata is not None:
        entries = {"__metadata__": dict(metadata), **entries}
    return write_raw(path, entries, data_of(tensors))


def write_json(path: Path, value: Any) -> Path:
    """A JSON file; text and bytes are written as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(value, bytes):
        path.write_bytes(value)
    else:
        path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def checkpoint(
    folder: Path, tensors: Tensors | None = None, config: Any = None, *, shards: int = 1, tokenizer: bool = True
) -> Path:
    """A good Hugging Face folder; the tensors are dealt to the shards in runs of equal number."""
    tensors = llama() if tensors is None else tensors
    write_json(folder / "config.json", CONFIG if config is None else config)
    if tokenizer:
        (folder / "tokenizer.json").write_bytes(TOKENIZER)
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
        return folder
    names = list(tensors)
    weight_map = {}
    for number in range(shards):
        chosen = names[len(names) * number // shards : len(names) * (number + 1) // shards]
        shard = shard_name(number, shards)
        write_safetensors(folder / shard, {name: tensors[name] for name in chosen}, {"format": "pt"})
        weight_map |= dict.fromkeys(chosen, shard)
    write_json(folder / INDEX, {"metadata": {"total_size": 0}, "weight_map": weight_map})
    return folder


def shard_name(number: int, count: int) -> str:
    """The usual name of a shard, counted from 0."""
    return f"model-{number + 1:05d}-of-{count:05d}.safetensors"


def large_checkpoint(folder: Path, matrices: int, rows: int = 4096, columns: int = 4096) -> Path:
    """A checkpoint of many megabytes that takes no room: matrices of zeros in a sparse file."""
    nbytes = rows * columns * 2
    names = [f"model.layers.{number}.mlp.down_proj.weight" for number in range(matrices)]
    header = {name: entry("BF16", [rows, columns], i * nbytes, (i + 1) * nbytes) for i, name in enumerate(names)}
    path = write_raw(folder / "model.safetensors", header)
    os.truncate(path, path.stat().st_size + matrices * nbytes)
    write_json(folder / "config.json", CONFIG)
    return folder


def snapshot(folder: Path) -> dict[str, str]:
    """What a folder holds: relative path -> kind and SHA-256 or link target, to compare before and after."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace")
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = f"kind {path.stat().st_mode >> 12:o}"
    return found


def tensors_of(path: Path) -> dict[str, Tensor]:
    """The tensors that a safetensors file holds, as they are stored."""
    with SourceFile(path) as file:
        return read_header(file).tensors
