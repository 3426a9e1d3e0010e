"""Importance files of llama.cpp, GGUF and the older form: mean squares of the inputs of every matrix.

GGUF: `general.type` is imatrix; NAME.in_sum2 [experts, K] holds sums of squares, NAME.counts [experts, 1] how many.
Older: the number of entries; for each its name, the chunks of text, the number of values, and values times chunks; all
int32 and float32. Source: tools/imatrix/imatrix.cpp of llama.cpp.
"""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from studio.core.containers.files import SourceFile
from studio.core.containers.gguf import MAGIC, read_gguf
from studio.core.counting import counted
from studio.core.errors import CheckpointError, PlanError
from studio.core.model import Layer, Matrix, Model
from studio.core.names import printable
from studio.core.statistics.inputs import LayerInputs
from studio.core.statistics.llama_cpp_names import llama_cpp_names

_MOST_ENTRIES = 1 << 20
_LONGEST_NAME = 512
_PIECE = 1 << 24
_CHUNK_TOKENS = 512
"""What llama.cpp cuts a text into when nothing else is asked for; the older form does not tell it."""

_MOST_TOKENS = 1 << 62
"""Counts are of 64 bits, here as there."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where the sums of squares [experts, K] of a tensor are, how many things were counted, of so many tokens each."""

    start: int
    count: int
    counted: NDArray[np.int64]
    each: int = 1


def is_imatrix(start: bytes) -> bool:
    """True when a file that starts like this is GGUF, or an importance file of the older form."""
    if start.startswith(MAGIC):
        return True
    if len(start) < 12:
        return False
    entries, length = struct.unpack("<ii", start[:8])
    name = start[8 : 8 + min(max(length, 0), _LONGEST_NAME)]
    return 0 < entries < _MOST_ENTRIES and 0 < length <= _LONGEST_NAME and name.isascii() and b"." in name


class ImatrixFile:
    """An importance file, opened for a model; see `StatisticsFile`. Peaks and second moments are unknown to it.

    The older form knows chunks of text instead of tokens, taken for the usual 512 each, and one number of them for all
    experts.
    """

    kind = "imatrix"

    def __init__(self, path: Path, model: Model) -> None:
        """Raises CheckpointError for a malformed file, PlanError for one of another model."""
        self.path, self._file = path, SourceFile(path)
        is_gguf = bytes(self._file.read(0, 4)) == MAGIC
        self.about: Mapping[str, str] = {"format": "imatrix, GGUF" if is_gguf else "imatrix, the older form"}
        self._entries = _gguf_entries(self._file) if is_gguf else _older_entries(self._file)
        self._is_mean = not is_gguf
        self.digest = _digest(self._file)
        self._heights = model.stack_heights
        self._check(model)

    def _check(self, model: Model) -> None:
        known = [
            (layer, matrix)
            for layer in model.layers
            for matrix in layer.matrices
            if self._entry(layer, matrix) is not None
        ]
        if not known:
            what = f"of {counted(len(self._entries), 'name')}, none is that of a matrix of {model.name}"
            raise PlanError(what, file=self.path, hint="give the importance file of this model")
        for layer, matrix in known:
            self._place(layer, matrix)

    def _entry(self, layer: Layer, matrix: Matrix) -> _Entry | None:
        return next((self._entries[name] for name in llama_cpp_names(layer, matrix) if name in self._entries), None)

    def _place(self, layer: Layer, matrix: Matrix) -> tuple[int, int, int] | None:
        """(first value, how many were counted, tokens of each) of a matrix; PlanError for an entry of another shape."""
        entry = self._entry(layer, matrix)
        if entry is None:
            return None
        height = self._heights[matrix.stack, matrix.projection] if matrix.expert is not None else 1
        if entry.count != height * matrix.columns or len(entry.counted) not in (1, height):
            what = f"has {entry.count:,} values for it, the model has {height} x {matrix.columns:,} inputs"
            raise PlanError(what, file=self.path, tensor=matrix.name, hint="it is of another model")
        expert = matrix.expert or 0
        number = int(entry.counted[expert if len(entry.counted) > 1 else 0])
        return entry.start + expert * matrix.columns * 4, number, entry.each

    def tokens_of(self, layer: Layer, matrix: Matrix) -> int | None:
        """See `StatisticsFile`."""
        found = self.of(layer, matrix)
        return None if found is None else found.tokens

    def peak_of(self, layer: Layer, matrix: Matrix) -> tuple[int, float]:
        """See `StatisticsFile`: it knows mean squares only."""
        return 0, 0.0

    def of(self, layer: Layer, matrix: Matrix) -> LayerInputs | None:
        """See `StatisticsFile`."""
        place = self._place(layer, matrix)
        if place is None:
            return None
        start, number, each = place
        if not number:
            return LayerInputs(0, np.zeros(matrix.columns, np.float32))
        sums = np.frombuffer(self._file.read(start, matrix.columns * 4), "<f4")
        if not np.isfinite(sums).all() or (sums < 0).any():
            raise CheckpointError("holds numbers that no sum of squares can be", file=self.path, tensor=matrix.name)
        means = (sums / np.float32(number)).astype(np.float32)
        if self._is_mean and matrix.expert is not None and (means == 1).all():
            return LayerInputs(0, np.zeros(matrix.columns, np.float32))  # what it writes for experts without tokens
        return LayerInputs(number * each, means)


def _gguf_entries(file: SourceFile) -> dict[str, _Entry]:
    header = read_gguf(file)
    if header.pairs.get("general.type") != "imatrix":
        kind = printable(header.pairs.get("general.type", "nothing told"), 60)
        raise CheckpointError(f"a GGUF file, but not of importance: {kind}", file=file.path)
    found = {}
    for name, sums in header.tensors.items():
        if not name.endswith(".in_sum2"):
            continue
        tensor = name.removesuffix(".in_sum2")
        counts = header.tensors.get(f"{tensor}.counts")
        if counts is None or {sums.type.name, counts.type.name} != {"F32"}:
            raise CheckpointError("malformed: needs in_sum2 and counts in float32", file=file.path, tensor=tensor)
        tokens = np.frombuffer(file.read(counts.start, counts.nbytes), "<f4")
        if not ((tokens >= 0) & (tokens < _MOST_TOKENS)).all():
            raise CheckpointError("malformed counts", file=file.path, tensor=tensor)
        entry = _Entry(sums.start, sums.nbytes // 4, np.rint(tokens).astype(np.int64))
        found[tensor.removesuffix(".weight")] = entry
    return found


def _older_entries(file: SourceFile) -> dict[str, _Entry]:
    found = {}
    (count,) = struct.unpack("<i", file.read(0, 4))
    position = 4
    for _ in range(count):
        name, chunks, values, position = _older_entry(file, position)
        _check_inside(file, position, 4 * values, name)
        found[name.removesuffix(".weight")] = _Entry(position, values, np.array([chunks], np.int64), _CHUNK_TOKENS)
        position += 4 * values
    return found


def _older_entry(file: SourceFile, position: int) -> tuple[str, int, int, int]:
    _check_inside(file, position, 4, "")
    (length,) = struct.unpack("<i", file.read(position, 4))
    if not 0 < length <= _LONGEST_NAME:
        raise CheckpointError(f"malformed: a name of {length:,} bytes", file=file.path)
    _check_inside(file, position + 4, length + 8, "")
    raw = bytes(file.read(position + 4, length + 8))
    name = raw[:length].decode("utf-8", "backslashreplace")
    chunks, values = struct.unpack("<ii", raw[length:])
    if chunks < 1 or values < 1:
        raise CheckpointError(f"malformed: {values:,} values of {chunks:,} chunks", file=file.path, tensor=name)
    return name, chunks, values, position + 12 + length


def _check_inside(file: SourceFile, start: int, nbytes: int, tensor: str) -> None:
    if start + nbytes > file.size:
        raise CheckpointError("truncated", file=file.path, tensor=tensor or None)


def _digest(file: SourceFile) -> str:
    digest = hashlib.sha256()
    for offset in range(0, file.size, _PIECE):
        digest.update(file.read(offset, min(_PIECE, file.size - offset)))
    return digest.hexdigest()
