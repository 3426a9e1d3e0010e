"""What a tensor is for, read from its name, its shape and the row of its architecture."""

import re
from collections.abc import Sequence
from functools import lru_cache
from sys import intern

from studio.core.architectures import generic
from studio.core.architectures.family import Family, Role, Stack, pattern

_INDEX = re.compile(r"(?<![^.])\d+(?![^.])")


def base_name(tensor: str) -> str:
    """The name of the module that owns the tensor: without `.weight`."""
    return tensor.removesuffix(".weight")


def role(tensor: str, shape: Sequence[int], family: Family = generic.GENERIC, blocks: int = 0) -> Role:
    """The role of a stored tensor; `blocks` is the number of blocks that config.json states, 0 when it does not.

    A block beyond that number is a draft (multi-token prediction) stored as one more block.
    """
    if family.part:
        return family.part
    name = base_name(tensor)
    found = _named_role(_INDEX.sub("0", name), family)
    if found not in ("vision", "audio", "projector", "other") and _is_beyond(name, blocks):
        return "draft"
    if len(shape) < 2:
        if found in (*generic.PARTS, "norm"):
            return found or "other"
        return "norm" if pattern(generic.NORM_PART).search(name) else "other"
    if found is not None:
        return found
    if stack_of(name, shape, family):
        return "expert"
    return "linear" if len(shape) == 2 and tensor.endswith(".weight") else "other"


@lru_cache(maxsize=1 << 14)
def _named_role(name: str, family: Family) -> Role | None:
    """Cached: the names of a model differ in little but their numbers, which `role` has taken out."""
    in_block = block_index(name) is not None
    for kind, expression in _patterns(family):
        if not (in_block and kind == "head") and expression.search(name):
            return kind
    return None


@lru_cache(maxsize=64)
def _patterns(family: Family) -> tuple[tuple[Role, "re.Pattern[str]"], ...]:
    """In their order: adapters, whole parts of the model, then kinds of layers; the row of the family first in each."""
    experts: tuple[tuple[Role, str], ...] = (("expert", family.experts),) if family.experts else ()
    rows = (*family.roles, *experts, *generic.ROLE_PATTERNS)
    ordered = sorted(rows, key=lambda row: row[0] not in generic.PARTS)
    return tuple((kind, pattern(text)) for kind, text in (("other", generic.KEPT), *ordered))


def part_of(name: str, family: Family) -> str:
    """The component of a name that makes it one of a part of the model (`visual`, `mtp`), "" when none does."""
    for kind, expression in _patterns(family):
        if kind in generic.PARTS and (found := expression.search(name)):
            return found[0].strip(".")
    return ""


def _is_beyond(name: str, blocks: int) -> bool:
    found = pattern(generic.DECODER_BLOCK).search(name) if blocks else None
    return found is not None and int(found[1]) >= blocks


def block_index(tensor: str) -> int | None:
    """The index of the transformer block that the tensor belongs to, or None."""
    found = pattern(generic.BLOCK).search(tensor)
    return int(found[1]) if found else None


def expert_index(name: str) -> int | None:
    """The number of the expert that the layer of this name belongs to, or None; quick, for all layers of a mixture."""
    number, _, projection = name.rpartition(".experts.")[2].partition(".")
    is_index = number.isdecimal() and len(number) < 10
    return int(number) if projection and is_index and ".experts." in name else None


def expert_of(name: str, family: Family) -> tuple[str, int, str] | None:
    """(module that holds the experts, index, projection) of the matrix of a single expert, or None."""
    found = pattern(family.experts).search(name) if family.experts else None
    if found is None and ".experts." in name:
        found = pattern(generic.EXPERT).search(name)
    return (intern(found["stack"]), int(found["expert"]), intern(found["projection"])) if found else None


def stack_of(name: str, shape: Sequence[int], family: Family) -> tuple[Stack, str, tuple[str, ...]] | None:
    """(row, module that holds the experts, projections joined in it) of a tensor with many experts, or None."""
    for row in _stacks(family, len(shape)):
        if found := pattern(row.pattern).search(name):
            return row, found["stack"], row.parts or (found["projection"],)
    return None


@lru_cache(maxsize=256)
def _stacks(family: Family, dimensions: int) -> tuple[Stack, ...]:
    """The rows of stacks that are tensors with so many dimensions."""
    return tuple(row for row in (*family.stacks, *generic.STACKS) if dimensions == (2 if row.experts else 3))


def fused_leaves(name: str, family: Family) -> tuple[str, ...]:
    """The leaf names of all that runtimes join with this matrix, itself included; empty for one that stands alone."""
    return tuple(member.rpartition(".")[2] for member in _fused(name, family)[1])


def fused_group(name: str, family: Family = generic.GENERIC) -> str:
    """A key that matrices of one fused group have in common, "" for a matrix that stands alone."""
    parent, members = _fused(name, family)
    return intern(f"{parent}.{'+'.join(members)}") if members else ""


def _fused(name: str, family: Family) -> tuple[str, tuple[str, ...]]:
    """(what comes before the ends of the names of all that is joined, those ends)."""
    sets = _fused_sets(family)
    for wrapper in ("", *generic.WRAPPERS):
        if not name.endswith(wrapper):
            continue
        above, _, leaf = name.removesuffix(wrapper).rpartition(".")
        parent, _, module = above.rpartition(".")
        for before, end in ((parent, f"{module}.{leaf}"), (above, leaf)):
            if end in sets:
                return before, sets[end] if len(sets[end]) > 1 else ()
    return "", ()


@lru_cache(maxsize=64)
def _fused_sets(family: Family) -> dict[str, tuple[str, ...]]:
    """The set of each end of a name; the first row that has it counts."""
    return {end: members for members in reversed((*family.fused, *generic.FUSED)) for end in members}
