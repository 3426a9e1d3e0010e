"""What two runs must have in common to go on with each other's work."""

from collections.abc import Sequence
from hashlib import sha256 as sha256_of
from typing import Any

from studio.core.exporting.readback import sha256
from studio.core.model import Model
from studio.core.planning.plan import Choice
from studio.core.stores.store_path import forget


def source_identity(model: Model) -> dict[str, list[Any]]:
    """File -> size, version, and SHA-256 of its first megabyte."""
    source = {}
    for file in model.files:
        source[file.path.name] = [file.size, file.fingerprint.version, sha256(file, 0, min(file.size, 1 << 20))]
        forget(model.path)
    return source


def choices_identity(choices: Sequence[Choice]) -> str:
    """SHA-256 over all that decides on the bytes of each layer."""
    plan = sha256_of()
    for choice in choices:
        guide = choice.guide.meaning if choice.guide else ""
        layer = choice.layer
        told = (
            layer.name,
            choice.recipe,
            guide,
            layer.source.meaning,
            layer.lift,
            choice.multipliers,
            choice.input_scales,
            layer.kept_dtype,
        )
        plan.update(repr(told).encode())
    return plan.hexdigest()
