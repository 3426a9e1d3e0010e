"""The JSON files beside the weights."""

import copy
import json
import math
from typing import Any

from studio.core.model import Model

FLOAT = "__float__"
"""The key under which transformers 5 (`PreTrainedConfig`) and mlx-lm (`load_config`) read numbers that JSON lacks."""


def json_document(data: Any) -> bytes:
    """`data` as indented UTF-8 JSON with a final newline; the same bytes for the same data.

    Infinity and NaN, which JSON lacks, become {"__float__": "Infinity"}, "-Infinity" or "NaN".
    """
    try:
        text = json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False)
    except ValueError:
        text = json.dumps(_tagged(data), ensure_ascii=False, indent=2, allow_nan=False)
    return (text + "\n").encode()


def _tagged(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tagged(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_tagged(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {FLOAT: "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    return value


CODE = "auto_map"
"""Names Python files of the checkpoint that transformers runs under trust_remote_code."""


def code_left_out(model: Model) -> list[str]:
    """What must be known of a model that comes with its own code: the export neither copies nor names it."""
    if not any(CODE in section for section in _sections(dict(model.config))):
        return []
    return [
        f"the checkpoint's own Python code ({CODE} in config.json) is left out; "
        "a runtime that needs it wants those files and that entry from the original"
    ]


def config_without_quantization(model: Model) -> dict[str, Any]:
    """The model's config, without an FP8 quantization section and without references to code."""
    config = copy.deepcopy(dict(model.config))
    for section in _sections(config):
        for key in ("quantization", "quantization_config", CODE):
            section.pop(key, None)
    return config


def _sections(config: dict[str, Any]) -> list[dict[str, Any]]:
    text = config.get("text_config")
    return [config, text] if isinstance(text, dict) else [config]
