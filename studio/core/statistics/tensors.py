"""Arrays in safetensors files: written aside, flushed and renamed; read one by one."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.core.containers.files import SourceFile
from studio.core.containers.safetensors import Header, Tensor, place, read_header
from studio.core.errors import CheckpointError
from studio.core.exporting.writing import StagedFile, sync_folder, writing

DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
}
DIGEST = "data_sha256"
"""The key of the metadata with the SHA-256 of all that follows the header."""

Entry = tuple[str, str, tuple[int, ...]]
_PIECE = 1 << 24


def write_tensors(
    path: Path, entries: Sequence[Entry], arrays: Iterable[NDArray[Any]], metadata: Mapping[str, str]
) -> str:
    """Write arrays, each as its entry (name, dtype, shape) says; returns their digest. Raises ExportError."""
    temporary = path.with_name(path.name + ".tmp")
    digest = hashlib.sha256()
    _, header = place(entries, {**metadata, DIGEST: digest.hexdigest()})
    with StagedFile(temporary) as file:
        for (name, dtype, shape), array in zip(entries, arrays, strict=True):
            data = np.ascontiguousarray(array, DTYPES[dtype]).reshape(shape).reshape(-1).view(np.uint8).data
            file.write(data, header.tensors[name].start)
            digest.update(data)
        file.write(memoryview(place(entries, {**metadata, DIGEST: digest.hexdigest()})[0]), 0)
        file.flush()
    with writing(path):
        temporary.rename(path)
        sync_folder(path.parent)
    return digest.hexdigest()


class TensorFile:
    """A file of arrays to read. Raises CheckpointError for one that is malformed or of other dtypes."""

    def __init__(self, path: Path) -> None:
        self.path, self._file = path, SourceFile(path)
        self.header: Header = read_header(self._file)

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the header says beside the tensors."""
        return self.header.metadata

    @property
    def names(self) -> Iterable[str]:
        """Names of the tensors in file order."""
        return self.header.tensors

    def read(self, name: str, dtype: str, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
        """One array; raises CheckpointError when it is missing, or has another dtype or shape."""
        found = self.header.tensors.get(name)
        if found is None:
            raise CheckpointError("missing", file=self.path, tensor=name)
        if found.dtype != dtype or (shape is not None and found.shape != shape):
            wanted = "" if shape is None else f" {list(shape)}"
            what = f"is {found.dtype} {list(found.shape)}, not {dtype}{wanted}"
            raise CheckpointError(what, file=self.path, tensor=name)
        return self._array(found)

    def _array(self, found: Tensor) -> NDArray[Any]:
        return np.frombuffer(self._file.read(found.start, found.nbytes), DTYPES[found.dtype]).reshape(found.shape)

    def check_digest(self) -> str:
        """The digest of the data; raises CheckpointError when it is not the one that the header states."""
        digest, start = hashlib.sha256(), min((tensor.start for tensor in self.header.tensors.values()), default=0)
        for offset in range(start, self._file.size, _PIECE):
            digest.update(self._file.read(offset, min(_PIECE, self._file.size - offset)))
        if digest.hexdigest() != self.metadata.get(DIGEST):
            what = "damaged: its data is not what its header says"
            raise CheckpointError(what, file=self.path, hint="make it again with calibrate")
        return digest.hexdigest()
