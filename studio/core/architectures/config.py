"""What config.json says about the architecture; it may lack anything, and nothing in it is believed blindly."""

from collections.abc import Mapping
from typing import Any

from studio.core.architectures.families import FAMILIES
from studio.core.architectures.family import Family, pattern
from studio.core.architectures.generic import GENERIC
from studio.core.architectures.joined import JOINED

_TEXT = ("text_config", "llm_config", "language_config", "thinker_config", "llm")
_BLOCKS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_blocks")
_HIDDEN = ("hidden_size", "d_model", "n_embd", "dim")


def sections(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The sections that describe the language model, innermost first, the whole config last."""
    found = [config]
    while inner := next((found[0][key] for key in _TEXT if isinstance(found[0].get(key), dict)), None):
        found.insert(0, inner)
    return found


def text_section(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config that describes the language model: the whole, or a section of a multimodal one."""
    return sections(config)[0]


def model_types(config: Mapping[str, Any]) -> list[str]:
    """Model types from the whole to the text section."""
    return [str(section["model_type"]) for section in reversed(sections(config)) if section.get("model_type")]


def family_of(config: Mapping[str, Any]) -> Family:
    """The row of the table for a config: that of its architectures, of the whole model, of its text section.

    One that says something wins over one that says that nothing is special.
    """
    return _row(config) or GENERIC


def is_known(config: Mapping[str, Any]) -> bool:
    """True when the table knows a model type of the config."""
    return _row(config) is not None


def joins_single_experts(config: Mapping[str, Any]) -> bool:
    """True when transformers joins the single experts of a checkpoint while loading it."""
    return any(kind in JOINED for kind in model_types(config))


def _row(config: Mapping[str, Any]) -> Family | None:
    found = config.get("architectures")
    names = [name for name in found if isinstance(name, str)] if isinstance(found, list) else []
    for family in FAMILIES:
        if family.architectures and any(pattern(family.architectures).search(name) for name in names):
            return family
    kinds = [kind for name in model_types(config) for kind in (name, name.removesuffix("_text"))]
    rows = [family for kind in kinds for family in FAMILIES if kind in family.model_types and _applies(family, config)]
    return next((row for row in rows if row is not GENERIC), rows[0] if rows else None)


def _applies(family: Family, config: Mapping[str, Any]) -> bool:
    return not family.only_without or not number(config, family.only_without)


def block_count(config: Mapping[str, Any]) -> int:
    """Number of blocks of the language model that the config states, or 0."""
    return _integer(config, _BLOCKS)


def hidden_size(config: Mapping[str, Any]) -> int:
    """Width of the language model that the config states, or 0."""
    return _integer(config, _HIDDEN)


def number(config: Mapping[str, Any], dotted: str) -> int:
    """The whole number under a dotted key of the text section, or 0."""
    value: Any = text_section(config)
    for key in dotted.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, int) and value > 0 else 0


def _integer(config: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    for section in sections(config):
        for key in keys:
            if isinstance(section.get(key), int) and section[key] > 0:
                return int(section[key])
    return 0
