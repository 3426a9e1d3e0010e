"""What a tensor is for, read from its name and shape: its role, its block, its expert, its fused group."""

import re
from collections.abc import Sequence
from typing import Literal, get_args

Role = Literal["linear", "expert", "embedding", "head", "router", "norm", "other"]
ROLES: tuple[Role, ...] = get_args(Role)

_BLOCK = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d{1,9})\.")
EXPERT = re.compile(r"^(?P<stack>.+)\.experts\.(?P<expert>\d{1,9})\.(?P<projection>[^.]+)$")
STACKED = re.compile(r"^(?P<stack>.+)\.experts\.(?P<projection>gate_up_proj|gate_proj|up_proj|down_proj)$")

_EMBEDDING = re.compile(r"(^|[._])(embed_tokens|embed_in|embeddings?|tok_embeddings|wte|wpe|word_embeddings)([._]|$)")
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output_layer|output|score|classifier|proj_out)$")
_ROUTER = re.compile(r"(^|\.)(gate|router|gate_wg|wg|shared_expert_gate|ffn_gate_inp)$|(^|\.)router\.")
_NORM = re.compile(r"norm|(^|[._])ln(_|\d|\.|$)")

FUSED: tuple[tuple[str, ...], ...] = (
    ("q_proj", "k_proj", "v_proj"),
    ("gate_proj", "up_proj"),
    ("w1", "w3"),
    ("q_a_proj", "kv_a_proj_with_mqa"),
)
"""Projections that runtimes join into one matrix, which must therefore share one tensor scale."""


def base_name(tensor: str) -> str:
    """The name of the module that owns the tensor: without `.weight`."""
    return tensor.removesuffix(".weight")


def role(tensor: str, shape: Sequence[int]) -> Role:
    """The role of a stored tensor."""
    name = base_name(tensor)
    if len(shape) < 2:
        return "norm" if _NORM.search(name) else "other"
    if _HEAD.search(name):
        return "head"
    if _EMBEDDING.search(name):
        return "embedding"
    if _ROUTER.search(name):
        return "router"
    if _NORM.search(name):
        return "norm"
    if EXPERT.match(name) or STACKED.match(name):
        return "expert"
    return "linear" if len(shape) == 2 and tensor.endswith(".weight") else "other"


def block_index(tensor: str) -> int | None:
    """The index of the transformer block that the tensor belongs to, or None."""
    found = _BLOCK.search(tensor)
    return int(found[1]) if found else None


def fused_group(matrix: str) -> str | None:
    """A key that matrices of one fused group have in common, or None for a matrix that stands alone."""
    parent, _, leaf = matrix.rpartition(".")
    members = next((members for members in FUSED if leaf in members), None)
    return f"{parent}.{'+'.join(members)}" if members else None
