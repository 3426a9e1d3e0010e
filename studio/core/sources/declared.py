"""What the configuration claims of a quantization: its sections, and how many weights share a scale."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from studio.core.names import printable

KEYS = ("quantization_config", "quantization", "compression_config")
"""Keys of config.json, or of an object in it, that describe how weights were quantized."""

BESIDE = "hf_quant_config.json"
"""ModelOpt says it in a file of its own."""

OLD_GPTQ, OLD_AWQ = "quantize_config.json", "quant_config.json"
"""So do the first releases of AutoGPTQ and of AutoAWQ."""

FILES = (BESIDE, OLD_GPTQ, OLD_AWQ)

_FORMAT_KEYS = ("format", "packing_format")

_LARGEST_SIDE = 1 << 40
_SIDES = re.compile(r"(\d{1,9})\s*x\s*(\d{1,9})")


@dataclass(frozen=True, slots=True)
class Section:
    """An object that describes a quantization, and where it stands."""

    place: str
    content: Mapping[str, Any]

    @property
    def method(self) -> str:
        """The method it names, with its format, or an empty text."""
        name = self.content.get("quant_method") or _modelopt(self.content)
        detail = self.content.get("format") or self.content.get("quant_algo")
        return printable(name) + (f" ({printable(detail)})" if detail else "") if name else ""


@dataclass(frozen=True, slots=True)
class Granularity:
    """Weights that share a scale: rows x columns, 0 for all that there are."""

    rows: int
    columns: int

    def block(self, shape: tuple[int, int]) -> tuple[int, int]:
        """The block in a matrix of `shape`, no larger than it."""
        return min(self.rows or shape[0], shape[0]), min(self.columns or shape[1], shape[1])

    def __str__(self) -> str:
        names = {(0, 0): "one scale for all", (1, 0): "a scale per row", (0, 1): "a scale per column"}
        return names.get((self.rows, self.columns), f"blocks of {self.rows} x {self.columns}")


TENSOR, ROW, COLUMN, MX = Granularity(0, 0), Granularity(1, 0), Granularity(0, 1), Granularity(1, 32)
_STRATEGIES = {"tensor": TENSOR, "channel": ROW}
_ALGORITHMS: Mapping[str, tuple[Granularity, ...]] = {
    "fp8": (TENSOR, ROW),
    "fp8_per_channel_per_token": (ROW, COLUMN),
    "fp8_pb_wo": (Granularity(128, 128), Granularity(64, 64), Granularity(32, 32)),
    "mxfp8": (MX,),
}
_METHODS: Mapping[str, tuple[Granularity, ...]] = {"fbgemm_fp8": (ROW, COLUMN), "mxfp8": (MX,)}


def sections(config: Mapping[str, Any], beside: Mapping[str, Mapping[str, Any]]) -> tuple[Section, ...]:
    """Every section of a config and of its objects; `beside` are the contents of FILES, by name."""
    places = [("", config), *((f"{key}.", value) for key, value in config.items() if isinstance(value, dict))]
    found = [Section(place + key, value[key]) for place, value in places for key in KEYS if _is_section(value.get(key))]
    others = ((name, content.get("quantization") if name == BESIDE else content) for name, content in beside.items())
    return (*found, *(Section(name, content) for name, content in others if _is_section(content)))


def _is_section(value: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, dict) and bool(value)


def methods(found: Sequence[Section]) -> frozenset[str]:
    """All methods that the sections name, in small letters."""
    return frozenset(str(section.content.get("quant_method")).lower() for section in found)


def formats(found: Sequence[Section]) -> frozenset[str]:
    """All formats that the sections and their groups name, in small letters."""
    named = [
        *(section.content for section in found),
        *(group for section in found for group in _groups(section.content)),
    ]
    return frozenset(str(item.get(key)).lower() for item in named for key in _FORMAT_KEYS if item.get(key))


def _groups(content: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The groups of modules that a section of compressed-tensors describes."""
    groups = content.get("config_groups")
    yield from (group for group in (groups.values() if isinstance(groups, dict) else ()) if isinstance(group, dict))


def group_weights(found: Sequence[Section]) -> Iterator[Mapping[str, Any]]:
    """What the groups of all sections say of their weights."""
    every = (group.get("weights") for section in found for group in _groups(section.content))
    yield from (weights for weights in every if isinstance(weights, dict))


@dataclass(frozen=True, slots=True)
class Claims:
    """What sections claim of weights of 8 bits: granularities, each once, and whether scales are powers of two."""

    granularities: tuple[Granularity, ...] = ()
    exponents: bool = False

    def __str__(self) -> str:
        return " or ".join(map(str, self.granularities))


def claims(found: Sequence[Section]) -> Claims:
    """All that the sections claim together."""
    every = dict.fromkeys(claim for section in found for claim in _granularities(section.content))
    exponents = any(str(section.content.get("scale_fmt")).lower() == "ue8m0" for section in found)
    return Claims(tuple(every), exponents or MX in every)


def _granularities(content: Mapping[str, Any]) -> Iterator[Granularity]:
    if "weight_block_size" in content:
        block = _block(content["weight_block_size"])
        yield from (block,) if block else (TENSOR, ROW)
    for weights in group_weights([Section("", content)]):
        if weights.get("num_bits") == 8:
            yield from _of_group(weights)
    for algorithm in dict.fromkeys(algorithms(content)):
        yield from _ALGORITHMS.get(algorithm, ())
    yield from _METHODS.get(str(content.get("quant_method")).lower(), ())


def algorithms(content: Mapping[str, Any]) -> Iterator[str]:
    """Those that a section of ModelOpt names, for all modules or for each, in small letters."""
    layers = content.get("quantized_layers")
    settings = [content, *(layers.values() if isinstance(layers, dict) else ())]
    yield from (str(item.get("quant_algo")).lower() for item in settings if isinstance(item, dict))


def _of_group(weights: Mapping[str, Any]) -> Iterator[Granularity]:
    strategy = str(weights.get("strategy"))
    if strategy in _STRATEGIES:
        yield _STRATEGIES[strategy]
    elif strategy == "block" and (block := _block(weights.get("block_structure"))):
        yield block
    elif strategy == "group" and (group := _block([1, weights.get("group_size")])):
        yield group


def _block(value: Any) -> Granularity | None:
    """[rows, columns], or the same as the text "128x128"."""
    if isinstance(value, str) and (sides := _SIDES.fullmatch(value)):
        value = [int(side) for side in sides.groups()]
    if isinstance(value, list) and len(value) == 2 and all(map(_is_side, value)):
        return Granularity(*value)
    return None


def _is_side(value: Any) -> bool:
    return type(value) is int and 0 < value < _LARGEST_SIDE


def _modelopt(content: Mapping[str, Any]) -> str:
    return "modelopt" if content.get("quant_algo") else ""
