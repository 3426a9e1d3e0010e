"""The JSON files beside the weights."""

import copy
import json
from typing import Any

from studio.core.model import Model


def json_document(data: Any) -> bytes:
    """`data` as indented UTF-8 JSON with a final newline; the same bytes for the same data."""
    return (json.dumps(data, ensure_ascii=False, indent=2) + "\n").encode()


def config_without_quantization(model: Model) -> dict[str, Any]:
    """The model's config, without an FP8 quantization section and without references to code."""
    config = copy.deepcopy(dict(model.config))
    for key in ("quantization", "quantization_config", "auto_map"):
        config.pop(key, None)
        if isinstance(config.get("text_config"), dict):
            config["text_config"].pop(key, None)
    return config
