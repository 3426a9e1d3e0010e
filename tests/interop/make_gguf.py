"""gguf: a llama in every type of ggml, quantized by llama.cpp's library, decoded by gguf-py and by that library."""

import ctypes
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy as np

from tests.interop.making import Made, Maker

_TYPES = {kind.name: int(kind) for kind in gguf.GGMLQuantizationType}
_SIZES = {int(kind): size for kind, size in gguf.GGML_QUANT_SIZES.items()}
_WIDTH, _INNER, _WORDS, _HEADS, _KEYS = 256, 512, 320, 4, 2
_IN_C_ALONE = ("Q1_0",)
_BETWEEN = ("Q8_1", "Q8_K")
"""Types of activations."""
_QUANTIZED = [
    kind for kind, number in _TYPES.items() if _SIZES[number][0] > 1 and kind not in (*_BETWEEN, *_IN_C_ALONE)
]
_BLOCK = {
    "attn_q": ("self_attn.q_proj", _WIDTH, _WIDTH),
    "attn_k": ("self_attn.k_proj", _WIDTH // 2, _WIDTH),
    "attn_v": ("self_attn.v_proj", _WIDTH // 2, _WIDTH),
    "attn_output": ("self_attn.o_proj", _WIDTH, _WIDTH),
    "ffn_gate": ("mlp.gate_proj", _INNER, _WIDTH),
    "ffn_up": ("mlp.up_proj", _INNER, _WIDTH),
    "ffn_down": ("mlp.down_proj", _WIDTH, _INNER),
}
_NUMBERS = {
    "context_length": 128,
    "block_count": 1,
    "embedding_length": _WIDTH,
    "feed_forward_length": _INNER,
    "attention.head_count": _HEADS,
    "attention.head_count_kv": _KEYS,
}


@cache
def _library() -> ctypes.CDLL:
    place = find_spec("xllamacpp")
    assert place is not None
    assert place.origin is not None
    library = ctypes.CDLL(str(next(Path(place.origin).parent.glob("*.so"))))
    numbers = [ctypes.c_int64] * 3
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *numbers, ctypes.c_void_p]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_get_type_traits.restype = ctypes.POINTER(_Traits)
    return library


class _Traits(ctypes.Structure):
    """ggml_type_traits of ggml.h, as far as it is needed."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("block", ctypes.c_int64),
        ("interleaved", ctypes.c_int64),
        ("nbytes", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    )


def _quantized(array: np.ndarray, number: int) -> np.ndarray:
    """Rows of blocks, [rows, bytes]; every column is as important as any other."""
    block, nbytes = _SIZES[number]
    source, importance = np.ascontiguousarray(array, np.float32), np.ones(array.shape[1], np.float32)
    out = np.zeros((len(array), array.shape[1] // block * nbytes), np.uint8)
    numbers = (0, *array.shape, importance.ctypes.data)
    written = _library().ggml_quantize_chunk(number, source.ctypes.data, out.ctypes.data, *numbers)
    assert written == out.nbytes
    return out


def _by_library(rows: np.ndarray, number: int) -> np.ndarray:
    block, nbytes = _SIZES[number]
    out = np.zeros((len(rows), rows.shape[1] // nbytes * block), np.float32)
    _library().ggml_get_type_traits(number).contents.to_float(rows.ctypes.data, out.ctypes.data, out.size)
    return out


def _by_package(rows: np.ndarray, number: int) -> np.ndarray:
    found: np.ndarray = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType(number)).astype(np.float32)
    return found


def _weights() -> Iterator[tuple[str, str, np.ndarray]]:
    """(llama.cpp's name, that of a plain checkpoint, weights)."""
    draw = np.random.default_rng(7)
    shapes = {"token_embd": ("model.embed_tokens", _WORDS, _WIDTH), "output": ("lm_head", _WORDS, _WIDTH)}
    blocks = {f"blk.0.{key}": (f"model.layers.0.{name}", *shape) for key, (name, *shape) in _BLOCK.items()}
    for key, (name, *shape) in {**shapes, **blocks}.items():
        yield f"{key}.weight", f"{name}.weight", (draw.standard_normal(shape) * 0.02).astype(np.float32)
    norms = {"output_norm": "model.norm", "blk.0.attn_norm": "model.layers.0.input_layernorm"}
    for key, name in {**norms, "blk.0.ffn_norm": "model.layers.0.post_attention_layernorm"}.items():
        yield f"{key}.weight", f"{name}.weight", np.ones(_WIDTH, np.float32)


def _make(kind: str, decode: Callable[[np.ndarray, int], np.ndarray], _sources: Path, target: Path) -> Made:
    target.mkdir()
    number, decoded = _TYPES[kind], {}
    writer = gguf.GGUFWriter(target / "model.gguf", "llama")
    for key, value in _NUMBERS.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    for key, name, weights in _weights():
        if weights.ndim == 1:
            writer.add_tensor(key, weights)
            decoded[name] = weights
            continue
        heads = {"blk.0.attn_q.weight": _HEADS, "blk.0.attn_k.weight": _KEYS}.get(key, 0)
        rows = _quantized(_paired(weights, heads), number)
        writer.add_tensor(key, rows, raw_dtype=gguf.GGMLQuantizationType(number))
        decoded[name] = _in_order(decode(rows, number), heads)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    loader = "gguf.quants" if decode is _by_package else "llama.cpp's ggml"
    return Made(decoded, loader, alarms=("tokenizer-missing",))


def _paired(weights: np.ndarray, heads: int) -> np.ndarray:
    """Rows as llama.cpp has them: of each head the first half beside the second."""
    if not heads:
        return weights
    return weights.reshape(heads, 2, -1, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)


def _in_order(weights: np.ndarray, heads: int) -> np.ndarray:
    if not heads:
        return weights
    return weights.reshape(heads, -1, 2, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)


CASES: dict[str, Maker] = {
    **{kind: partial(_make, kind, _by_package) for kind in _QUANTIZED},
    **{f"{kind}, decoded in C": partial(_make, kind, _by_library) for kind in (*_QUANTIZED, *_IN_C_ALONE)},
}
