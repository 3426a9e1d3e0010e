"""Solved: matrices that a method quantized whole before the run, on disk until their slabs are asked for."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np

from kernels import Format, Quantized
from studio.core.containers.files import SourceFile
from studio.core.errors import ExportError
from studio.core.exporting.writing import StagedFile, writing
from studio.core.model import Matrix

_HEAD = struct.Struct("<8sfI")
_MARK = b"nvfp4fed"
_IDENTITY = "identity"


class Solved:
    """A folder with a file per matrix: the tensor scale, the codes of all rows, their block scales.

    A file has its name once it is whole and flushed, so that a run that was stopped goes on where it was.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, identity: str) -> None:
        """Keep what a run of the same identity left, drop anything else. Raises ExportError."""
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            mark = self.folder / _IDENTITY
            if not mark.exists() or mark.read_text(encoding="utf-8") != identity:
                self._clear()
                mark.write_text(identity, encoding="utf-8")

    def discard(self) -> None:
        """Remove the folder."""
        with writing(self.folder):
            self._clear()
            if self.folder.is_dir():
                self.folder.rmdir()

    def _clear(self) -> None:
        for path in self.folder.glob("*"):
            if path.name == _IDENTITY or path.suffix in (".codes", ".part"):
                path.unlink()

    def _path(self, matrix: Matrix) -> Path:
        return self.folder / f"{sha256(matrix.name.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.codes"

    def holds(self, matrix: Matrix) -> bool:
        """True when a matrix is there, whole."""
        return self._path(matrix).exists()

    @contextmanager
    def writing(self, matrix: Matrix, row: Format, g: float) -> "Iterator[Writer]":
        """Take the rows of a matrix, which is there once the block ends without an error. Raises ExportError."""
        path = self._path(matrix)
        aside = path.with_suffix(".part")
        with StagedFile(aside) as file:
            file.write(memoryview(_HEAD.pack(_MARK, g, matrix.rows)), 0)
            yield Writer(file, matrix, row)
            file.flush()
        with writing(path):
            aside.rename(path)

    def read(self, matrix: Matrix, row: Format, start: int, stop: int) -> Quantized:
        """Rows `start` .. `stop` of a matrix. Raises CheckpointError when its file is damaged."""
        codes, scales = _places(matrix, row)
        with SourceFile(self._path(matrix)) as file:
            _, g, _ = _HEAD.unpack(file.read(0, _HEAD.size))
            parts = [
                np.frombuffer(file.read(first + start * width, (stop - start) * width), np.uint8).reshape(-1, width)
                for first, width in (codes, scales)
            ]
        tensor_scale = np.array(g, np.float32) if row.tensor_scale else None
        return Quantized(row, parts[0], parts[1], None, tensor_scale)


class Writer:
    """Takes the rows of a matrix, from any thread, in any order."""

    def __init__(self, file: StagedFile, matrix: Matrix, row: Format) -> None:
        self._file, self._places = file, _places(matrix, row)

    def write(self, start: int, quantized: Quantized) -> None:
        """The rows from `start` on."""
        for (first, width), part in zip(self._places, (quantized.codes, quantized.scales), strict=True):
            self._file.write(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data, first + start * width)


def _places(matrix: Matrix, row: Format) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where codes and scales begin in the file, and how many bytes a row of each has."""
    codes, scales = matrix.columns * row.bits // 8, matrix.columns // row.block
    return (_HEAD.size, codes), (_HEAD.size + matrix.rows * codes, scales)


def seen_solved(folder: str) -> Solved:
    """What another process solved. Raises ExportError where its folder is not seen from here."""
    if not Path(folder).is_dir():
        what = "what error feedback solved is not seen from here"
        raise ExportError(what, file=folder, hint="it must be on a folder that all workers share")
    return Solved(Path(folder))
