"""Mutants: documents of a checkpoint, changed a little or a lot, the same way for the same seed."""

import hashlib
import json
import math
import random
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from studio.core.containers.dtypes import BITS
from studio.core.containers.gguf import TYPES
from studio.core.exporting.layer_lines import layer_line, with_layers
from studio.core.statistics.tensors import DIGEST
from tests.core.checkpoints import entry
from tests.core.gguf_files import Info, gguf

Words = Sequence[str]
_NUMBERS = (0, 1, -1, 2, 3, 4, 7, 8, 16, 31, 32, 64, 127, 128, 255, 1 << 20, 1 << 31, 1 << 48, 1 << 63, 10**30, 10**39)
_FLOATS = (0.5, -0.0, 1e-45, 1e38, 1e308, math.inf, -math.inf, math.nan)
_TEXTS = (
    "",
    " ",
    ".",
    "..",
    "../x",
    "/",
    "x" * 500,
    "a\nb",
    "\x1b[31m",
    "\u202e",
    "\ud800",
    "\0",
    "re:(",
    "re:.*",
    "*",
    "é",
    "\uff19",
)
_CONTAINERS: tuple[Any, ...] = ([], {}, [[]], [{}], {"": {}}, [None], [1], {"a": [1]}, {"group_0": None})
_PROTOTYPES = ("__proto__", "__class__", "__metadata__", "constructor", "weight_map", "auto_map", "$ref", "_target_")
LONGEST_TEXT = 20_000
"""Characters of a document that is changed on."""


@dataclass(frozen=True)
class Document:
    """A file of a kind, told by JSON; `data` are the bytes of its tensors by name."""

    kind: str
    content: str
    data: Mapping[str, bytes] = field(default_factory=dict)

    def mutated(self, chance: random.Random, words: Words) -> tuple["Document", bytes]:
        """The document with some changes, and its bytes with some more now and then."""
        value = json.loads(self.content)
        for _ in range(chance.choice((1, 1, 1, 1, 2, 2, 3, 5))):
            value = _changed(value, chance, words)
        text = json.dumps(value)
        found = Document(self.kind, text, self.data) if len(text) < LONGEST_TEXT else self
        raw = found.rendered(lambda header: _spoilt(header, chance, words), lambda text: _respelt(text, chance))
        return found, _damaged(raw, chance) if chance.random() < 0.15 else raw

    def rendered(
        self, touch: Callable[[Any], Any] = lambda header: header, spell: Callable[[bytes], bytes] = bytes
    ) -> bytes:
        """Its bytes.

        `touch` may change the header of a file of tensors once its data are placed, `spell` how JSON is written.
        """
        value = json.loads(self.content)
        if self.kind == "safetensors":
            return _safetensors(value, self.data, touch, spell)
        if self.kind == "gguf":
            return _gguf(value, self.data)
        if self.kind == "lines":
            return spell(_lines(value))
        return spell(_json(value))


def _spoilt(header: Any, chance: random.Random, words: Words) -> Any:
    return _changed(header, chance, words) if chance.random() < 0.25 else header


def places(value: Any) -> Iterator[Any]:
    """All objects and lists in a JSON value that hold something, itself too."""
    if isinstance(value, (dict, list)) and value:
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from places(item)


def _changed(value: Any, chance: random.Random, words: Words) -> Any:
    """A JSON value after one change, made in place where it has parts."""
    found = list(places(value))
    if not found or chance.random() < 0.01:
        return _any(chance, words)
    place = chance.choice(found)
    key = chance.choice(list(place)) if isinstance(place, dict) else chance.randrange(len(place))
    chance.choice(_CHANGES)(place, key, chance, words)
    return value


def _any(chance: random.Random, words: Words) -> Any:
    pool: Sequence[Any] = chance.choice((_NUMBERS, _FLOATS, _TEXTS, words, words, (None, True, False), _CONTAINERS))
    found = chance.choice(pool)
    return json.loads(json.dumps(found)) if isinstance(found, (list, dict)) else found


def _replace(place: Any, key: Any, chance: random.Random, words: Words) -> None:
    place[key] = _any(chance, words)


def _nudge(place: Any, key: Any, chance: random.Random, words: Words) -> None:
    """Another value of the same kind."""
    old = place[key]
    if isinstance(old, bool):
        place[key] = not old
    elif isinstance(old, int):
        place[key] = chance.choice((0, 0, 0, 1, 1, old + 1, old - 1, 2 * old, old // 2, -old, *_NUMBERS))
    elif isinstance(old, float):
        place[key] = chance.choice((-old, old * 2, *_FLOATS))
    elif isinstance(old, str):
        place[key] = _other_text(old, chance, words)
    elif isinstance(old, list):
        place[key] = chance.choice((old[1:], old[::-1], old + old, [old], old[:-1]))
    else:
        place[key] = _any(chance, words)


def _other_text(old: str, chance: random.Random, words: Words) -> str:
    at = chance.randrange(len(old) + 1)
    mixed = old[:at] + chance.choice(_TEXTS)[:8] + old[at:]
    return chance.choice((old[:at], old[at:], mixed, old.upper(), old + old, chance.choice(words)))


def _drop(place: Any, key: Any, _chance: random.Random, _words: Words) -> None:
    del place[key]


def _rename(place: Any, key: Any, chance: random.Random, words: Words) -> None:
    """Another key, or another leaf of a path; in a list a second place."""
    if isinstance(place, list):
        place.insert(chance.randrange(len(place) + 1), place[key])
        return
    head, dot, _ = key.rpartition(".")
    name = chance.choice((chance.choice(words), head + dot + chance.choice(words).rpartition(".")[2]))
    place[name] = place.pop(key) if chance.random() < 0.5 else place[key]


def _add(place: Any, _key: Any, chance: random.Random, words: Words) -> None:
    if isinstance(place, dict):
        place[chance.choice(words)] = _any(chance, words)
    else:
        place.append(_any(chance, words))


def _recast(place: Any, key: Any, _chance: random.Random, _words: Words) -> None:
    """The same in another type: what another program may write for it."""
    old = place[key]
    if isinstance(old, bool):
        place[key] = int(old)
    elif isinstance(old, int):
        place[key] = bool(old) if old in (0, 1) else float(old) if old < 1 << 60 else str(old)
    elif isinstance(old, float):
        place[key] = str(old)
    elif isinstance(old, str):
        place[key] = [old]
    else:
        place[key] = None if old is not None else "null"


def _inherit(place: Any, key: Any, chance: random.Random, _words: Words) -> None:
    """A key that programs, or their languages, give a meaning of its own."""
    if isinstance(place, dict):
        place[chance.choice(_PROTOTYPES)] = place[key]
    else:
        place.append({chance.choice(_PROTOTYPES): place[key]})


def _lengthen(place: Any, key: Any, chance: random.Random, _words: Words) -> None:
    """A text or a key that is very long."""
    long = chance.choice("xé\u202e*") * chance.choice((300, 5000, LONGEST_TEXT))
    if isinstance(place, dict) and chance.random() < 0.5:
        place[long] = place.pop(key)
    else:
        place[key] = long


def _swap(place: Any, key: Any, chance: random.Random, _words: Words) -> None:
    other = chance.choice(list(place)) if isinstance(place, dict) else chance.randrange(len(place))
    place[key], place[other] = place[other], place[key]


def _wrap(place: Any, key: Any, chance: random.Random, words: Words) -> None:
    depth = chance.choice((1, 1, 2, 70))
    for _ in range(depth):
        place[key] = [place[key]] if chance.random() < 0.5 else {chance.choice(words): place[key]}


_CHANGES = (_replace, _replace, _nudge, _nudge, _nudge, _drop, _rename, _rename, _add, _swap, _wrap)
_CHANGES += (_recast, _recast, _inherit, _lengthen)


def _respelt(text: bytes, chance: random.Random) -> bytes:
    """JSON written in another way now and then: much of it is none any more, or stands for something else."""
    return chance.choice(_SPELLINGS)(text, chance) if chance.random() < 0.15 else text


def _marked(text: bytes, chance: random.Random) -> bytes:
    """With the mark of an encoding, or in one."""
    return chance.choice((b"\xef\xbb\xbf" + text, text.decode().encode("utf-16"), text.decode().encode("utf-32")))


def _spaced(text: bytes, chance: random.Random) -> bytes:
    """With other ends of lines, spaces or zeros around."""
    return chance.choice((text.replace(b", ", b",\r\n"), text.replace(b"\n", b"\r\n"), b"\n " + text, text + b"\0" * 9))


def _number(text: bytes, chance: random.Random) -> bytes:
    """A number that JSON has not, or that is larger than most can hold, in the place of one."""
    odd = (
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e999",
        b"-0",
        b"1" * 41,
        b"9" * 5000,
        b"0x10",
        b"01",
        b"1_0",
        b"1.",
        b"+1",
    )
    return _at_one(rb"(?<=[ :\[])-?\d+(?=[,\]}])", text, chance.choice(odd), chance)


def _twice(text: bytes, chance: random.Random) -> bytes:
    """A key twice, with the same or another value."""
    return _at_one(
        rb'(?<=\{)("[^"]*": )(?=[^,{}\[\]]+[,}])',
        text,
        rb"\g<1>" + chance.choice((b"1", b'""', b"{}")) + rb", \g<1>",
        chance,
    )


def _nested(text: bytes, chance: random.Random) -> bytes:
    """A value inside very many lists or objects."""
    depth = chance.choice((63, 64, 65, 1000, 100_000))
    opening, closing = chance.choice(((b"[", b"]"), (b'{"a":', b"}")))
    middle = opening * depth + b"1" + closing * chance.choice((depth, depth - 1, 0))
    return _at_one(rb"(?<=[ :\[])-?\d+(?=[,\]}])", text, middle, chance)


def _escaped(text: bytes, chance: random.Random) -> bytes:
    """Half a surrogate pair, an escape that is none, or a character of control in a text."""
    odd = (rb"\\ud800", rb"\\udc00", rb"\\ud83d\\ude00", rb"\\u12", rb"\\x41", b"\t", b"\xed\xa0\x80", b"\xc0\x80")
    return _at_one(rb'(?<=")(?=[a-z])', text, chance.choice(odd), chance)


def _at_one(expression: bytes, text: bytes, new: bytes, chance: random.Random) -> bytes:
    """A text with `new` at one of the places that an expression finds."""
    found = list(re.finditer(expression, text))
    if not found:
        return text
    one = chance.choice(found)
    return text[: one.start()] + one.expand(new) + text[one.end() :]


_SPELLINGS = (_marked, _spaced, _number, _number, _twice, _twice, _nested, _escaped)


def _damaged(raw: bytes, chance: random.Random) -> bytes:
    """Bytes after something happened to them."""
    at, length = chance.randrange(len(raw) + 1), chance.choice((1, 2, 4, 8, 64))
    piece = bytes(chance.choice((0, 1, 34, 58, 92, 123, 125, 127, 128, 255)) for _ in range(length))
    middle = chance.choice((b"", piece, raw[at : at + 1] * length, raw[at : at + length] * 2))
    return chance.choice((raw[:at], raw[:at] + middle + raw[at + length :], raw[:at] + middle + raw[at:]))


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _lines(value: Any) -> bytes:
    """A document with a line for each layer, where it still is one."""
    if not isinstance(value, dict) or not isinstance(value.get("layers"), list):
        return _json(value)
    try:
        head = {key: item for key, item in value.items() if key != "layers"}
        return b"".join(with_layers(head, map(layer_line, value["layers"])))
    except ValueError:  # NaN, or half of a surrogate pair
        return _json(value)


def _safetensors(
    value: Any, data: Mapping[str, bytes], touch: Callable[[Any], Any], spell: Callable[[bytes], bytes]
) -> bytes:
    """A file whose data lie as its header says, as far as that says anything."""
    if not isinstance(value, dict):
        return _framed(spell(_json(value)), b"")
    header, body = {}, bytearray()
    for name, told in value.items():
        nbytes = _nbytes(told)
        if nbytes is None:
            header[name] = told
            continue
        header[name] = entry(told["dtype"], told["shape"], len(body), len(body) + nbytes)
        own = data.get(name, b"")
        body += own[:nbytes] + bytes(max(nbytes - len(own), 0))
    metadata = header.get("__metadata__")
    if isinstance(metadata, dict) and DIGEST in metadata:
        metadata[DIGEST] = hashlib.sha256(body).hexdigest()
    return _framed(spell(_json(touch(header))), bytes(body))


def _framed(text: bytes, body: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text + body


def _nbytes(told: Any) -> int | None:
    """Bytes of a tensor that can be stored; None for what is none, or too much for a test."""
    if not isinstance(told, dict) or told.keys() != {"dtype", "shape"} or not isinstance(told["shape"], list):
        return None
    sizes = told["shape"]
    if told["dtype"] not in list(BITS) or not _small(sizes):
        return None
    nbytes = math.prod(sizes) * BITS[told["dtype"]] // 8
    return nbytes if nbytes < 1 << 16 else None


def _small(sizes: Sequence[Any]) -> bool:
    return all(type(size) is int and 0 <= size < 1 << 12 for size in sizes)


def _sized(data: bytes, shape: Sequence[int], kind: Any) -> bytes:
    """As many bytes as a tensor of GGUF needs, where that is not too many for a test."""
    found = TYPES.get(kind) if isinstance(kind, int) and _small(shape) else None
    nbytes = math.prod(shape) // found.weights * found.nbytes if found else 0
    return data + bytes(nbytes - len(data)) if len(data) < nbytes < 1 << 16 else data


def _gguf(value: Any, data: Mapping[str, bytes]) -> bytes:
    """A GGUF file, or the JSON of what can be none."""
    try:
        infos = [
            Info(name, tuple(shape), kind, _sized(data.get(name, b""), shape, kind), offset)
            for name, shape, kind, offset in value["infos"]
        ]
        return gguf(value["pairs"], infos)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, UnicodeError, ValueError, struct.error):
        return _json(value)
