"""Records of strangers: whether fields of a dataclass hold what they are declared to."""

import builtins
import types
import typing
from collections.abc import Collection
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from studio.core.names import printable

Record = TypeVar("Record")


def typed(record: Record, signed: Collection[str] = ()) -> Record:
    """`record` of a dataclass.

    Raises TypeError for a field that is not of its declared type, and for a number below zero that is not `signed`.
    """
    kind: Any = type(record)
    for name, declared in _declared(kind).items():
        value = getattr(record, name)
        if not _fits(value, declared, signed=name in signed):
            raise TypeError(f"{name} is {printable(value)}")
    return record


@cache
def _declared(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)


def _fits(value: Any, kind: Any, *, signed: bool) -> bool:
    match get_origin(kind):
        case builtins.tuple:
            return all(_fits(item, get_args(kind)[0], signed=signed) for item in value)
        case typing.Literal:
            return value in get_args(kind)
        case types.UnionType:
            return any(_fits(value, choice, signed=signed) for choice in get_args(kind))
    if kind in (int, float):
        return type(value) in (int, kind) and (signed or value >= 0)
    return isinstance(value, kind)
