"""Read an export back: decode every quantized matrix from the file, compare it with its source, hash every byte."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import STORED_FORMATS, Quantized
from kernels.reference import symmetric_biases
from kernels.tiles import spread
from studio.core.containers.dtypes import ARRAY_DTYPES
from studio.core.containers.files import SourceFile
from studio.core.containers.safetensors import Header, Tensor
from studio.core.errors import CheckpointError
from studio.core.layouts import Layout
from studio.core.layouts.placement import Placement, multiplier_of_part
from studio.core.sources.in_format import not_numbers

HASH_CHUNK = 4 << 20


@dataclass(frozen=True, slots=True)
class StoredMatrix:
    """A quantized matrix in a file: what it is and where its parts are."""

    name: str
    rows: int
    columns: int
    format: str
    parts: tuple[Placement, ...]


def read_quantized(
    file: SourceFile, header: Header, layout: Layout, matrix: StoredMatrix, start: int, stop: int
) -> Quantized:
    """Rows `start` .. `stop` of a stored matrix; raises CheckpointError for scales that are no numbers."""
    row = STORED_FORMATS[matrix.format]
    parts = {part.content: part for part in matrix.parts}

    def rows_of(part: Placement, columns: int) -> NDArray[Any]:
        dtype = np.dtype(np.uint8) if part.dtype in ("U32", "I32", "F8_E4M3") else ARRAY_DTYPES[part.dtype]
        width = columns * dtype.itemsize
        raw = _read(file, header.tensors[part.name], part.offset + start * width, (stop - start) * width)
        return raw.view(dtype).reshape(stop - start, columns)

    codes = rows_of(parts["codes"], matrix.columns * row.bits // 8)
    if row.scale == "float32":
        return _tiled(file, header, layout, matrix, codes, start)
    scales = rows_of(parts["scales"], matrix.columns // row.block)
    biases = rows_of(parts["biases"], matrix.columns // row.block) if "biases" in parts else None
    biases = symmetric_biases(scales, row) if row.symmetric else biases
    _check_scales(file, matrix, scales, biases)
    g = _multiplier(file, header, layout, parts["tensor_scale"]) if "tensor_scale" in parts else None
    return Quantized(row, codes, scales, biases, g)


def _tiled(
    file: SourceFile, header: Header, layout: Layout, matrix: StoredMatrix, codes: NDArray[np.uint8], start: int
) -> Quantized:
    """Rows from `start` on, as many as there are codes, with the scales of the tiles that they lie in."""
    row, rows = STORED_FORMATS[matrix.format], len(codes)
    parts = {part.content: part for part in matrix.parts}
    number = parts.get("multiplier")
    g = _multiplier(file, header, layout, number) if number else None
    scales = np.ones((1, 1), np.float32)
    if part := parts.get("scales"):
        first, last = start // row.height, -(-(start + rows) // row.height)
        width = 4 * row.tiles(matrix.rows, matrix.columns)[1]
        raw = _read(file, header.tensors[part.name], part.offset + first * width, (last - first) * width)
        scales = raw.view(np.float32).reshape(last - first, -1)
        if bad := int((~(np.isfinite(scales) & (scales > 0))).sum()):
            raise CheckpointError(f"{bad:,} scales are no positive numbers", file=file.path, tensor=part.name)
    return Quantized(row, codes, spread(scales, row, rows, matrix.columns, start), None, g)


def _read(file: SourceFile, tensor: Tensor, offset: int, count: int) -> NDArray[np.uint8]:
    raw = np.empty(count, np.uint8)
    if offset + count > tensor.nbytes:
        raise CheckpointError("smaller than the manifest says", file=file.path, tensor=tensor.name)
    file.read_into(raw.data, tensor.start + offset)
    return raw


def _check_scales(file: SourceFile, matrix: StoredMatrix, scales: NDArray[Any], biases: NDArray[Any] | None) -> None:
    row = STORED_FORMATS[matrix.format]
    if row.affine:
        bad = sum(int((~np.isfinite(part.astype(np.float32))).sum()) for part in (scales, biases) if part is not None)
    else:
        bad = int(np.count_nonzero(not_numbers(scales, row.scale)))
    if bad:
        raise CheckpointError(f"{bad:,} block scales are not numbers", file=file.path, tensor=matrix.name)


def _multiplier(file: SourceFile, header: Header, layout: Layout, part: Placement) -> NDArray[np.float32]:
    return np.array(usable_multiplier(layout, stored_scale(file, header, part), file, part), np.float32)


def stored_scale(file: SourceFile, header: Header, part: Placement) -> np.float32:
    """The tensor scale that a file holds, in the convention of its layout."""
    found: np.float32 = _read(file, header.tensors[part.name], part.offset, 4).view(np.float32)[0]
    return found


def usable_multiplier(layout: Layout, stored: np.float32, file: SourceFile, part: Placement) -> np.float32:
    """The multiplier that readers compute; raises CheckpointError for one that is no positive number."""
    g = multiplier_of_part(layout, part.content, stored)
    if not (np.isfinite(g) and g > 0):
        raise CheckpointError(f"tensor scale {stored} is not usable", file=file.path, tensor=part.name)
    return g


def chunks(size: int, chunk: int = HASH_CHUNK) -> Iterator[tuple[int, int]]:
    """(offset, count) of the pieces of `size` bytes."""
    for start in range(0, size, chunk):
        yield start, min(chunk, size - start)


def hashing(file: SourceFile, digest: "hashlib._Hash", instead: tuple[int, bytes] | None = None) -> Iterator[int]:
    """Add a file to a digest; yields how many bytes of it are read.

    `instead`: an offset near the start, and the bytes that count in place of those that are stored there.
    """
    for offset, count in chunks(file.size):
        piece = file.read(offset, count)
        if instead and offset == 0:
            at, other = instead
            piece[at : at + len(other)] = other
        digest.update(piece)
        yield offset + count


def sha256(file: SourceFile, start: int = 0, nbytes: int | None = None) -> str:
    """SHA-256 of a range of a file, the whole by default, as hexadecimal text."""
    digest = hashlib.sha256()
    for offset, count in chunks(file.size - start if nbytes is None else nbytes):
        digest.update(file.read(start + offset, count))
    return digest.hexdigest()
