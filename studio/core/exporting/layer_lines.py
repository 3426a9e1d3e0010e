"""Documents with a line per layer: JSON for everyone, that is written and read without holding all of it."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from studio.core.containers.files import SourceFile
from studio.core.containers.strict_json import parse_object, read_object
from studio.core.errors import CheckpointError
from studio.core.exporting.readback import chunks
from studio.core.layouts.documents import json_document

LARGEST = 4 << 30
_LARGEST_HEAD = _LARGEST_LINE = 64 << 20
_LARGEST_WHOLE = 1 << 30
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_MARK, _END = b'  "layers":[', b"  ]"
"""No pretty printer writes the first of these lines, so that it tells that each layer has a line of its own."""


def layer_line(layer: Mapping[str, Any]) -> bytes:
    """What is known of a layer on one line of JSON."""
    return _JSON.encode(layer).encode()


def with_layers(head: Mapping[str, Any], lines: Iterable[bytes]) -> Iterator[bytes]:
    """A JSON document: the entries of `head`, then "layers", a line for each."""
    start, _, end = json_document({**head, "layers": []}).rpartition(b": []")
    yield start + b":["
    mark = b"\n    "
    for line in lines:
        yield mark + line
        mark = b",\n    "
    yield b"\n  ]" + end


class LayerLines:
    """Such a document in a file. `head` holds the other entries; the layers are read anew each time they are asked for.

    A document that holds the same in other lines is read, too. Raises CheckpointError when it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._whole: list[Any] | None = None
        start = _start(path)
        if start.endswith(_MARK):
            self.head = parse_object(start + b"]}", file=path)
        else:
            self.head = read_object(path, _LARGEST_WHOLE)
            layers = self.head.get("layers")
            self._whole = layers if isinstance(layers, list) else []

    def lines(self) -> Iterator[bytes]:
        """The layers as they are written, a line for each; none where other lines hold them."""
        lines = _lines(self.path)
        for line in lines:
            if line == _MARK:
                break
        more: bool | None = None
        for line in lines:
            if line == _END:
                break
            if more is False:
                raise self._damaged()
            more = line.endswith(b",")
            yield line[4:-1] if more else line[4:]
        if more or list(lines) not in ([b"}", b""], [b"}"]):
            raise self._damaged()

    def layers(self, start: int = 0, stop: int | None = None) -> Iterator[dict[str, Any]]:
        """What is known of each layer, or of those of index `start` .. `stop`."""
        if self._whole is None:
            yield from (parse_object(line, file=self.path) for line in islice(self.lines(), start, stop))
            return
        for layer in self._whole[start:stop]:
            if not isinstance(layer, dict):
                raise self._damaged()
            yield layer

    def _damaged(self) -> CheckpointError:
        return CheckpointError("not valid JSON: its layers do not end as they should", file=self.path)


def _start(path: Path) -> bytes:
    """The lines before the first layer, or the start of a document whose layers are not on lines of their own."""
    start = bytearray()
    for line in _lines(path):
        start += line
        if line == _MARK or len(start) > _LARGEST_HEAD:
            break
        start += b"\n"
    return bytes(start)


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a regular file, without their ends; what follows the last of these is the last line."""
    with SourceFile(path) as file:
        if file.size > LARGEST:
            raise CheckpointError(f"too large: {file.size:,} bytes, at most {LARGEST:,} are accepted", file=path)
        rest = b""
        for piece in chunks(file.size, 1 << 20):
            *whole, rest = (rest + file.read(*piece)).split(b"\n")
            if len(rest) > _LARGEST_LINE:
                break
            yield from map(bytes, whole)
        yield bytes(rest)
