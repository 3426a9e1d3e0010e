"""JSON from a stranger: UTF-8 objects only, no duplicate keys, no bombs, no NaN unless asked for; one message each."""

import json
import math
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from studio.core.containers.files import read_small
from studio.core.errors import CheckpointError
from studio.core.names import printable

DEPTH = 64
LARGEST_FILE = 64 << 20
_MOST_DIGITS = 40
_MINUS_ZERO = re.compile(rb"-0(?![\d.eE])")
_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_TOO_LONG = b"0" * (_MOST_DIGITS + 1)


class _RefusedError(ValueError):
    pass


def parse_object(text: bytes, *, file: Path, constants: bool = False) -> dict[str, Any]:
    """The JSON object in `text`; raises CheckpointError naming `file` for anything else.

    With `constants` NaN, Infinity, -Infinity and numbers too large are taken as Python's json takes them: the configs
    of models hold them, although JSON has no such numbers.
    """
    try:
        decoded = text.decode("utf-8")
        value = _decoder(constants, _has_odd_numbers(text)).decode(decoded)
        if text.count(b"{") + text.count(b"[") > DEPTH:
            _check_depth(value)
        if b"\\u" in text:
            _check_text(value)
    except _RefusedError as error:
        raise CheckpointError(f"not usable JSON: {error}", file=file) from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"not valid JSON: {_first_words(error)}", file=file) from None
    if not isinstance(value, dict):
        raise CheckpointError("not valid JSON for its purpose: not an object", file=file)
    return value


def _has_odd_numbers(text: bytes) -> bool:
    """False where all whole numbers of a document are what `int` makes of them; texts are looked at as if they were."""
    return _TOO_LONG in text.translate(_ZEROS) or _MINUS_ZERO.search(text) is not None


@cache
def _decoder(constants: bool, odd: bool) -> json.JSONDecoder:
    """The decoder of documents with, or without, `constants` and numbers that are `odd`: the others are read faster."""
    return json.JSONDecoder(
        object_pairs_hook=_without_duplicates,
        parse_constant=float if constants else _refuse_constant,
        parse_int=_bounded_int if odd else int,
        parse_float=float if constants else _finite_float,
    )


def read_object(path: Path, limit: int = LARGEST_FILE, *, constants: bool = False) -> dict[str, Any]:
    """The JSON object in the regular file `path`, of at most `limit` bytes; `constants` as in `parse_object`."""
    return parse_object(read_small(path, limit), file=path, constants=constants)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise _RefusedError(f"duplicate key '{printable(twice)}'")
    return result


def _refuse_constant(word: str) -> NoReturn:
    raise _RefusedError(f"the number {word}")


def _bounded_int(digits: str) -> int | float:
    if len(digits) > _MOST_DIGITS:
        raise _RefusedError(f"a number of {len(digits)} digits")
    return -0.0 if digits == "-0" else int(digits)


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _RefusedError(f"the number {printable(digits, 40)}, which is too large")
    return value


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEPTH:
            raise _RefusedError(f"nested deeper than {DEPTH} levels")
        inner = [child for item in level for child in _children(item)]
        level = [child for child in inner if isinstance(child, (dict, list))]


def _children(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return list(item.values())
    return item if isinstance(item, list) else []


def _check_text(value: Any) -> None:
    """Half a surrogate pair, written as an escape, could never be written to a file again."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _RefusedError("half a surrogate pair in a text") from None


def _first_words(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text"
    return printable(error)
