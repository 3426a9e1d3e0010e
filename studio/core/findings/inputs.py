"""Checks of input scales: what a config with quantized inputs asks for, and numbers that can not be meant."""

from collections import defaultdict
from collections.abc import Iterator

from kernels.formats import TENSOR_SCALE_DIVISOR
from studio.core.findings.claims import claims_of
from studio.core.findings.finding import Observation
from studio.core.findings.folder import Folder
from studio.core.findings.forms import TORCH
from studio.core.findings.modules import Module
from studio.core.findings.scales import numbers_of, unusable
from studio.core.sources.in_format import multiplier_of

_LEAST, _MOST = 1e-4, 2e5
"""Largest inputs of layers: those of trained models are 0.1 to some thousands, of a few layers to 60,000."""

_ALIKE = 1.01

_FP8, _LARGEST_FP8 = "fp8", 448.0
"""The convention, and the algorithm of ModelOpt, whose inputs have stored scales; the largest number of E4M3."""


def inputs(folder: Folder) -> Iterator[Observation]:
    """Input scales that are missing, or that no document asks for."""
    claimed = claims_of(folder.sections)
    asking = {claim.layout for claim in claimed if claim.layout in TORCH and claim.activations}
    rounded = any(claim.algorithm == _FP8 or claim.rounds for claim in claimed)
    mine = [module for module in folder.modules.values() if module.layout in asking and module.is_nvfp4]
    mine += [module for module in folder.modules.values() if rounded and module.layout == _FP8 and module.scales]
    bare = [module.name for module in mine if module.inputs is None]
    experts = {layer.name for layer in folder.layers if layer.role == "expert"}
    some = any(module.inputs is not None for module in mine)
    for name in bare:
        kind = "experts-unrouted" if some and name in experts else "inputs-missing"
        yield Observation(kind, name, f"{len(bare):,} of {len(mine):,} matrices have no input scale")
    silent = {claim.layout for claim in claimed if claim.layout == TORCH[0]} - asking
    for name, module in folder.modules.items():
        if module.is_nvfp4 and module.inputs is not None and module.layout in silent:
            yield Observation("inputs-undeclared", name, f"{module.inputs.tensor.name} is stored")


def usable(folder: Folder) -> Iterator[Observation]:
    """Input scales that are no positive numbers, that are far from what inputs are, or differ among what is joined."""
    joined: dict[tuple[str, ...], list[tuple[Module, float]]] = defaultdict(list)
    for name, module in folder.modules.items():
        if module.inputs is None:
            continue
        bad = list(unusable("inputs-unusable", module.inputs))
        yield from bad
        if not bad and module.layout == _FP8 and module.inputs.tensor.dtype == "F32":
            yield from _far(module, float(numbers_of(module.inputs).max()) * _LARGEST_FP8)
        if bad or not module.is_nvfp4 or module.layout not in TORCH:
            continue
        scale = multiplier_of(float(numbers_of(module.inputs).max()), module.meaning)
        yield from _far(module, scale * TENSOR_SCALE_DIVISOR)
        if len(names := folder.joined.get(name, ())) > 1:
            joined[names].append((module, scale))
    for members in joined.values():
        values = [scale for _, scale in members]
        if max(values) > _ALIKE * min(values):
            evidence = f"for inputs up to {_largest(min(values))} to {_largest(max(values))}"
            yield Observation("fused-inputs", members[0][0].name, evidence)


def _largest(scale: float) -> str:
    return f"{scale * TENSOR_SCALE_DIVISOR:.3g}"


def _far(module: Module, largest: float) -> Iterator[Observation]:
    if module.inputs and not _LEAST < largest < _MOST:
        other = TENSOR_SCALE_DIVISOR**2 / largest if module.is_nvfp4 else 0.0
        meant = f"; taken the other way round, up to {other:.3g}" if _LEAST < other < _MOST else ""
        told = "reciprocal" if meant else ""
        evidence = f"for inputs up to {largest:.3g}{meant}"
        yield Observation("inputs-implausible", module.inputs.tensor.name, evidence, told=told)
