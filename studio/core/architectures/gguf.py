"""What llama.cpp's converter makes of an architecture: a row of its names, its keys, and the values that it changes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from studio.core.architectures.gguf_names import BLOCKS, FIELDS, OUTSIDE, RMS

WITHOUT_HEADS = ("state space", "state space 2")
"""Shapes of architectures without attention."""


@dataclass(frozen=True, slots=True)
class GgufArchitecture:
    """A row of the table.

    name: `general.architecture`. model_type, architecture: those of config.json. experts: True for the form of the
    architecture that has experts, which is a row of its own. block: modules in a block, llama.cpp's name -> that of
    transformers; "{}" stands for the number of an expert, whose matrices llama.cpp stacks; a name with its leaf
    stands for that tensor alone. joined: a tensor of transformers that holds stacks of experts as a whole -> the
    tensors of llama.cpp that it is made of, in their order; turned: as [experts, inputs, outputs]; alternating:
    biases of two of them lie in turns. rejoined: a tensor that llama.cpp has in parts, not of experts -> those, put
    together as the word says. outside: as OUTSIDE. orders: modules whose rows llama.cpp has in another order -> which;
    across: those whose columns are. reshaped: tensors that it stores in another shape -> which it was. logs: tensors of
    which it stores minus the exponential. plus_one: norms are stored with 1 added, but for those of unchanged.
    layer_norm: the key of config.json of the epsilon of norms that take the mean away, too; "" for those that do
    not. fields: key of config.json -> key after the architecture's name, a number above 0; optional: those that may
    be missing; counts, flags: whole numbers and switches, 0 and False where they are missing; present: switches
    that are on where a block has a tensor. implied: what the architecture means without saying it; yarn: what it
    means of a context that is stretched so; yarn_fields: numbers that it says of that. ignored: keys that `implied`
    says as well, or that nobody needs. windows: the config says of each block whether it sees a window only.
    divided: number of blocks of the one size whose queries are divided by the square root of width / heads, while all
    others are by that of the width of a head; 0 where config.json has no such key. partial: a part of each head may be
    rotated alone. lengths: long texts may be rotated otherwise than short ones. again: keys that older readers know ->
    those that say the same. biases: keys of config.json -> modules that all have a bias, or none. never: keys of
    another architecture that llama.cpp calls the same. marks: tensors of a block, or switches, that tell it from others
    that llama.cpp calls the same. shape: what is special in its config, see `opening.gguf_shapes`; "" where heads and
    rotation are as everywhere. behind: where transformers has the blocks that predict further tokens, which follow the
    others in llama.cpp; "" where they are not known.
    """

    name: str
    model_type: str
    architecture: str
    block: Mapping[str, str]
    experts: bool = False
    joined: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    turned: bool = False
    alternating: bool = False
    rejoined: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    outside: Mapping[str, str] = field(default_factory=lambda: OUTSIDE)
    blocks: str = "model.layers"
    orders: Mapping[str, str] = field(default_factory=dict)
    across: Mapping[str, str] = field(default_factory=dict)
    reshaped: Mapping[str, str] = field(default_factory=dict)
    logs: tuple[str, ...] = ()
    plus_one: bool = False
    unchanged: tuple[str, ...] = ()
    layer_norm: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    optional: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    present: Mapping[str, str] = field(default_factory=dict)
    implied: Mapping[str, Any] = field(default_factory=dict)
    yarn: Mapping[str, Any] = field(default_factory=dict)
    yarn_fields: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    windows: bool = False
    divided: int = 0
    partial: bool = False
    lengths: bool = False
    again: Mapping[str, str] = field(default_factory=dict)
    biases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    never: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    shape: str = ""
    behind: str = ""

    @property
    def needed(self) -> Mapping[str, str]:
        """Key of config.json -> key after the architecture's name, of all numbers that must be there."""
        epsilon = {self.layer_norm: "attention.layer_norm_epsilon"} if self.layer_norm else RMS
        return {**(FIELDS if self.shape not in WITHOUT_HEADS else BLOCKS), **epsilon, **self.fields}
