"""The metadata of a GGUF file from config.json: the inverse of reading it; refused where llama.cpp differs."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.core.architectures import text_section
from studio.core.architectures.gguf import GgufArchitecture
from studio.core.architectures.gguf_names import OUTSIDE
from studio.core.architectures.gguf_rows import ARCHITECTURES
from studio.core.errors import PlanError
from studio.core.layouts.completion import exported_config
from studio.core.model import Model
from studio.core.names import printable
from studio.core.opening.gguf_heads import llama3_factors

WRITTEN = ("llama", "mixtral", "qwen2", "qwen3", "qwen3_moe")
"""Model types that are written: those whose values llama.cpp stores as they are."""

_IN_BLOCK = re.compile(r"(?:model\.)?layers\.(\d{1,9})\.(.+)\.(weight|bias)")
_EXPERT = re.compile(r"\.experts\.(\d{1,9})\.")
_MODES: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("hidden_act", (None, "silu")),
    ("use_sliding_window", (None, False)),
    ("norm_topk_prob", (None, True)),
    ("decoder_sparse_step", (None, 1)),
    ("mlp_only_layers", (None, [])),
    ("partial_rotary_factor", (None, 1, 1.0)),
)
"""Keys of config.json, and the values that llama.cpp takes for granted."""

_QUANTIZATION_VERSION = 2
_FILE_TYPES = {"NVFP4": 39, "MXFP4": 38, "BF16": 32, "F16": 1, "F32": 0}
_ROPE_KINDS = ("default", "linear", "yarn", "llama3")


def row_of(model: Model) -> GgufArchitecture:
    """The row that a model is written by. Raises PlanError for an architecture that is not written, or not so."""
    config = text_section(model.config)
    kind = config.get("model_type")
    row = next((row for row in ARCHITECTURES if row.model_type == kind and kind in WRITTEN), None)
    if row is None:
        what = f"GGUF files are written of {', '.join(WRITTEN)}, not of {printable(kind, 60)}"
        hint = "export with --for llama.cpp and convert that with llama.cpp's own converter"
        raise PlanError(what, file=model.path, hint=hint)
    for key, values in _MODES:
        if (value := config.get(key)) not in values:
            what = f"{key} is {printable(value, 60)} in config.json, which llama.cpp's {row.name} does not know"
            raise PlanError(what, file=model.path)
    if row.model_type == "mixtral" and config.get("sliding_window"):
        raise PlanError("it has a sliding window, which llama.cpp's llama does not know", file=model.path)
    return row


def model_pairs(model: Model, row: GgufArchitecture, stored: str) -> dict[str, Any]:
    """The pairs that tell the shape of a model whose matrices are of the type `stored`. Raises PlanError."""
    config = text_section(exported_config(model))
    heads = _number(model, config, "num_attention_heads")
    width = config.get("head_dim") or _number(model, config, "hidden_size") // heads
    said = {key: _number(model, config, name) for name, key in row.needed.items()}
    said |= {
        "attention.head_count_kv": config.get("num_key_value_heads") or heads,
        "attention.key_length": width,
        "attention.value_length": width,
        "rope.dimension_count": width,
        "rope.freq_base": float(config.get("rope_theta") or 10000.0),
        "vocab_size": _number(model, config, "vocab_size"),
    }
    said |= {f"rope.scaling.{key}": value for key, value in _scaling(model, config).items()}
    return {
        "general.architecture": row.name,
        "general.type": "model",
        "general.name": model.name,
        "general.file_type": _FILE_TYPES[stored],
        "general.quantization_version": _QUANTIZATION_VERSION,
        **{f"{row.name}.{key}": value for key, value in said.items()},
    }


def heads_of(model: Model, module: str) -> int:
    """Heads of the queries or the keys."""
    config = text_section(exported_config(model))
    heads = int(_number(model, config, "num_attention_heads"))
    return heads if module == "attn_q" else int(config.get("num_key_value_heads") or heads)


def experts_of(model: Model, row: GgufArchitecture) -> int:
    """Experts of a block."""
    key = next(name for name, own in row.fields.items() if own == "expert_count")
    return int(_number(model, text_section(exported_config(model)), key))


def _number(model: Model, config: Mapping[str, Any], key: str) -> Any:
    value: Any = config.get(key)
    if type(value) not in (int, float) or value <= 0:
        found = f"says {printable(value, 60)} for {key}, not" if key in config else f"lacks {key},"
        raise PlanError(f"config.json {found} a number above 0", file=model.path)
    return value


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    found = config.get("rope_scaling") or config.get("rope_parameters") or {}
    return {"rope_type": "default", **found, **({"rope_type": found["type"]} if "type" in found else {})}


def _scaling(model: Model, config: Mapping[str, Any]) -> dict[str, Any]:
    rope = _rope(config)
    if rope["rope_type"] not in _ROPE_KINDS:
        what = f"its rotary scaling is {printable(rope['rope_type'], 60)}, which is not written"
        raise PlanError(what, file=model.path)
    if rope["rope_type"] not in ("linear", "yarn"):
        return {}
    found = {"type": rope["rope_type"], "factor": float(rope["factor"])}
    if rope["rope_type"] == "yarn":
        if odd := sorted(rope.keys() - _YARN):
            raise PlanError(f"its rotary scaling has {', '.join(odd)}, which is not written", file=model.path)
        original = rope.get("original_max_position_embeddings") or config["max_position_embeddings"]
        found["original_context_length"] = int(original)
    return found


_YARN = {"rope_type", "type", "factor", "original_max_position_embeddings", "rope_theta", "partial_rotary_factor"}


def rope_factors(model: Model) -> NDArray[np.float32] | None:
    """What rope_freqs.weight holds, None where there is none."""
    config = text_section(exported_config(model))
    rope = _rope(config)
    if rope["rope_type"] != "llama3":
        return None
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return llama3_factors(float(config["rope_theta"]), int(width), rope)


def gguf_name(row: GgufArchitecture, weight: str) -> tuple[str, str, int | None]:
    """(llama.cpp's name of a weight, that of its module, the place of its expert), all empty for one without a name."""
    if found := _IN_BLOCK.fullmatch(weight):
        block, inside, leaf = found.groups()
        expert = _EXPERT.search(f".{inside}.")
        general = _EXPERT.sub(".experts.{}.", f".{inside}.").strip(".") if expert else inside
        module = next((own for own, name in row.block.items() if name == general), "")
        place = int(expert[1]) if expert else None
        return (f"blk.{int(block)}.{module}.{leaf}", module, place) if module else ("", "", None)
    base, _, leaf = weight.rpartition(".")
    module = next((own for own, name in OUTSIDE.items() if name == base), "")
    return (f"{module}.{leaf}", module, None) if module and leaf in ("weight", "bias") else ("", "", None)
