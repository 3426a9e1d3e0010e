"""Checks of which weights are packed, by headers, against what the config says of that."""

from collections.abc import Iterator, Mapping, Sequence

from studio.core.containers.dtypes import WEIGHT_DTYPES
from studio.core.counting import counted
from studio.core.findings.claims import Claim, Matcher, claims_of
from studio.core.findings.finding import Observation
from studio.core.findings.folder import Folder
from studio.core.model import Layer

_TORCH = ("compressed-tensors", "modelopt")
_MIXED = "mixed_precision"
"""Of ModelOpt, which says of each module how it is stored: what it does not name is plain."""

_LARGEST_TABLE = 1 << 14
_LINEAR = ("linear", "expert", "head")


def claimed(folder: Folder) -> Iterator[Observation]:
    """Sections of a quantization against the tensors: leftovers, other bits, exclusion lists."""
    if folder.sections and not folder.packed:
        for section in folder.sections if not _holds_unknown(folder) else ():
            yield Observation("section-leftover", section.place, section.method)
        return
    for claim in claims_of(folder.sections):
        if claim.layout not in _TORCH:
            yield from _idle(folder, claim)
            continue
        yield from _other_bits(folder, claim)
        if claim.excluded is not None:
            yield from _exclusions(folder, claim, Matcher(claim.layout, claim.excluded))


def _holds_unknown(folder: Folder) -> bool:
    """True for many numbers in a dtype that weights do not have: codes of a package that is not known, as HQQ's W_q."""
    tensors = (stored.tensor for stored in folder.stored.values())
    return any(tensor.dtype not in WEIGHT_DTYPES and tensor.nbytes > _LARGEST_TABLE for tensor in tensors)


def _other_bits(folder: Folder, claim: Claim) -> Iterator[Observation]:
    for module in folder.modules.values():
        if claim.bits == 4 and module.layout in ("fp8", "int8"):
            evidence = f"{claim.place} says 4 bits, it is {module.codes.tensor.dtype}"
            yield Observation("claims-other-bits", module.name, evidence)


def _idle(folder: Folder, claim: Claim) -> Iterator[Observation]:
    """A list of another layout of which no entry, or part of one, is in a name."""
    matcher = Matcher(claim.layout, claim.excluded or ())
    names = [name for layer in folder.layers for name in _names(layer)]
    if names and claim.excluded and len(matcher.idle([*names, "lm_head"])) == len(set(claim.excluded)):
        yield Observation(
            "exclusions-idle", f"{claim.place}.{claim.key}", counted(len(claim.excluded), "entry", "entries")
        )


def _exclusions(folder: Folder, claim: Claim, matcher: Matcher) -> Iterator[Observation]:
    for entry in matcher.malformed:
        yield Observation("exclusion-malformed", entry, f"in {claim.place}.{claim.key}")
    for entry in matcher.unjudged:
        yield Observation("exclusion-unjudged", entry, f"in {claim.place}.{claim.key}")
    names = [name for layer in folder.layers for name in _names(layer)]
    idle = matcher.idle([*names, "lm_head"])
    if claim.excluded and len(idle) == len(set(claim.excluded)):
        yield Observation("exclusions-idle", f"{claim.place}.{claim.key}", f"{len(claim.excluded):,} entries")
    else:
        for entry in idle:
            yield Observation("exclusion-idle", entry, f"in {claim.place}.{claim.key}")
    joined = folder.joined
    for name in folder.modules:
        if found := matcher.entry(name, joined.get(name, ())) or (name if matcher.lists(name) else None):
            yield Observation("excluded-packed", name, f"by {found!r}")
    if matcher.malformed or matcher.unjudged or claim.algorithm == _MIXED:
        return
    for layer in folder.layers:
        if is_plain_linear(layer, folder) and not is_excluded(layer, matcher, joined):
            yield Observation("not-excluded", layer.name, f"{claim.place}.{claim.key} has no entry for it")


def is_excluded(layer: Layer, matcher: Matcher, joined: Mapping[str, Sequence[str]]) -> bool:
    """True when a list leaves a layer out; `joined` as in `Folder`."""
    return any(matcher.entry(name, joined.get(layer.name, ())) for name in _names(layer))


def is_plain_linear(layer: Layer, folder: Folder) -> bool:
    """True for a plain matrix that readers would take for packed, unless a list leaves it out."""
    plain = layer.tensor.dtype in WEIGHT_DTYPES and layer.name not in folder.packed
    return plain and layer.role in _LINEAR and len(layer.shape) > 1


def _names(layer: Layer) -> list[str]:
    """The modules of a layer as exclusion lists call them; for experts also the module that holds them all."""
    stacks = [f"{matrix.stack}.experts" for matrix in layer.matrices if matrix.stack]
    return list(dict.fromkeys([layer.name, *(matrix.name for matrix in layer.matrices), *stacks]))
