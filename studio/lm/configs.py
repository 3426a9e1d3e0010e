"""The config of a checkpoint as runtimes take it."""

from typing import Any

from studio.core.layouts.completion import exported_config
from studio.core.model import Model

_FLOATS = {"Infinity": float("inf"), "-Infinity": float("-inf"), "NaN": float("nan")}


def complete_config(model: Model) -> dict[str, Any]:
    """Values where every runtime looks for them, and the floats that JSON has no word for as floats."""
    found: dict[str, Any] = _plain(exported_config(model))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        named = value.get("__float__")
        return _FLOATS[named] if named in _FLOATS and len(value) == 1 else {k: _plain(v) for k, v in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
