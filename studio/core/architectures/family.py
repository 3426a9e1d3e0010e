"""Family: what is known of a group of architectures, as data. A row says only what the generic one has wrong."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

Role = Literal[
    "linear",
    "expert",
    "embedding",
    "head",
    "router",
    "gate",
    "norm",
    "vision",
    "audio",
    "projector",
    "draft",
    "other",
]
ROLES: tuple[Role, ...] = get_args(Role)

MATRIX_ROLES: tuple[Role, ...] = tuple(role for role in ROLES if role not in ("norm", "other"))
"""Roles whose tensors of two and more dimensions belong to modules with weights."""

Rename = tuple[str, str]
"""A regular expression and what its match is replaced by."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The experts of a block in one tensor, or in one per projection.

    pattern: regular expression on the name without `.weight`; group `stack` is the module that holds the experts, group
    `projection` the name of a single projection. parts: the projections joined along the outputs, empty for one alone.
    interleaved: their outputs alternate instead of following each other. input_first: [experts, in, out], True or
    False where it is known, None where the shapes tell; square: what it is where they do not. experts: the key of
    config.json (dotted) with the number of experts of a 2-D tensor [experts x rows, columns].
    """

    pattern: str
    parts: tuple[str, ...] = ()
    interleaved: bool = False
    input_first: bool | None = None
    square: bool | None = None
    experts: str = ""


@dataclass(frozen=True, slots=True)
class MlxNames:
    """How mlx-lm names and loads a family. Source: the `sanitize` of its models, version 0.32.2.

    stored: renames of tensors (names without `.weight`) that its loader does for plain weights alone. module: renames
    that it does for all, which the keys of overrides must follow. stack: the name of a stack of experts from {stack}
    and {projection}, "" where every expert is a module of its own. projections: names inside a stack. bias: (regular
    expression of the joined biases of a stack, projections in it). keep: modules that it takes apart, which must stay
    plain. two_tiers: modules that it joins, and that therefore can not have a tensor scale each. plus_one: norms to
    which it adds 1, but not beside stacked experts. moved: convolutions [c, 1, k] that it turns to [c, k, 1], but not
    then. refused: why packed weights can not run there at all.
    """

    stored: tuple[Rename, ...] = ()
    module: tuple[Rename, ...] = ()
    stack: str = "{stack}.switch_mlp.{projection}"
    projections: tuple[tuple[str, str], ...] = (("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj"))
    bias: tuple[tuple[str, tuple[str, ...]], ...] = ()
    keep: str = ""
    two_tiers: str = ""
    plus_one: str = ""
    moved: str = ""
    refused: str = ""


@dataclass(frozen=True, slots=True)
class TorchNames:
    """How transformers or vLLM loads a family. Source: measured with transformers 5.23.0 and vLLM 0.25.1.

    kept: modules (regular expression) that it can not take packed, and `why`. module: renames of modules that stay
    plain, where it changes the ends of names. split: it wants experts one by one, those that are kept too. refused: why
    it can load no packed weight of this family. dequantized: it loads them only when told to decode them at once.
    """

    kept: str = ""
    why: str = ""
    module: tuple[Rename, ...] = ()
    split: bool = False
    refused: str = ""
    dequantized: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """A row of the table.

    model_types: of config.json, its text section included. architectures: regular expression on its architectures that
    takes precedence. only_without: a key of the text section that is absent or 0 there. part: the role of everything,
    for a checkpoint that is no language model. roles: (role, regular expression on the name without `.weight`), tried
    before the generic ones. fused: sets of ends of names that runtimes join into one matrix, tried before the generic
    ones; a set of one is joined with nothing. experts: regular expression of the name of a single expert's matrix, with
    groups stack, expert and projection. input_first: regular expression of modules whose weights are stored [in, out].
    """

    name: str
    model_types: frozenset[str]
    architectures: str = ""
    only_without: str = ""
    part: Role | None = None
    roles: tuple[tuple[Role, str], ...] = ()
    fused: tuple[tuple[str, ...], ...] = ()
    stacks: tuple[Stack, ...] = ()
    experts: str = ""
    input_first: str = ""
    mlx: MlxNames = MlxNames()
    transformers: TorchNames = TorchNames()
    vllm: TorchNames = TorchNames()


def below(words: str) -> str:
    """A regular expression for the names of modules called by one of `words`, and of all that lies in them."""
    return rf"(?:^|\.)(?:{'|'.join(words.split())})(?:\.|$)"


def named(words: str) -> str:
    """A regular expression for the names of modules called by one of `words`."""
    return rf"(?:^|\.)(?:{'|'.join(words.split())})$"


@lru_cache(maxsize=4096)
def pattern(text: str) -> "re.Pattern[str]":
    """A regular expression of the table, compiled once."""
    return re.compile(text)


def renamed(name: str, renames: tuple[Rename, ...]) -> str:
    """`name` after all renames, in their order."""
    for old, new in renames:
        name = pattern(old).sub(new, name)
    return name
