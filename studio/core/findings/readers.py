"""Checks of what single runtimes want of a folder: heads, fused groups, inputs, the rules of MLX."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from studio.core.architectures import base_name, sections
from studio.core.architectures.family import pattern
from studio.core.findings.claims import Claim, Matcher, claims_of
from studio.core.findings.finding import Observation
from studio.core.findings.folder import CONFIG, Folder
from studio.core.model import Layer, Source
from studio.core.names import is_plain_name
from studio.core.sources.fp8 import ScaledFp8
from studio.core.sources.plain import Plain

_TORCH = ("compressed-tensors", "modelopt")
_TOLD_ELSEWHERE = ("._data", "_qdata", ".W_q")
"""Codes of quanto, torchao and HQQ."""

_GENERATORS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def heads(folder: Folder) -> Iterator[Observation]:
    """Heads and embeddings that are packed where a runtime takes none, or that are missing."""
    layouts = {module.layout for module in folder.modules.values()}
    tied = said(folder, "tie_word_embeddings")
    for layer in folder.layers:
        if layer.name not in folder.packed:
            continue
        if layer.role == "embedding" and layouts & set(_TORCH):
            yield Observation("embedding-packed", layer.name)
        if layer.role == "head" and tied is True:
            yield Observation("head-tied-packed", layer.name, "tie_word_embeddings is true")
        elif layer.role == "head":
            yield from _untargeted(folder, layer)
    roles = {layer.role for layer in folder.layers}
    if generates(folder) and tied is False and "embedding" in roles and "head" not in roles and not folder.missing:
        yield Observation("head-missing", CONFIG, "tie_word_embeddings is false")


def generates(folder: Folder) -> bool:
    """True where config.json names a model that writes text."""
    kinds = folder.config.get("architectures")
    return isinstance(kinds, list) and any(str(kind).endswith(_GENERATORS) for kind in kinds)


def _untargeted(folder: Folder, head: Layer) -> Iterator[Observation]:
    for claim in claims_of(folder.sections):
        if claim.layout == "compressed-tensors" and Matcher(claim.layout, claim.targets).entry(head.name) is None:
            yield Observation("head-untargeted", head.name, f"targets are {', '.join(claim.targets) or 'none'}")


def said(folder: Folder, key: str) -> Any:
    """What config.json says of the language model under a key, None where it says nothing."""
    found = (section.get(key) for section in reversed(sections(folder.config)))
    return next((value for value in found if value is not None), None)


def groups(folder: Folder) -> Iterator[Observation]:
    """Fused groups of which only some matrices are packed, or not all in the same form."""
    if not any(module.layout in _TORCH for module in folder.modules.values()):
        return
    members: dict[str, list[str]] = defaultdict(list)
    for layer in folder.layers:
        if layer.group:
            members[layer.group].append(layer.name)
    for names in members.values():
        packed = [name for name in names if name in folder.packed]
        if packed and len(packed) < len(names):
            plain = next(name for name in names if name not in folder.packed)
            yield Observation("fused-partly", plain, f"{packed[0]} is packed")
        forms = {form: name for name in packed if (form := _form(folder, name))}
        if len(forms) > 1:
            told = " and ".join(f"{name} is in {form}" for form, name in forms.items())
            yield Observation("fused-partly", next(iter(forms.values())), told)


def _form(folder: Folder, name: str) -> str:
    """In which bits and dtype a layer is stored; "" where it can not be read."""
    source = folder.by_name[name].source
    known = source.stored.tensor.name in folder.recognized.sources
    return f"{source.bits} bits ({source.stored.tensor.dtype})" if known else ""


def undeclared(folder: Folder) -> Iterator[Observation]:
    """Codes whose convention no document names, or names otherwise."""
    layouts = {module.layout for module in folder.modules.values() if module.layout in (*_TORCH, "mlx")}
    claimed = claims_of(folder.sections)
    if not folder.config or not folder.path.is_dir() or folder.is_gguf:
        return
    if not layouts:
        yield from _unnamed(folder)
        return
    if not claimed:
        yield Observation("section-missing", CONFIG, f"tensors are those of {', '.join(sorted(layouts))}")
    for claim in claimed:
        if claim.layout in (*_TORCH, "mlx") and claim.layout not in layouts:
            evidence = f"it is a section of {claim.layout}, tensors are those of {', '.join(sorted(layouts))}"
            yield Observation("section-contradicts", claim.place, evidence)


def _unnamed(folder: Folder) -> Iterator[Observation]:
    """Codes of other layouts of which no document says a word; some packages tell it in files of their own."""
    found = folder.recognized
    codes = {name: source.meaning for name, source in found.sources.items() if _has_scales(source)} | dict(found.unread)
    told = next((f"{name}: {what}" for name, what in codes.items() if not name.endswith(_TOLD_ELSEWHERE)), "")
    if told and not folder.sections:
        yield Observation("section-missing", CONFIG, told)


def _has_scales(source: Source) -> bool:
    """False for plain weights, and for FP8 that was merely cast."""
    return source.scales is not None if isinstance(source, ScaledFp8) else not isinstance(source, Plain)


def mlx(folder: Folder) -> Iterator[Observation]:
    """What mlx-lm wants of its own layout."""
    if not any(module.layout == "mlx" for module in folder.modules.values()):
        return
    model_file = folder.config.get("model_file")
    if isinstance(model_file, str) and is_plain_name(model_file) and not (folder.place / model_file).is_file():
        yield Observation("mlx-model-file", model_file)
    names = folder.family.mlx
    if names.refused:
        yield Observation("mlx-refused", CONFIG, names.refused)
    for module in folder.modules.values():
        stacked = len(module.codes.tensor.shape) > 2
        if module.layout == "mlx" and module.third and not stacked and not model_file:
            yield Observation("mlx-tensor-scale", module.name, "config.json names no model_file")
        if module.layout == "mlx" and names.keep and pattern(names.keep).search(module.name):
            yield Observation("mlx-must-be-plain", module.name)
    for claim in claims_of(folder.sections):
        yield from _overrides(folder, claim)


def _overrides(folder: Folder, claim: Claim) -> Iterator[Observation]:
    for path, setting in (claim.overrides or {}).items():
        packed = path in folder.modules
        if setting is False and packed:
            yield Observation("mlx-override", path, "the config says false, it is packed", told="packed")
        elif isinstance(setting, dict) and not packed and base_name(path) in folder.by_name:
            yield Observation("mlx-override", path, "the config says how it is packed, it is plain", told="plain")
