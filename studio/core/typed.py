"""Records of strangers: whether fields of a dataclass hold what they are declared to."""

import builtins
import types
import typing
from collections.abc import Callable, Collection
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from studio.core.names import printable

Record = TypeVar("Record")
_Fits = Callable[[Any], bool]


def typed(record: Record, signed: Collection[str] = ()) -> Record:
    """`record` of a dataclass.

    Raises TypeError for a field that is not of its declared type, and for a number below zero that is not `signed`.
    """
    kind: Any = type(record)
    for name, fits in _checks(kind, tuple(signed)):
        value = getattr(record, name)
        if not fits(value):
            raise TypeError(f"{name} is {printable(value)}")
    return record


@cache
def _checks(kind: type[Any], signed: tuple[str, ...]) -> tuple[tuple[str, _Fits], ...]:
    """A check for every field; manifests have thousands of records, so that each is made once."""
    declared = get_type_hints(kind).items()
    return tuple((name, _check(hint, signed=name in signed)) for name, hint in declared)


def _check(kind: Any, *, signed: bool) -> _Fits:
    match get_origin(kind):
        case builtins.tuple:
            item = _check(get_args(kind)[0], signed=signed)
            return lambda value: all(map(item, value))
        case typing.Literal:
            allowed = get_args(kind)
            return lambda value: value in allowed
        case types.UnionType:
            choices = tuple(_check(choice, signed=signed) for choice in get_args(kind))
            return lambda value: any(fits(value) for fits in choices)
    if kind in (int, float):
        numbers = (int, kind)
        return lambda value: type(value) in numbers and (signed or value >= 0)
    return lambda value: isinstance(value, kind)
