"""Checks of what the config says of the format of codes against what is stored: bits, groups, types, targets."""

from collections.abc import Iterator, Mapping
from typing import Any

from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.counting import counted
from studio.core.findings.claims import Claim, Matcher, Scheme, claims_of
from studio.core.findings.finding import Observation
from studio.core.findings.folder import Folder
from studio.core.findings.forms import TORCH
from studio.core.findings.modules import Module
from studio.core.sources.declared import BESIDE

_PACKED, _MIXED = "nvfp4-pack-quantized", "mixed-precision"
_GROUP = 16
_INTEGERS = ("I8", "I32")
_MODES = {"nvfp4": (4, 16), "mxfp4": (4, 32), "mxfp8": (8, 32)}
"""Modes of MLX that have one number of bits and one group each."""
EIGHT_BITS = ("fp8", "int8")
"""Conventions of codes that `packing` finds under a claim of four bits."""
_ALGORITHMS = {
    **dict.fromkeys(("fp8", "mxfp8"), (8, "float")),
    **dict.fromkeys(("nvfp4", "w4a16_nvfp4", "mxfp4"), (4, "float")),
    **dict.fromkeys(("int4", "w4a16_awq"), (4, "int")),
    **dict.fromkeys(("int8", "w8a8"), (8, "int")),
}
"""What algorithms of ModelOpt store, by how their names begin."""

_CLASSES = ("linear", "linearbase", "fusedmoe", "moegate")
"""Targets that are classes of modules, in small letters."""


def described(folder: Folder) -> Iterator[Observation]:
    """Codes in another format than each section that is about their layout says."""
    for claim in claims_of(folder.sections):
        for module in folder.modules.values():
            own = _other(module, claim) if module.layout == claim.layout else ""
            if told := own or _other_of_groups(folder, module, claim):
                yield Observation("claims-other-format", module.name, f"{claim.place} says {told}")
        yield from _other_of_gptq(folder, claim)


def _other_of_groups(folder: Folder, module: Module, claim: Claim) -> str:
    """What all groups of compressed-tensors say of codes in another format than NVFP4, where none says the truth."""
    source = folder.recognized.sources.get(module.codes.tensor.name)
    if claim.layout != TORCH[0] or module.is_nvfp4 or (claim.bits == 4 and module.layout in EIGHT_BITS):
        return ""
    if source is None or module.scales is None or module.layout == "mlx":
        return ""
    kind = "int" if module.codes.tensor.dtype in _INTEGERS else "float"
    across = module.scales.tensor.shape[-1:] if len(module.scales.tensor.shape) == len(source.shape) else ()
    grouped = bool(across) and across[0] > 0 and module.scales.tensor.shape[:-1] == source.shape[:-1]
    stored = Scheme(source.bits, kind, source.shape[-1] // across[0] if grouped else 0)
    said = [_differing(scheme, stored) for scheme in claim.schemes]
    return "" if not said or "" in said else min(said, key=len)


def _differing(said: Scheme, stored: Scheme) -> str:
    """What a scheme says that is not so, "" where all of it may be."""
    told = [f"{said.bits} bits, it has {stored.bits}"] if said.bits not in (0, stored.bits) else []
    told += [f"{said.type}, it is {stored.type}"] if said.type not in ("", stored.type) else []
    if stored.group and said.group > 0 and said.group != stored.group:
        told.append(f"groups of {said.group}, its scales are for {stored.group}")
    return "; ".join(told)


def _other_of_gptq(folder: Folder, claim: Claim) -> Iterator[Observation]:
    """Bits and groups that none of the codes has; single modules may have others than the section says of all."""
    if claim.layout != "gptq":
        return
    codes = {name: x for name, x in folder.recognized.sources.items() if name.endswith(".qweight")}
    bits = {source.bits for source in codes.values()}
    if codes and claim.bits and claim.bits not in bits:
        evidence = f"{claim.place} says {claim.bits} bits, codes have {', '.join(map(str, sorted(bits)))}"
        yield Observation("claims-other-format", next(iter(codes)), evidence)
    groups = {name: (source.shape[-1], _groups(folder, name)) for name, source in codes.items()}
    fits = [-(-k // claim.group) == count for k, count in groups.values()] if claim.group else []
    if codes and claim.group and not (any(fits) if claim.varies else all(fits)):
        k, count = list(groups.values())[fits.index(False)]
        evidence = f"{claim.place} says groups of {claim.group}, {k:,} columns have {counted(count, 'scale')}"
        yield Observation("claims-other-format", next(iter(codes)), evidence)


def _groups(folder: Folder, codes: str) -> int:
    scales = folder.stored.get(f"{codes.rpartition('.')[0]}.scales")
    return scales.tensor.shape[0] if scales and scales.tensor.shape else 1


def _other(module: Module, claim: Claim) -> str:
    """What a section says that is not so; empty where it says nothing or the truth."""
    if claim.layout == "mlx":
        return _other_of_mlx(module, claim)
    if claim.layout not in TORCH or not module.is_nvfp4 or module.bits_of_block != 4 * _GROUP:
        return ""
    if claim.bits == 8 and claim.algorithm.startswith(("fp8", "mxfp8")):
        return f"{claim.algorithm.upper()}, it is NVFP4"
    if claim.group not in (0, _GROUP):
        return f"groups of {claim.group}, its scales are for {_GROUP}"
    said = list(map(_unlike, claim.schemes))
    return "" if not said or "" in said else min(said, key=len)


def _unlike(scheme: Scheme) -> str:
    """What a scheme says that NVFP4 is not."""
    told = []
    if scheme.bits not in (0, 4):
        told.append(f"{scheme.bits} bits, it has 4")
    if scheme.type not in ("", "float"):
        told.append(f"{scheme.type}, it is float")
    if scheme.group not in (0, _GROUP):
        told.append(f"groups of {scheme.group}, its scales are for {_GROUP}")
    if scheme.format not in ("", _PACKED, _MIXED):
        told.append(f"{scheme.format}, it is {_PACKED}")
    return "; ".join(told)


def _other_of_mlx(module: Module, claim: Claim) -> str:
    own = (claim.overrides or {}).get(module.name)
    said = own if isinstance(own, dict) else {"bits": claim.bits, "group_size": claim.group, "mode": claim.mode}
    bits, group, mode = said.get("bits"), said.get("group_size"), said.get("mode", "affine")
    if module.scales is None or type(bits) is not int or type(group) is not int:
        return ""
    told = f"{bits} bits in groups of {group}, {mode}"
    if module.bits_of_block and bits * group != module.bits_of_block:
        return f"{told}; a scale is for {module.bits_of_block} bits"
    if (mode == "affine") != (module.scales.tensor.dtype in WEIGHT_DTYPES):
        return f"{told}; its scales are {module.scales.tensor.dtype}"
    if mode in _MODES and (bits, group) != _MODES[mode]:
        return f"{told}, which has {_MODES[mode][0]} bits in groups of {_MODES[mode][1]}"
    return ""


def targets(folder: Folder) -> Iterator[Observation]:
    """Codes that no target of compressed-tensors names; heads are told by `readers.heads`."""
    for claim in claims_of(folder.sections):
        if claim.layout != TORCH[0] or any(text.lower() in _CLASSES for text in claim.targets):
            continue
        matcher = Matcher(claim.layout, claim.targets)
        for name, module in folder.modules.items():
            layer = folder.by_name.get(name)
            if module.layout != claim.layout or (layer and layer.role in ("head", "embedding")):
                continue
            if matcher.entry(name) is None and not matcher.unjudged:
                named = ", ".join(claim.targets[:3]) or "none"
                yield Observation("not-targeted", name, f"targets of {claim.place} are {named}")


def agreeing(folder: Folder) -> Iterator[Observation]:
    """Two sections about the same that say different things: readers take the one or the other."""
    mlx = [folder.config.get(key) for key in ("quantization", "quantization_config")]
    if all(isinstance(one, dict) and "quant_method" not in one for one in mlx) and _of_mlx(mlx[0]) != _of_mlx(mlx[1]):
        evidence = f"quantization says {_of_mlx(mlx[0])}, quantization_config {_of_mlx(mlx[1])}"
        yield Observation("sections-disagree", "quantization_config", evidence)
    for claim in claims_of(folder.sections):
        yield from _of_algorithms(claim)
    told = {claim.place: claim.algorithm for claim in claims_of(folder.sections) if claim.algorithm}
    if BESIDE in told and len(set(told.values())) > 1:
        place, algorithm = next(item for item in told.items() if item[0] != BESIDE)
        evidence = f"it says {told[BESIDE].upper()}, {place} {algorithm.upper()}"
        yield Observation("sections-disagree", BESIDE, evidence)


def _of_algorithms(claim: Claim) -> Iterator[Observation]:
    """Groups of a section of ModelOpt that say other bits, or another type, than its algorithm has."""
    bits, kind = next((form for start, form in _ALGORITHMS.items() if claim.algorithm.startswith(start)), (0, ""))
    for scheme in claim.schemes if bits else ():
        if scheme.bits not in (0, bits) or scheme.type not in ("", kind):
            evidence = f"{claim.algorithm.upper()}, and a group of {scheme.bits} bits, {scheme.type}"
            yield Observation("sections-disagree", claim.place, evidence)
            return


def _of_mlx(section: Mapping[str, Any] | None) -> str:
    found = section or {}
    return f"{found.get('bits')} bits in groups of {found.get('group_size')}, {found.get('mode', 'affine')}"
