"""What a config claims of a quantization: its layout, bits, activations, and which modules it leaves out."""

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from studio.core.sources.declared import BESIDE, OLD_AWQ, OLD_GPTQ, Section

_MLX_PLACES = ("quantization", "quantization_config")
_LISTS = ("ignore", "exclude_modules", "modules_to_not_convert", "ignored_layers", "exclude")
_FOUR_BITS = ("nvfp4", "w4a16_nvfp4", "nvfp4_awq", "nvfp4_svd")
_OF_EXPERTS = re.compile(r"(.*\.experts)\.\d+\..+")
_JOINED = {"qkv_proj": {"q_proj", "k_proj", "v_proj"}, "gate_up_proj": {"gate_proj", "up_proj"}}
_TOWERS = ("vision_tower", "vision_model", "visual")
"""What vLLM leaves out of a ModelOpt checkpoint whatever its list says."""

_GPTQ = ("gptq", "awq", "auto-round", "auto_round", "auto-gptq", "auto-awq")
_OF_SINGLE = ("dynamic", "extra_config", "regex_config", "layers")
"""Keys under which sections say other things of single modules."""

_OLD_KEYS = (("bits", "w_bit"), ("group_size", "q_group_size"))
"""Methods whose sections say bits and groups alike, and how AutoAWQ called these first."""

_STATIC = (8, False)
"""Bits of inputs, and whether their scales are found as a model runs."""

_MOST_UNBOUNDED = 3
_LONGEST_PATTERN = 300


@dataclass(frozen=True, slots=True)
class Scheme:
    """How one group of modules is stored, as far as it is said: bits of a weight, their type, weights of a scale.

    0 and "" where it is not said. targets: the modules that it is said of.
    """

    bits: int = 0
    type: str = ""
    group: int = 0
    format: str = ""
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """One section, understood.

    layout: the convention it is of, "" for another. bits: of weights, 0 where it does not say. activations: True when
    it asks for quantized inputs with stored scales. excluded: entries of its exclusion list, `key` where they stand,
    None where it has none. targets: of compressed-tensors. overrides: by path, of MLX. group: weights of a scale, 0
    where it does not say. algorithm: of ModelOpt, in small letters. schemes: those of its groups.
    varies: True when it says other things of single modules. rounds: True when it asks for inputs in eight bits with
    stored scales, for all modules.
    """

    place: str
    layout: str
    bits: int = 0
    activations: bool = False
    excluded: tuple[str, ...] | None = None
    key: str = ""
    targets: tuple[str, ...] = ()
    overrides: Mapping[str, Any] | None = None
    group: int = 0
    algorithm: str = ""
    mode: str = ""
    schemes: tuple[Scheme, ...] = ()
    varies: bool = False
    rounds: bool = False


def claims_of(found: Sequence[Section]) -> tuple[Claim, ...]:
    """What each section claims."""
    return tuple(map(_claim, found))


def _claim(section: Section) -> Claim:
    content = section.content
    key = next((name for name in _LISTS if isinstance(content.get(name), list)), "")
    listed = tuple(entry for entry in content[key] if isinstance(entry, str)) if key else None
    method, algorithm = str(content.get("quant_method", "")).lower(), str(content.get("quant_algo", "")).lower()
    if method == "compressed-tensors":
        return _of_groups(section, listed, key)
    if method == "modelopt" or algorithm not in ("", "none") or section.place == BESIDE:
        bits = 4 if algorithm in _FOUR_BITS else 8 if algorithm.startswith(("fp8", "mxfp8")) else 0
        four = algorithm in ("nvfp4", "nvfp4_awq", "nvfp4_svd")
        group, schemes = _whole(content.get("group_size")), _schemes(content)
        return Claim(
            section.place, "modelopt", bits, four, listed, key, group=group, algorithm=algorithm, schemes=schemes
        )
    if section.place in _MLX_PLACES and not method and isinstance(content.get("group_size"), int):
        named = {path: value for path, value in content.items() if isinstance(value, dict) or value is False}
        bits, group, mode = _whole(content.get("bits")), content["group_size"], str(content.get("mode", "affine"))
        return Claim(section.place, "mlx", bits, overrides=named, group=group, mode=mode)
    if method in _GPTQ or section.place in (OLD_GPTQ, OLD_AWQ):
        bits, group = (_whole(content.get(key, content.get(old))) for key, old in _OLD_KEYS)
        varies = any(content.get(key) for key in _OF_SINGLE)
        return Claim(section.place, "gptq", bits, False, listed, key, group=max(group, 0), varies=varies)
    if method in ("fp8", "fbgemm_fp8", "mxfp8"):
        return Claim(section.place, "fp8", 8, False, listed, key)
    return Claim(section.place, "", 0, False, listed, key)


def _of_groups(section: Section, listed: tuple[str, ...] | None, key: str) -> Claim:
    schemes = _schemes(section.content)
    bits = {scheme.bits for scheme in schemes}
    active = any(_wants_inputs(row.get("input_activations")) for row in _rows(section.content))
    names = tuple(text for scheme in schemes for text in scheme.targets)
    only = bits.pop() if len(bits) == 1 else 0
    asked = [row.get("input_activations") for row in _rows(section.content)]
    rounds = bool(asked) and all(
        isinstance(a, dict) and (a.get("num_bits"), a.get("dynamic")) == _STATIC for a in asked
    )
    return Claim(section.place, "compressed-tensors", only, active, listed, key, names, schemes=schemes, rounds=rounds)


def _rows(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    groups = content.get("config_groups")
    return [row for row in groups.values() if isinstance(row, dict)] if isinstance(groups, dict) else []


def _schemes(content: Mapping[str, Any]) -> tuple[Scheme, ...]:
    """What the groups of a section say of their weights; a format that a group does not name is that of all."""
    every = _text(content.get("format"))
    found = []
    for row in _rows(content):
        weights = row["weights"] if isinstance(row.get("weights"), dict) else {}
        named = row["targets"] if isinstance(row.get("targets"), list) else []
        targets = tuple(text for text in named if isinstance(text, str))
        size, form = _whole(weights.get("group_size")), _text(row.get("format")) or every
        found.append(Scheme(_whole(weights.get("num_bits")), _text(weights.get("type")), size, form, targets))
    return tuple(found)


def _text(value: Any) -> str:
    return value.lower() if isinstance(value, str) else ""


def _wants_inputs(activations: Any) -> bool:
    """True for 4-bit inputs with a stored scale for all."""
    return isinstance(activations, dict) and activations.get("num_bits") == 4 and activations.get("dynamic") is not True


def _whole(value: Any) -> int:
    return value if type(value) is int else 0


class Matcher:
    """Entries of one exclusion list, tried on names as vLLM tries them.

    compressed-tensors: exact names, and regular expressions behind "re:", matched from the start (vLLM,
    `should_ignore_layer`). ModelOpt (`ModelOptQuantConfigBase.is_layer_excluded`): exact names, parts of names, and
    wildcards, tried on the modules that vLLM has: experts are one, what it joins has one name, and is left out when
    all its parts are listed by their own. Others: parts.
    """

    def __init__(self, layout: str, entries: Iterable[str]) -> None:
        self.layout = layout
        self.unjudged: list[str] = []
        self.malformed: list[str] = []
        self._exact: set[str] = set()
        self._parts: list[str] = []
        self._patterns: list[tuple[str, re.Pattern[str]]] = []
        for entry in entries:
            self._take(layout, entry)

    def _take(self, layout: str, entry: str) -> None:
        if layout == "compressed-tensors" and entry.startswith("re:"):
            self._add_pattern(entry, entry[3:])
        elif layout != "compressed-tensors" and any(sign in entry for sign in "*?["):
            self._add_pattern(entry, fnmatch.translate(entry))
        else:
            self._exact.add(entry)
            if layout != "compressed-tensors":
                self._parts.append(entry)

    def _add_pattern(self, entry: str, text: str) -> None:
        try:
            compiled = _compiled(text) if entry.startswith("re:") else re.compile(text)
        except (re.error, RecursionError, OverflowError):
            self.malformed.append(entry)
            return
        if compiled is None:
            self.unjudged.append(entry)
        else:
            self._patterns.append((entry, compiled))

    def entry(self, name: str, joined: Sequence[str] = ()) -> str | None:
        """The first entry that leaves a module out, under any name that runtimes give it.

        joined: the modules that runtimes join with it, itself included.
        """
        if self.layout == "modelopt":
            return self._of_modelopt(name, joined)
        return next(filter(None, map(self._own, spellings(name))), None)

    def lists(self, name: str) -> bool:
        """True when it is listed by its own name."""
        return any(spelled in self._exact for spelled in spellings(name))

    def _of_modelopt(self, name: str, joined: Sequence[str]) -> str | None:
        module = vllm_module(name, joined)
        if module != name and len(joined) > 1 and all(map(self.lists, joined)):
            return name
        found = (self._own(spelled) for spelled in spellings(module))
        return next((entry for entry in (*found, self._of_experts(module)) if entry), _built_in(module))

    def _of_experts(self, module: str) -> str | None:
        """An entry for one expert, which leaves out all."""
        if "experts" not in module:
            return None
        return next((entry for entry in sorted(self._exact) if any(text in entry for text in spellings(module))), None)

    def _own(self, spelled: str) -> str | None:
        if spelled in self._exact:
            return spelled
        if found := next((part for part in self._parts if part in spelled), None):
            return found
        return next((entry for entry, expression in self._patterns if expression.match(spelled)), None)

    def idle(self, names: Iterable[str]) -> list[str]:
        """The entries that match none of these modules."""
        every = [spelled for name in names for spelled in spellings(name)]
        joined = "\n".join(every)
        exact = set(every)
        parts = set(self._parts)
        idle = [
            entry for entry in sorted(self._exact) if entry not in exact and not (entry in parts and entry in joined)
        ]
        return idle + [entry for entry, found in self._patterns if not any(map(found.match, every))]


def vllm_module(name: str, joined: Sequence[str] = ()) -> str:
    """The module of vLLM that holds a module of a checkpoint: all experts, or what it joins."""
    if experts := _OF_EXPERTS.match(name):
        return experts[1]
    parent, _, leaf = name.rpartition(".")
    leaves = {other.rpartition(".")[2] for other in joined}
    whole = next((whole for whole, parts in _JOINED.items() if leaf in parts and parts == leaves), leaf)
    return f"{parent}.{whole}" if parent else whole


def _built_in(module: str) -> str | None:
    return next((part for part in _TOWERS if part in module), None)


@lru_cache(4096)
def spellings(name: str) -> tuple[str, ...]:
    """The names that runtimes give to a module of a checkpoint."""
    other = name.replace("model.language_model.", "language_model.model.", 1)
    if other == name:
        other = name.replace("language_model.model.", "model.language_model.", 1)
    return (name,) if other == name else (name, other)


def _compiled(text: str) -> "re.Pattern[str] | None":
    """The expression, None for one that could take long: a stranger wrote it, and it is tried on every name."""
    unbounded = len(re.findall(r"(?<!\\)[*+]", text)) + text.count(",}")
    nested = re.search(r"[*+}][^()]*\)[*+{]", text)
    if len(text) > _LONGEST_PATTERN or unbounded > _MOST_UNBOUNDED or nested or re.search(r"\(\?[=!<P]|\\\d", text):
        re.compile(text) if len(text) <= _LONGEST_PATTERN else None
        return None
    return re.compile(text)
