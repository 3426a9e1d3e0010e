"""Changes: how llama.cpp orders and shapes weights, from the words of its table and the numbers of a config."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from studio.core.counting import counted
from studio.core.sources.row_orders import ByPart, InPairs, InTurns, RowOrder

Numbers = Mapping[str, Any]
Ordered = tuple[RowOrder | None, int, str]


def order_of(word: str, module: str, config: Numbers) -> Ordered:
    """(An order, None for none; how many rows, or columns, it is of; of what these are) of a module, by its word.

    Raises ValueError with what the numbers of the config make impossible.
    """
    return _ORDERS[word](module, config)


def reshaped(word: str, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape that a tensor had, by the word of its row; None for one that llama.cpp does not make of it."""
    if word == "a channel" and len(shape) == 2:
        return shape[0], 1, shape[1]
    if word == "flat" and len(shape) in (1, 2):
        return (math.prod(shape),)
    return None


def _whole(config: Numbers, key: str) -> int:
    value = config[key]
    if type(value) is not int or value <= 0:
        raise ValueError(f"a {key} of {value}")
    return value


def _pairs(module: str, config: Numbers) -> Ordered:
    count = _whole(config, "num_attention_heads" if module == "attn_q" else "num_key_value_heads")
    width = _whole(config, "head_dim")
    if width % 2:
        raise ValueError(f"{counted(count, 'head')} of {width} values, of which no pairs can be made")
    return InPairs(width), count * width, f"{counted(count, 'head')} of {width} values in pairs"


def _thirds(_module: str, config: Numbers) -> Ordered:
    count, width = _whole(config, "num_attention_heads"), _whole(config, "head_dim")
    return ByPart(count, (width, width, width)), 3 * count * width, f"{counted(count, 'head')} three times"


def _key_groups(_module: str, config: Numbers) -> Ordered:
    """Some heads of queries, one of keys and one of values, in each group."""
    count, keys = _whole(config, "num_attention_heads"), _whole(config, "num_key_value_heads")
    width = _whole(config, "hidden_size") // count
    if count % keys:
        raise ValueError(f"{counted(count, 'head')} and {keys} of keys")
    what = f"{counted(count, 'head')} with {keys} of keys and of values"
    return ByPart(keys, (count // keys * width, width, width)), (count + 2 * keys) * width, what


def _linear(config: Numbers) -> tuple[int, int, int, int]:
    """(Heads of keys, heads of values for each, width of a key, width of a value)."""
    keys = _whole(config, "linear_num_key_heads")
    each = _whole(config, "linear_num_value_heads") // keys
    return keys, each, _whole(config, "linear_key_head_dim"), _whole(config, "linear_value_head_dim")


def _linear_groups(_module: str, config: Numbers) -> Ordered:
    """Queries, keys and values of each head of keys."""
    keys, each, width, value = _linear(config)
    what = f"{counted(keys, 'head')} of keys with their values"
    return ByPart(keys, (width, width, each * value)), keys * (2 * width + each * value), what


def _turns(*, first: bool, single: bool) -> Callable[[str, Numbers], Ordered]:
    """Heads of values, the first of each head of keys first.

    first: they lie behind queries and keys. single: a head has one row.
    """

    def found(_module: str, config: Numbers) -> Ordered:
        keys, each, width, value = _linear(config)
        before, height = 2 * keys * width if first else 0, 1 if single else value
        order = InTurns(before, keys, each, height) if each > 1 else None
        return order, before + keys * each * height, f"{counted(keys * each, 'head')} of values"

    return found


_ORDERS: Mapping[str, Callable[[str, Numbers], Ordered]] = {
    "pairs": _pairs,
    "thirds": _thirds,
    "key groups": _key_groups,
    "linear groups": _linear_groups,
    "values behind": _turns(first=True, single=False),
    "values": _turns(first=False, single=False),
    "one of each value": _turns(first=False, single=True),
}
