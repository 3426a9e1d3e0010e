"""What a tensor is for, read from its name, its shape and the row of its architecture."""

from collections.abc import Sequence

from studio.core.architectures import generic
from studio.core.architectures.family import Family, Role, Stack, pattern


def base_name(tensor: str) -> str:
    """The name of the module that owns the tensor: without `.weight`."""
    return tensor.removesuffix(".weight")


def role(tensor: str, shape: Sequence[int], family: Family = generic.GENERIC, blocks: int = 0) -> Role:
    """The role of a stored tensor; `blocks` is the number of blocks that config.json states, 0 when it does not.

    A block beyond that number is a draft (multi-token prediction) stored as one more block.
    """
    name = base_name(tensor)
    found = _named_role(name, family)
    if found not in ("vision", "audio", "projector", "other") and _is_beyond(name, blocks):
        return "draft"
    if len(shape) < 2:
        if found in (*generic.PARTS, "norm"):
            return found or "other"
        return "norm" if pattern(generic.NORM_PART).search(name) else "other"
    if found == "head" and block_index(tensor) is not None:
        found = None
    if found is not None:
        return found
    if expert_of(name, family) or stack_of(name, shape, family):
        return "expert"
    return "linear" if len(shape) == 2 and tensor.endswith(".weight") else "other"


def _named_role(name: str, family: Family) -> Role | None:
    for kind, text in (*family.roles, *generic.ROLE_PATTERNS):
        if pattern(text).search(name):
            return kind
    return None


def part_of(name: str, family: Family) -> str:
    """The component of a name that makes it one of a part of the model (`visual`, `mtp`), "" when none does."""
    for kind, text in (*family.roles, *generic.ROLE_PATTERNS):
        if kind in generic.PARTS and (found := pattern(text).search(name)):
            return found[0].strip(".")
    return ""


def _is_beyond(name: str, blocks: int) -> bool:
    found = pattern(generic.DECODER_BLOCK).search(name) if blocks else None
    return found is not None and int(found[1]) >= blocks


def block_index(tensor: str) -> int | None:
    """The index of the transformer block that the tensor belongs to, or None."""
    found = pattern(generic.BLOCK).search(tensor)
    return int(found[1]) if found else None


def expert_of(name: str, family: Family) -> tuple[str, int, str] | None:
    """(module that holds the experts, index, projection) of the matrix of a single expert, or None."""
    for text in filter(None, (family.experts, generic.EXPERT)):
        if found := pattern(text).search(name):
            return found["stack"], int(found["expert"]), found["projection"]
    return None


def stack_of(name: str, shape: Sequence[int], family: Family) -> tuple[Stack, str, tuple[str, ...]] | None:
    """(row, module that holds the experts, projections joined in it) of a tensor with many experts, or None."""
    for row in (*family.stacks, *generic.STACKS):
        if len(shape) != (2 if row.experts else 3):
            continue
        if found := pattern(row.pattern).search(name):
            return row, found["stack"], row.parts or (found["projection"],)
    return None


def fused_leaves(name: str, family: Family) -> tuple[str, ...]:
    """The leaf names of all that runtimes join with this matrix, itself included; empty for one that stands alone."""
    leaf = name.rpartition(".")[2]
    return next((members for members in (*family.fused, *generic.FUSED) if leaf in members), ())


def fused_group(name: str, family: Family = generic.GENERIC) -> str:
    """A key that matrices of one fused group have in common, "" for a matrix that stands alone."""
    members = fused_leaves(name, family)
    return f"{name.rpartition('.')[0]}.{'+'.join(members)}" if members else ""
