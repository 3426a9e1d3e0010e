"""Knowledge of architectures as data: roles, fused sets, stacks of experts, and what loaders do to names."""

from studio.core.architectures.config import (
    block_count,
    family_of,
    hidden_size,
    is_known,
    joins_single_experts,
    sections,
    text_section,
)
from studio.core.architectures.family import MATRIX_ROLES, ROLES, Family, Role, renamed
from studio.core.architectures.naming import base_name, block_index, fused_group, role

__all__ = [
    "MATRIX_ROLES",
    "ROLES",
    "Family",
    "Role",
    "base_name",
    "block_count",
    "block_index",
    "family_of",
    "fused_group",
    "hidden_size",
    "is_known",
    "joins_single_experts",
    "renamed",
    "role",
    "sections",
    "text_section",
]
