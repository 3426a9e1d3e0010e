"""What mlx-lm asks of config.json: the arguments of its models that have no default."""

import dataclasses
import importlib
import pkgutil
from typing import Any

from mlx_lm import models
from mlx_lm.utils import MODEL_REMAPPING


def required_fields() -> dict[str, list[str]]:
    """By model type, as config.json spells it; types that can not be imported here are left out."""
    found = {}
    for module in pkgutil.iter_modules(models.__path__):
        arguments = _arguments(module.name)
        if arguments is not None:
            found[module.name] = arguments
    found |= {kind: found[name] for kind, name in MODEL_REMAPPING.items() if name in found}
    return dict(sorted(found.items()))


def _arguments(name: str) -> list[str] | None:
    try:
        arguments: Any = importlib.import_module(f"mlx_lm.models.{name}").ModelArgs
    except SystemExit:  # it asks for a package that is not here
        return []
    except (ImportError, AttributeError, RuntimeError):
        return None
    missing = dataclasses.MISSING
    fields = dataclasses.fields(arguments) if dataclasses.is_dataclass(arguments) else ()
    return [
        field.name
        for field in fields
        if field.init and field.default is missing and field.default_factory is missing and field.name != "model_type"
    ]
