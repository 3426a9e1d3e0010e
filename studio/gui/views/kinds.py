"""Kinds of layers - the last part of a name - and the colour and mark that each has in every checkpoint and plan."""

import zlib
from collections.abc import Iterator
from functools import lru_cache

from studio import core
from studio.gui.shell.theme import Theme
from studio.gui.views.labels import Entry

SHAPES = {
    "dot": "o",
    "square": "s",
    "up": "t1",
    "diamond": "d",
    "down": "t",
    "pentagon": "p",
    "plus": "+",
}
"""Our names of marks and pyqtgraph's."""

_TABLE = (
    ("query", "dot", "q_proj query q wq to_q q"),
    ("query", "square", "q_a_proj q_down_proj"),
    ("query", "diamond", "q_b_proj q_up_proj"),
    ("query", "pentagon", "qkv_proj qkv c_attn Wqkv query_key_value in_proj_qkv"),
    ("key", "square", "k_proj key k wk to_k"),
    ("key", "dot", "kv_a_proj_with_mqa kv_a_proj"),
    ("key", "diamond", "kv_b_proj kv_proj"),
    ("value", "plus", "v_proj value v wv to_v"),
    ("output", "diamond", "o_proj out_proj c_proj wo dense to_out"),
    ("gate", "pentagon", "gate_proj w1 wi_0 linear_v"),
    ("gate", "square", "gate_up_proj gate_and_up_proj input_linear"),
    ("up", "up", "up_proj w3 fc1 c_fc wi wi_1 dense_h_to_4h linear_1"),
    ("down", "down", "down_proj w2 fc2 dense_4h_to_h output_linear linear_2"),
    ("router", "plus", "router gate wg"),
    ("embedding", "square", "embed_tokens wte wpe tok_embeddings word_embeddings embedding embeddings"),
    ("head", "square", "lm_head head score embed_out output"),
    ("ssm", "dot", "in_proj in_proj_qkvz"),
    ("ssm", "square", "x_proj in_proj_ba"),
    ("ssm", "diamond", "dt_proj"),
    ("ssm", "up", "conv1d"),
)
"""Colour, mark, and the kinds that have them: the projections of one block are told apart by both."""

_PLACES = {kind: (place, color, mark) for place, (color, mark, kinds) in enumerate(_TABLE) for kind in kinds.split()}
_OF_ROLE = {"router": "router", "embedding": "embedding", "head": "head", "norm": "norm"}
_UNKNOWN = ("router", "embedding", "head", "ssm", "other", "key", "up", "down")
"""Colours for kinds that the table does not know."""

MOST_NAMES = 16
"""Kinds named in a legend."""


def kind(layer: core.LayerResult) -> str:
    """The last part of a layer's name, which is the same in all blocks: down_proj, lm_head."""
    return core.printable(layer.name.rpartition(".")[2] or layer.name, 24)


@lru_cache(maxsize=1 << 12)
def look(name: str, role: str = "") -> tuple[str, str]:
    """(name of the colour in a theme, mark) of a kind: by the table, by its role, or by a hash of its name."""
    if name in _PLACES:
        return _PLACES[name][1:]
    number = zlib.crc32(name.encode("utf-8", "replace"))
    mark = list(SHAPES)[number % len(SHAPES)]
    if role in _OF_ROLE or "norm" in name.lower():
        return _OF_ROLE.get(role, "norm"), mark
    return _UNKNOWN[number // len(SHAPES) % len(_UNKNOWN)], mark


def place(name: str) -> tuple[int, str]:
    """Where a kind stands among others: as the table has it, then by name."""
    return _PLACES.get(name, (len(_TABLE), "", ""))[0], name


def entry(name: str, role: str, theme: Theme) -> Entry:
    """The sign of a kind in a legend."""
    color, mark = look(name, role)
    return Entry(name, theme.kinds[color], mark)


def known() -> Iterator[str]:
    """The kinds of the table."""
    return iter(_PLACES)
